"""What one receiver does for all of them, by the lease that the shared clock gives.

The lease only saves work: whatever two receivers do at once, each change and each move of events is stored
once.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from openclaw_exporter.receiver.store.redis.calls import Call
from openclaw_exporter.receiver.store.redis.packing import EVENTS, new_name, read_event

if TYPE_CHECKING:
    from collections.abc import Callable

    from openclaw_exporter.receiver.clock import Clock
    from openclaw_exporter.receiver.listening import Moment
    from openclaw_exporter.receiver.store.redis.commits import Commits
    from openclaw_exporter.receiver.store.redis.feed import Log
    from openclaw_exporter.receiver.store.redis.lanes import Lanes
    from openclaw_exporter.receiver.store.redis.link import Link
    from openclaw_exporter.receiver.store.redis.mirror import Mirror
    from openclaw_exporter.receiver.store.redis.packing import Names

LEASE_SECONDS: Final = 3.0

_EVENTS: Final = 200
"""Events of one partition that are moved at a time."""

_TRIM_EVERY: Final = 5.0
_CHANGES_LIFE_MS: Final = 30_000
_EVENTS_LIFE_MS: Final = 3_600_000
"""For how long the log keeps an event, of which there may be few; as long as a node's history."""

_PATIENCE: Final = 1.0
_START: Final = b"0-0"


