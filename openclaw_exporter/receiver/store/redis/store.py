"""The registry in Redis, shared by any number of receivers none of which has authority of its own.

Each receiver plans against its mirror and stores by compare-and-set, node by node; what had changed meanwhile
is planned again. So decisions are made by the same rules as everywhere, and Redis sees to it that each was
made on what was stored. A heartbeat is answered when Redis, and the replicas that are asked for, have it.
In a cluster the arrivals of each server are a plan of their own, so that none waits for another's answers.

Three things are under way side by side: batches of arrivals, a pulse (the shared clock, what was away, and
what the leader does for all), and the feed of what other receivers store.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final

from openclaw_exporter.errors import StateError
from openclaw_exporter.receiver.brake import Held
from openclaw_exporter.receiver.listening import STALL_SECONDS
from openclaw_exporter.receiver.registry import Registry
from openclaw_exporter.receiver.store.batching import BATCH, BatchingStore, answer, unavailable
from openclaw_exporter.receiver.store.redis.calls import Call
from openclaw_exporter.receiver.store.redis.clock import SharedClock
from openclaw_exporter.receiver.store.redis.commits import Commits
from openclaw_exporter.receiver.store.redis.feed import Feed
from openclaw_exporter.receiver.store.redis.lanes import Lanes
from openclaw_exporter.receiver.store.redis.leader import LEASE_SECONDS, Leader
from openclaw_exporter.receiver.store.redis.mirror import Mirror
from openclaw_exporter.receiver.store.redis.packing import CLOCK, FORMAT, Names, new_name
from openclaw_exporter.receiver.store.redis.recording import Recording
from openclaw_exporter.receiver.store.redis.rights import try_rights

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from typing import Any, Unpack

    from openclaw_exporter.receiver.census import Census
    from openclaw_exporter.receiver.clock import Clock
    from openclaw_exporter.receiver.listening import Moment
    from openclaw_exporter.receiver.liveness import Arrival, Outcome, Rules
    from openclaw_exporter.receiver.registry import KeyRow
    from openclaw_exporter.receiver.store import Observer
    from openclaw_exporter.receiver.store.batching import Options, Waiting
    from openclaw_exporter.receiver.store.redis.feed import Log
    from openclaw_exporter.receiver.store.redis.link import Link

_logger = logging.getLogger(__name__)

_FRESH: Final = 1.0
"""Seconds after which the shared clock is read before anything is planned."""

_PATIENCE: Final = 0.05
"""Seconds for which that is waited for, as long as this receiver's own reading of it is good."""

_FOLLOW_EVERY: Final = 0.1
_WAITING_FOR: Final = "shards"


