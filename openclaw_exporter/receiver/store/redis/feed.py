"""Following what other receivers store: every partition's changes into the mirror, and the log of events.

Both are asked for ten times a second. The changes say which nodes have which revision now; states are read
where that is news, so not after the receiver's own commits. What has changed is read once from the beginning
where something may have been missed: at the start, and after the way to its server, or the server itself, was
another one. Then the store is right whatever the mirror knew.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Protocol

from openclaw_exporter.receiver.store.redis.calls import Call
from openclaw_exporter.receiver.store.redis.packing import (
    EVENTS,
    is_heard,
    is_newer,
    new_name,
    node_bytes,
    node_name,
    pack_revision,
    read_changes,
    read_event,
    revision_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from openclaw_exporter.receiver.clock import Clock
    from openclaw_exporter.receiver.listening import Moment
    from openclaw_exporter.receiver.store import Observer
    from openclaw_exporter.receiver.store.redis.link import Link
    from openclaw_exporter.receiver.store.redis.mirror import Mirror
    from openclaw_exporter.receiver.store.redis.packing import Names, Told

_START: Final = b"0-0"
_CHANGES: Final = 500
"""Entries of one partition that are read at a time."""

_SCANNED: Final = 500
"""States of one partition that are read at a time."""

_SLICE: Final = 20_000
_LONGEST: Final = 20.0
"""Seconds without a look at the changes after which some of them may be gone."""


class Log(Protocol):
    """Who reads the log of events that all receivers share."""

    @property
    def run(self) -> str:
        """The log's name."""

    @property
    def end(self) -> int:
        """The number of the next event."""

    @property
    def size(self) -> int:
        """How many events are wanted."""

    def restart(self, run: str, begin: int) -> None:
        """Begin with another log, or again, at an event's number."""

    def take(self, number: int, told: Told) -> None:
        """Take in an event."""