class Leader:
    """See the module.

    Args:
        link: The way to Redis.
        names: The keys.
        mirror: What is swept.
        commits: Stores what time has made of nodes.
        clock: This machine's clocks.
        lanes: The plans under way.
        log: The log as this receiver has read it.

    Attributes:
        tells: Whether this receiver speaks for all: it had the lease last, as far as it knows.
    """

    def __init__(
        self,
        link: Link,
        names: Names,
        mirror: Mirror,
        commits: Commits,
        clock: Clock,
        *,
        lanes: Lanes,
        log: Log,
    ) -> None:
        self._link = link
        self._names = names
        self._mirror = mirror
        self._commits = commits
        self._clock = clock
        self._lanes = lanes
        self._log = log
        self._number = 0
        self._until = clock.elapsed()
        self._trimmed_at = clock.elapsed()
        self.tells = False

    @property
    def leads(self) -> bool:
        """Whether this receiver has the lease. Safe to call from any thread."""
        return self._clock.elapsed() < self._until

    def lease(self, asked_at: float) -> None:
        """Note that the lease was given to a question of that moment."""
        self._until = asked_at + LEASE_SECONDS
        self.tells = True

    def end(self) -> None:
        """Note that somebody else has it."""
        self._until = self._clock.elapsed()
        self.tells = False

    async def work(self, heard: Callable[[], Moment | None]) -> None:
        """Do what is due.

        Args:
            heard: Returns until when all heartbeats are known; see `Registry.plan`. None: nothing is.
        """
        self._number = max(self._number, self._log.end)
        if self.leads:
            await self._sweep(heard)
            await self._move()
            await self._trim()
        else:
            self._mirror.registry.turn(_PATIENCE)

    async def _sweep(self, heard: Callable[[], Moment | None]) -> None:
        """Decide on those whose time has come."""
        lanes, registry = self._lanes, self._mirror.registry
        more = True
        while more and self.leads:
            async with lanes.gate:
                await lanes.quiet()
                until = heard()
                if until is None:
                    return
                plan = registry.plan_due(heard=until)
                blocked = lanes.blocked(plan.states)
                if blocked:
                    plan.withdraw(blocked)
                lane = lanes.begin(lanes.partitions(plan.states))
            try:
                verdict = await self._commits.store(plan)
            finally:
                lanes.end(lane)
            unsure = blocked | verdict.differ | verdict.lost
            registry.abandon(plan, unsure)
            more = plan.more and not blocked and not verdict.lost
            # Where nothing is to be stored nothing is waited for.
            await asyncio.sleep(0)

    async def _move(self) -> None:
        """Move events from the partitions to the log, until there are none."""
        (positions,) = await self._link.run([Call(EVENTS, ("HGETALL", self._names.positions))])
        if isinstance(positions, Exception):
            return
        at = dict(zip(positions[::2], positions[1::2], strict=True))
        partitions = [one for one in self._names.partitions if not self._link.away(one)]
        while partitions and self.leads:
            partitions = await self._move_some(partitions, at)

    async def _move_some(self, partitions: list[int], at: dict[bytes, bytes]) -> list[int]:
        """Move some events of each partition; return those that may have more."""
        names = self._names
        found = await self._link.run(
            [
                Call(one, ("XRANGE", names.outbox[one], b"(" + _at(at, one), "+", "COUNT", _EVENTS))
                for one in partitions
            ]
        )
        waiting = [(one, entries) for one, entries in zip(partitions, found, strict=True) if _is(entries)]
        if not waiting:
            return []
        # Nobody is told of what a fail-over may undo.
        marks = [Call(one, ("SET", names.mark[one], "1")) for one, _ in waiting]
        sure = await self._link.run(marks, durable=True)
        safe = [item for item, answer in zip(waiting, sure, strict=True) if not isinstance(answer, Exception)]
        moves = [self._moving(one, _at(at, one), entries) for one, entries in safe]
        moved = await self._link.run(moves, durable=True) if moves else []
        trims = []
        for (one, entries), answer in zip(safe, moved, strict=True):
            if isinstance(answer, bytes):
                at[b"%d" % one] = answer
                if answer == entries[-1][0]:
                    trims.append(self._trimming(one, answer))
        if trims:
            await self._link.run(trims)
        return [one for one, entries in safe if len(entries) == _EVENTS]

    def _trimming(self, partition: int, position: bytes) -> Call:
        """Remove what was moved, also what a leader had moved that died then."""
        return Call(partition, ("XTRIM", self._names.outbox[partition], "MINID", _behind(position)))

    def _moving(self, partition: int, at: bytes, entries: list[Any]) -> Call:
        names = self._names
        script = self._link.script("move")
        events = [fields[1] for _, fields in entries]
        words = (new_name(), partition, at, entries[-1][0], self._log.size, self._number, *events)
        return Call(EVENTS, ("EVALSHA", script, 2, names.positions, names.log, *words))

    async def _trim(self) -> None:
        now = self._clock.elapsed()
        if now - self._trimmed_at < _TRIM_EVERY:
            return
        self._trimmed_at = now
        script, changes = self._link.script("trim"), self._names.changes
        partitions = [one for one in self._names.partitions if not self._link.away(one)]
        calls = [Call(one, ("EVALSHA", script, 1, changes[one], _CHANGES_LIFE_MS)) for one in partitions]
        names = self._names
        # What a leader has moved that died then is removed once the replicas know that it was moved.
        positions, _, entries = await self._link.run(
            [
                Call(EVENTS, ("HGETALL", names.positions)),
                Call(EVENTS, ("HSET", names.positions, "mark", 1)),
                Call(EVENTS, ("XRANGE", names.log, "-", "+", "COUNT", _EVENTS)),
            ],
            durable=True,
        )
        if not isinstance(positions, Exception):
            at = dict(zip(positions[::2], positions[1::2], strict=True))
            calls += [self._trimming(one, _at(at, one)) for one in partitions if b"%d" % one in at]
        if _is(entries):
            calls += self._ending(entries)
        await self._link.run(calls)

    def _ending(self, entries: list[Any]) -> list[Call]:
        """Remove events that are too old from the log: nodes that are forgotten by now stand in them."""
        oldest = self._clock.wall_ms() - _EVENTS_LIFE_MS
        old = [name for name, fields in entries if read_event(fields[1]).at_ms < oldest]
        return [Call(EVENTS, ("XTRIM", self._names.log, "MINID", _behind(old[-1])))] if old else []


def _at(positions: dict[bytes, bytes], partition: int) -> bytes:
    return positions.get(b"%d" % partition, _START)


def _behind(name: bytes) -> bytes:
    """Return the id that follows an entry's."""
    ms, number = name.split(b"-")
    return b"%s-%d" % (ms, int(number) + 1)


def _is(entries: Any) -> bool:
    return not isinstance(entries, Exception) and bool(entries)