class RedisStore(BatchingStore):
    """See the module.

    Args:
        link: The way to Redis, not open yet.
        partitions: Over how many partitions nodes are spread.
        rules: The configuration's.
        clock: This machine's clocks.
        observer: Who wants to know what happens by this receiver's doing.
        log: Who reads of the events of all receivers.
        now: Stands in for Redis' own clock, Unix milliseconds.
        options: Those of every store, see `BatchingStore`.
    """

    system = "redis"
    _gather = 0.005
    _pace_seconds = 0.02

    def __init__(
        self,
        link: Link,
        partitions: int,
        rules: Rules,
        clock: Clock,
        observer: Observer,
        log: Log,
        *,
        now: Callable[[], int] | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(rules, clock, observer, **options)
        self._link = link
        self._names = Names(link.key, partitions)
        self._log = log
        self._now = now
        self._name = new_name()
        self._run_name = b""
        self._is_open = False
        self._shared = SharedClock(clock)
        self._tasks: list[asyncio.Task[None]] = []
        self._lanes, self._pulsing = Lanes(link, self._names, self._go_on), asyncio.Lock()
        self._asking: asyncio.Task[None] | None = None
        self._beat = asyncio.Event()

    async def open(self) -> None:
        """Read the registry and begin.

        Raises:
            StateError: Redis cannot be used, or holds another registry than the configuration says.
        """
        await self._link.open()
        try:
            await try_rights(self._link)
            await self._enter()
            await self._read_clock()
            registry = Registry(self._rules, self._shared)
            self._mirror = Mirror(registry, self._shared, self._observer.happened)
            self._commits = Commits(self._link, self._names, self._mirror, self._observer)
            self._recording = Recording(self._link, self._names, self._shared, self._mirror, self._commits)
            self._feed = Feed(self._link, self._names, self._mirror, self._observer, self._log, self._clock)
            self._leader = Leader(
                self._link,
                self._names,
                self._mirror,
                self._commits,
                self._clock,
                lanes=self._lanes,
                log=self._log,
            )
            await self._feed.catch_up()
        except BaseException:
            await self._link.close()
            raise
        self._begin(registry)
        self._is_open = True
        self._look()
        for name, work in (("pulse", self._keep_time), ("feed", self._keep_up)):
            self._tasks.append(asyncio.create_task(work(), name=f"openclaw-redis-{name}"))

    async def close(self) -> None:
        """Record what waits, give up the lease, and close the connections."""
        await self._end()
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self._leader.leads:
            await self._read_clock(gives_up=True)
        await self._link.close()

    @property
    def available(self) -> bool:
        """Whether any partition can be reached."""
        return self._available

    @property
    def conflicts(self) -> int:
        """How many nodes had changed when they were to be stored. Safe to call from any thread."""
        return self._commits.conflicts if self._is_open else 0

    @property
    def partitions_away(self) -> int:
        """How many partitions cannot be reached. Safe to call from any thread."""
        return len(self._away()) if self._is_open else 0

    def tick(self) -> None:
        """Let time pass."""
        self._end_shedding()
        self._beat.set()
        self._wake.set()

    def submit(self, arrival: Arrival, done: Callable[[Outcome | None], None]) -> None:
        """Queue an arrival for the next commit; see `Store.submit`."""
        if self._link.away(self._names.partition(arrival.node_id)):
            raise unavailable()
        super().submit(arrival, done)

    def held(self) -> Held:
        """Return what the brake holds: on the receiver that decides, so that one says so."""
        held = super().held()
        return held if self._leader.tells else Held(0, 0, held.live)

    def census(self) -> Census | None:
        """Count the registry, on the receiver that has the lease or had it last; see `Store.census`."""
        return super().census() if self._leader.tells else None

    async def history(self, node_id: str) -> list[KeyRow]:
        """Return what arrived from a node in the last hour, oldest first."""
        (found,) = await self._commits.arrivals([node_id])
        if isinstance(found, Exception):
            raise unavailable() from found
        return self._commits.kept(node_id, found)

    async def pulse(self) -> None:
        """Read the shared clock, look after what was away, and do what is due here."""
        async with self._pulsing:
            await self._link.probe()
            if not await self._read_clock():
                await self._begin_anew()
            await self._feed.catch_up()
            self._look()
            if self._leader.leads:
                await self._feed.follow()
            if self._shared.age < _FRESH:
                await self._leader.work(self._heard)
            self._mirror.forget_sent()

    async def follow(self) -> None:
        """Read what other receivers have stored."""
        await self._feed.follow()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as self._plans:
            await super()._run()

    async def _batch(self, *, last: bool = False) -> bool:
        """Begin to record what waits, as far as no plan is under way there."""
        del last
        if self._waiting and self._shared.age > _FRESH:
            await self._ask_time()
        async with self._lanes.gate:
            begun, self._waiting = self._lanes.divide(self._waiting, BATCH)
            for partitions, batch in begun:
                self._begin_plan(partitions, batch)
        self._look()
        if self._waiting and not begun:
            # Until more arrives, or a plan has ended.
            self._wake.clear()
            await self._wake.wait()
            # What has waited for that does not wait once more as behind a batch that has begun.
            self._taken_at = 0.0
        return False

    def _go_on(self) -> None:
        if self._waiting:
            self._wake.set()

    async def _ask_time(self) -> None:
        """Read the shared clock; where its server hangs, this receiver's own reading does for a while."""
        hangs = self._asking is not None and not self._asking.done()
        if self._asking is None or not hangs:
            self._asking = self._plans.create_task(_guarded(self._read_clock()), name="openclaw-time")
        if self._shared.age >= STALL_SECONDS:
            await asyncio.wait({self._asking})
        elif not hangs:
            await asyncio.wait({self._asking}, timeout=_PATIENCE)

    def _begin_plan(self, partitions: Sequence[int], batch: list[Waiting]) -> None:
        """Record what arrived for one server, and answer."""
        outcomes: list[Outcome | None] = [None] * len(batch)
        lane = self._lanes.begin(partitions, batch[0][1])

        def end(_: asyncio.Task[None]) -> None:
            self._lanes.end(lane)
            is_whole = None not in outcomes
            answer([done for _, _, done in batch], outcomes)
            if not is_whole:
                self._look()

        work = self._recording.record([arrival for arrival, _, _ in batch], outcomes)
        self._plans.create_task(_guarded(work), name="openclaw-plan").add_done_callback(end)

    async def _rest(self) -> None:
        """Nothing is left to do."""

    async def _probe(self) -> None:
        """The pulse looks after what is away."""

    async def _enter(self) -> None:
        """Find what all receivers share, or make it.

        Raises:
            StateError: It cannot be reached, or is that of another configuration or version.
        """
        partitions = len(self._names.partitions)
        words = (new_name(), partitions, FORMAT, self._virtual_now())
        command = ("EVALSHA", self._link.script("enter"), 1, self._names.clock, *words)
        (found,) = await self._link.run([Call(CLOCK, command)], durable=True)
        if isinstance(found, Exception):
            raise StateError(f"receiver.store.url: the registry in Redis cannot be read: {found}")
        run, stored, version = found
        if int(version) != FORMAT:
            raise StateError(
                "receiver.store.url: the registry in Redis was made by another version; name another prefix"
            )
        if int(stored) != partitions:
            raise StateError(
                f"receiver.store.partitions: is {partitions}, but the registry in Redis was made with "
                f"{int(stored)}; set it to that"
            )
        self._run_name = run

    async def _read_clock(self, *, gives_up: bool = False) -> bool:
        """Say to the shared clock whether this receiver hears, and read it; False: there is none any more."""
        shared, mode = self._shared, self._shared.mode
        asked_at = self._clock.elapsed()
        lease = -1 if gives_up else round(LEASE_SECONDS * 1000)
        words = (self._name, self._virtual_now(), mode, *shared.told, lease)
        command = ("EVALSHA", self._link.script("clock"), 1, self._names.clock, *words)
        (found,) = await self._link.run([Call(CLOCK, command)])
        if isinstance(found, Exception):
            return True
        if not found or found[0] != self._run_name:
            return False
        shared.follow(mode, int(found[1]), int(found[2]))
        if found[3] == self._name.encode():
            self._leads(asked_at)
        elif self._available:
            self._leader.end()
        return True

    def _leads(self, asked_at: float) -> None:
        if self._available:
            self._leader.lease(asked_at)

    async def _begin_anew(self) -> None:
        """Redis has lost everything, or it is another one: nothing that is known counts any more."""
        _logger.error("Redis does not hold the registry any more; it begins anew")
        self._feed.forget()
        try:
            await self._enter()
        except StateError as error:
            _logger.warning("%s", error)

    def _look(self) -> None:
        """Note what is away: then this receiver does not hear everybody."""
        away = self._away()
        listening = self._shared
        if not away and not self._feed.missed() and not self._link.away(CLOCK):
            listening.hear(_WAITING_FOR)
        else:
            listening.deafen(_WAITING_FOR)
        if len(away) == len(self._names.partitions):
            self._lose("away", "the registry's Redis cannot be reached at all")
        elif not self._available:
            self._regain("the registry's Redis can be reached again")

    def _away(self) -> list[int]:
        return [one for one in self._names.partitions if self._link.away(one)]

    def _heard(self) -> Moment | None:
        """Return until when all heartbeats are known that arrived, here and elsewhere."""
        known_until = self._feed.known_until
        if known_until is None:
            return None
        first = [moment for _, moment, _ in self._waiting[:1]]
        return min([known_until, *first, *self._lanes.since], key=lambda moment: moment.seconds)

    async def _keep_time(self) -> None:
        while True:
            await self._beat.wait()
            self._beat.clear()
            await _guarded(self.pulse())

    async def _keep_up(self) -> None:
        while True:
            await asyncio.sleep(_FOLLOW_EVERY)
            await _guarded(self.follow())

    def _virtual_now(self) -> int | str:
        return "" if self._now is None else self._now()


async def _guarded(work: Coroutine[Any, Any, object]) -> None:
    try:
        await work
    except Exception:
        # A fault of ours must not end what keeps the time.
        _logger.exception("the registry's plan, pulse or feed failed")