class Feed:
    """See the module.

    Args:
        link: The way to Redis.
        names: The keys.
        mirror: What takes in the changes.
        observer: Who wants to know what happens.
        log: Who reads the events.
        clock: This machine's clocks.
    """

    def __init__(
        self, link: Link, names: Names, mirror: Mirror, observer: Observer, log: Log, clock: Clock
    ) -> None:
        self._link = link
        self._names = names
        self._mirror = mirror
        self._observer = observer
        self._log = log
        self._after: dict[int, bytes] = {}
        self._generations: dict[int | str, int] = {}
        self._read_at: dict[int, float] = {}
        self._reading = asyncio.Lock()
        self._clock = clock
        self._known_until: Moment | None = None

    def forget(self) -> None:
        """Read everything anew: Redis has lost it."""
        self._generations.clear()

    @property
    def known_until(self) -> Moment | None:
        """A moment until which the mirror knows all that any receiver has stored; None: there is none yet."""
        return self._known_until

    def missed(self) -> list[int]:
        """Return the partitions that can be read and of which something may have been missed."""
        return [one for one in self._names.partitions if self._is_behind(one)]

    async def catch_up(self) -> None:
        """Read anew what has been missed, as far as it can be read."""
        async with self._reading:
            self._give_up_on_old()
            if self._is_behind(EVENTS):
                await self._load_log()
            if missed := self.missed():
                await self._load(missed)

    async def follow(self) -> None:
        """Read what is new."""
        async with self._reading:
            self._give_up_on_old()
            more = True
            while more:
                more = await self._follow()

    def _give_up_on_old(self) -> None:
        """Read those partitions anew of which changes may be gone by now, unread."""
        oldest = self._clock.elapsed() - _LONGEST
        for partition, read_at in self._read_at.items():
            if read_at < oldest:
                self._generations.pop(partition, None)

    def _is_behind(self, partition: int | str) -> bool:
        known, now = self._generations.get(partition), self._link.generation(partition)
        return known != now and not self._link.away(partition)

    async def _follow(self) -> bool:
        partitions = [one for one in self._after if not self._link.away(one)]
        names = self._names
        calls = [
            Call(one, ("XREAD", "COUNT", _CHANGES, "STREAMS", names.changes[one], self._after[one]))
            for one in partitions
        ]
        with_log = EVENTS in self._generations and not self._link.away(EVENTS)
        if with_log:
            last = f"{self._log.end}-0"
            calls.append(Call(EVENTS, ("XREAD", "COUNT", _CHANGES, "STREAMS", names.log, last)))
        if not calls:
            return False
        asked_at, at = self._clock.elapsed(), self._mirror.registry.listening.read()
        answers = await self._link.run(calls)
        read = {
            one: _entries(answer)
            for one, answer in zip(partitions, answers, strict=False)
            if not isinstance(answer, Exception)
        }
        news = {one: self._news(entries, at) for one, entries in read.items()}
        unread = await self._read_states(news, at)
        more, is_whole = False, len(read) == len(names.partitions) and not unread
        for partition, entries in read.items():
            if partition in unread:
                continue
            self._read_at[partition] = asked_at
            if entries:
                self._after[partition] = entries[-1][0]
            more = more or len(entries) == _CHANGES
        if with_log:
            self._tell(_entries(answers[-1]))
        if is_whole and not more and not self.missed():
            self._known_until = at
        return more

    def _news(self, entries: Iterable[Any], at: Moment) -> list[str]:
        """Take in who was forgotten; return the nodes whose states are to be read."""
        news: dict[str, None] = {}
        for _, fields in entries:
            told = dict(zip(fields[::2], fields[1::2], strict=True))
            for node_id, revision in read_changes(told.get(b"changed", b"")):
                if self._mirror.hears_of(node_id, revision):
                    news[node_id] = None
            for node_id, revision in read_changes(told.get(b"forgotten", b"")):
                self._mirror.follow(node_id, pack_revision(revision), at)
        return [*news]

    async def _read_states(self, news: dict[int, list[str]], at: Moment) -> set[int]:
        """Read nodes' states into the mirror; return the partitions where that was not possible."""
        slices = [
            (partition, nodes[start : start + _SCANNED])
            for partition, nodes in news.items()
            for start in range(0, len(nodes), _SCANNED)
        ]
        if not slices:
            return set()
        names = self._names.nodes
        calls = [Call(one, ("HMGET", names[one], *map(node_bytes, nodes))) for one, nodes in slices]
        wants_updates, unread = self._observer.wants_updates, set()
        for (partition, nodes), answer in zip(slices, await self._link.run(calls), strict=True):
            if isinstance(answer, Exception):
                unread.add(partition)
                continue
            for node_id, blob in zip(nodes, answer, strict=True):
                # One that is not there was forgotten since, and a later change says so.
                state = self._mirror.follow(node_id, blob, at) if blob else None
                if state is not None and wants_updates and is_heard(blob):
                    self._observer.updated(state)
        return unread

    def _tell(self, entries: Iterable[Any]) -> None:
        for name, fields in entries:
            number = int(name.split(b"-")[0])
            self._log.take(number, read_event(fields[1]))

    async def _load_log(self) -> None:
        generation = self._link.generation(EVENTS)
        names, size = self._names, self._log.size
        answers = await self._link.run(
            [
                Call(EVENTS, ("HSETNX", names.positions, "run", new_name())),
                Call(EVENTS, ("HMGET", names.positions, "run", "number")),
                Call(EVENTS, ("XREVRANGE", names.log, "+", "-", "COUNT", size)),
            ]
        )
        if any(isinstance(answer, Exception) for answer in answers):
            return
        name, number = answers[1]
        run = name.decode()
        entries = answers[2][::-1]
        # Events that are too old are removed, and those that follow are numbered on.
        last = int(entries[-1][0].split(b"-")[0]) if entries else int(number or 0)
        if run != self._log.run or last < self._log.end:
            first = int(entries[0][0].split(b"-")[0]) if entries else last + 1
            self._log.restart(run, first - 1)
            self._tell(entries)
        self._generations[EVENTS] = generation

    async def _load(self, partitions: list[int]) -> None:
        """Read all states of some partitions, and follow their changes from there."""
        generations = {one: self._link.generation(one) for one in partitions}
        changes = self._names.changes
        asked_at = self._clock.elapsed()
        calls = [Call(one, ("XREVRANGE", changes[one], "+", "-", "COUNT", 1)) for one in partitions]
        lasts = await self._link.run(calls)
        unseen = await self._noted(partitions)
        cursors: dict[int, bytes] = {}
        for partition, last in zip(partitions, lasts, strict=True):
            if not isinstance(last, Exception):
                self._after[partition] = last[0][0] if last else _START
                self._read_at[partition] = asked_at
                cursors[partition] = b"0"
        while cursors:
            cursors = await self._scan(cursors, unseen, generations)
            # However long it takes, what changes meanwhile is read in time.
            await self._follow()

    async def _scan(
        self, cursors: dict[int, bytes], unseen: dict[int, dict[str, int]], generations: dict[int, int]
    ) -> dict[int, bytes]:
        """Read some more states; return where to go on."""
        nodes = self._names.nodes
        calls = [Call(one, ("HSCAN", nodes[one], at, "COUNT", _SCANNED)) for one, at in cursors.items()]
        left: dict[int, bytes] = {}
        at = self._mirror.registry.listening.read()
        for partition, answer in zip(cursors, await self._link.run(calls), strict=True):
            if isinstance(answer, Exception):
                continue
            cursor, pairs = answer
            noted = unseen[partition]
            for node, blob in zip(pairs[::2], pairs[1::2], strict=True):
                node_id = node_name(node)
                self._correct(node_id, blob, noted.pop(node_id, None), at)
            if cursor != b"0":
                left[partition] = cursor
            else:
                for node_id, revision in noted.items():
                    self._correct(node_id, b"", revision, at)
                self._generations[partition] = generations[partition]
            await asyncio.sleep(0)
        return left

    def _correct(self, node_id: str, blob: bytes, noted: int | None, at: Moment) -> None:
        """Take in what was read of a node that had a revision when the reading began."""
        known = self._mirror.registry.nodes.get(node_id)
        if known is None or is_newer(revision_of(blob), known.stored):
            if blob:
                self._mirror.follow(node_id, blob, at)
        elif noted is not None:
            self._mirror.correct(node_id, blob, noted, at)

    async def _noted(self, partitions: Iterable[int]) -> dict[int, dict[str, int]]:
        """Return the revisions that the mirror has of some partitions."""
        noted: dict[int, dict[str, int]] = {one: {} for one in partitions}
        partition_of = self._names.partition
        for number, state in enumerate(list(self._mirror.registry.nodes.values()), start=1):
            found = noted.get(partition_of(state.node_id))
            if found is not None:
                found[state.node_id] = state.stored
            if number % _SLICE == 0:
                await asyncio.sleep(0)
        return noted


def _entries(answer: Any) -> list[Any]:
    """Return the entries of the one stream that an XREAD named."""
    if isinstance(answer, Exception) or not answer:
        return []
    return list(answer[0][1])
