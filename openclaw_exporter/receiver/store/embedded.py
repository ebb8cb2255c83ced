"""The embedded store: the registry in this process, and a durable log of it in one SQLite file.

The order of things makes it right. One batch is under way at a time: take what arrived, read the stored keys
of those that may be duplicates, plan against memory, commit, apply the plan to memory, answer. So memory
holds exactly what is on the disk; a commit that fails is forgotten as a whole, its senders get 503, and when
they send again their heartbeats are new. Only a commit whose failure was reported after the fact (the disk
has it, memory does not) can differ: the retry then simply replaces the row that nobody had been promised.
Arrivals queue meanwhile, and the next batch takes them all: the busier the disk, the larger the batch.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING, Final

import msgspec

from openclaw_exporter.errors import StateError, StoreUnavailableError
from openclaw_exporter.logs import Episodes
from openclaw_exporter.receiver.census import Census, take_census
from openclaw_exporter.receiver.listening import ListeningClock
from openclaw_exporter.receiver.liveness import KEY_LIFE_SECONDS, Outcome
from openclaw_exporter.receiver.query import scan, select, view
from openclaw_exporter.receiver.refusals import SheddingError
from openclaw_exporter.receiver.registry import Registry, Stored
from openclaw_exporter.receiver.store.records import NOWHERE, Batch, place
from openclaw_exporter.receiver.store.tail import Tail
from openclaw_exporter.receiver.store.writer import Writer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from typing import TypeVar

    from openclaw_exporter.receiver.brake import Held
    from openclaw_exporter.receiver.clock import Clock
    from openclaw_exporter.receiver.listening import Moment
    from openclaw_exporter.receiver.liveness import Arrival, NodeState, Rules
    from openclaw_exporter.receiver.query import NodeView, Query
    from openclaw_exporter.receiver.registry import KeyRow, Plan
    from openclaw_exporter.receiver.store import Observer, Page
    from openclaw_exporter.receiver.store.sqlite import Database

    T = TypeVar("T")

_logger = logging.getLogger(__name__)

_BATCH: Final = 1024
_GATHER: Final = 0.002
_PACE: Final = 0.005
"""Seconds for which arrivals gather, and between the beginnings of two batches of them. A commit costs as
much as ten heartbeats, and none is in a hurry of milliseconds."""

_CLOCK_EVERY: Final = 1.0
_PURGE_EVERY: Final = 5.0
_PURGE_ROWS: Final = 1000
_STALLED_AFTER: Final = 5.0
_PROBE_EVERY: Final = 1.0
_SHED_FOR: Final = 1.0
_CENSUS_LIFE: Final = 1.0
_CENSUS_SHARE: Final = 10

_Done = Callable[[Outcome | None], None]

_NOTHING: Final = Stored({}, {})
_FAILURES: Final = (sqlite3.Error, OSError, StateError)


class EmbeddedStore:
    """The registry in memory with a SQLite log; the authority for reads and decisions is memory.

    Args:
        database: The log, not open yet.
        rules: The configuration's.
        clock: This machine's clocks.
        observer: Who wants to know what happens.
        max_waiting: Arrivals that may wait for a commit; more are turned away.
        turn_away: Returns after how many seconds one that is turned away may come back.
    """

    system = "sqlite"

    def __init__(
        self,
        database: Database,
        rules: Rules,
        clock: Clock,
        observer: Observer,
        *,
        max_waiting: int = 8192,
        turn_away: Callable[[], int] = lambda: 5,
    ) -> None:
        self._database = database
        self._rules = rules
        self._clock = clock
        self._observer = observer
        self._max_waiting = max_waiting
        self._turn_away = turn_away
        self._waiting: list[tuple[Arrival, Moment, _Done]] = []
        self._under_way: list[_Done] = []
        self._episodes = Episodes(_logger)
        self._available = False
        self._closing = False
        self._taken_at = 0.0
        self._number = 0
        self._tail = Tail()
        self._busy_since: float | None = None
        self._shed_at: float | None = None
        self._stored_at = self._purged_at = self._probed_at = clock.elapsed()
        self._census_lock = threading.Lock()
        self._census: tuple[float, Census] | None = None

    async def open(self) -> None:
        """Read the log into memory and begin.

        Raises:
            StateError: The file cannot be used.
        """
        self._wake = asyncio.Event()
        self._writer = Writer(asyncio.get_running_loop(), "openclaw-store")
        try:
            seconds, interruption, self._number = await self._writer.submit(self._database.open)
            loaded = await self._writer.submit(self._database.load)
        except BaseException:
            await self._writer.submit(self._database.close)
            await self._writer.stop()
            raise
        listening = ListeningClock(self._clock, seconds=seconds, interruption=interruption)
        self._registry = Registry(self._rules, listening, loaded.states)
        for number, node_ids in loaded.batches:
            self._tail.add(number, node_ids)
        self._tail.forget(loaded.forgotten)
        self._available = True
        self._task = asyncio.create_task(self._run(), name="openclaw-store")

    async def close(self) -> None:
        """Store what waits and the listening time, and close the file."""
        self._closing = True
        self._wake.set()
        await self._task
        await self._writer.submit(self._database.close)
        await self._writer.stop()

    @property
    def available(self) -> bool:
        """Whether the last commit succeeded and none hangs."""
        return self._available and not self._stalled()

    @property
    def listening(self) -> ListeningClock:
        """The listening clock, once open."""
        return self._registry.listening

    def tick(self) -> None:
        """Let time pass: expiry, the stored clock, the end of shedding, old keys."""
        listening = self._registry.listening
        listening.read()
        now = self._clock.elapsed()
        if self._shed_at is not None and now - self._shed_at >= _SHED_FOR:
            self._shed_at = None
            listening.hear("shedding")
        if self._stalled():
            # What is under way may yet be stored; sent again it is then a duplicate.
            _answer(self._under_way, None)
            self._lose(
                "stalled", f"{self._database.path}: the disk has not answered for {_STALLED_AFTER:.0f} s"
            )
        self._wake.set()

    def shed(self) -> None:
        """Stop listening time until a second has passed without another call."""
        self._shed_at = self._clock.elapsed()
        self._registry.listening.deafen("shedding")

    def record(self, arrival: Arrival) -> asyncio.Future[Outcome]:
        """Record an arrival; see `Store.record`."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.submit(arrival, partial(_settle, future))
        return future

    def submit(self, arrival: Arrival, done: Callable[[Outcome | None], None]) -> None:
        """Queue an arrival for the next commit; see `Store.submit`."""
        # A commit that hangs is found by the next tick, and soon enough.
        if self._closing or not self._available:
            raise _unavailable()
        if len(self._waiting) >= self._max_waiting:
            self.shed()
            raise SheddingError(retry_after=self._turn_away())
        self._waiting.append((arrival, self._registry.listening.read(), done))
        self._wake.set()

    async def node(self, node_id: str) -> NodeView | None:
        """Return one node, or None."""
        state = self._registry.nodes.get(node_id)
        return None if state is None else view(state, self._registry.listening.read())

    async def page(self, query: Query) -> Page:
        """Return the nodes that a query asks for."""
        return await select(self._registry, query)

    def scan(self, query: Query) -> AsyncIterator[list[NodeState]]:
        """Return all nodes that a query asks for, in slices; see `Store.scan`."""
        return scan(self._registry, query)

    def moment(self) -> Moment:
        """Return the present moment of the listening clock."""
        return self._registry.listening.read()

    async def history(self, node_id: str) -> list[KeyRow]:
        """Return what arrived from a node in the last hour, oldest first."""
        since = self._registry.listening.read().seconds - KEY_LIFE_SECONDS
        trail = self._trail(node_id)
        try:
            return await self._timed("history", partial(self._database.history, node_id, trail, since=since))
        except sqlite3.Error as error:
            raise StoreUnavailableError("the registry's store cannot be read now") from error

    def held(self) -> Held:
        """Return what the brake on mass expiry holds now."""
        return self._registry.held

    def census(self) -> Census:
        """Count the registry; up to a second old, or ten times what counting takes. For any thread."""
        with self._census_lock:
            now = time.monotonic()
            if self._census is None or now >= self._census[0]:
                # One call in C: a snapshot that no other thread can change under us. States never change.
                states = list(self._registry.nodes.values())
                heard_until = self._registry.listening.latest
                census = take_census(states, heard_until)
                # However large the registry and however many ask: counting takes a tenth of a core at most.
                life = max(_CENSUS_LIFE, _CENSUS_SHARE * (time.monotonic() - now))
                self._census = (now + life, census)
            return self._census[1]

    async def _run(self) -> None:
        while not (self._closing and not self._waiting):
            await self._wake.wait()
            self._wake.clear()
            try:
                if self._available:
                    await self._work()
                else:
                    await self._probe()
            except Exception:
                # A fault of ours must not end the registry's only worker; the batch was answered.
                _logger.exception("the registry's worker failed")
        if self._available:
            await self._batch(last=True)

    async def _work(self) -> None:
        more = True
        while self._available and (more or self._waiting):
            if self._waiting:
                await self._pace()
            more = await self._batch()
            if more:
                # A batch with nothing to store waits for nothing, and many may follow.
                await asyncio.sleep(0)
        now = self._clock.elapsed()
        if self._available and now - self._purged_at >= _PURGE_EVERY:
            before = self._registry.listening.latest - KEY_LIFE_SECONDS
            purge = partial(self._database.purge, before, _PURGE_ROWS)
            # Where it was not the last of them the next tick goes on.
            if await self._guarded("purge", purge) != _PURGE_ROWS:
                self._purged_at = now

    async def _pace(self) -> None:
        """Let arrivals gather."""
        await asyncio.sleep(max(_GATHER, self._taken_at + _PACE - time.monotonic()))
        self._taken_at = time.monotonic()

    async def _batch(self, *, last: bool = False) -> bool:
        """Record what waits and let time pass; return whether more nodes have come due than fitted."""
        batch, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
        self._under_way = [done for _, _, done in batch]
        outcomes: list[Outcome] | None = None
        plan: Plan | None = None
        try:
            stored = await self._lookup([arrival for arrival, _, _ in batch])
            if stored is not None:
                heard = self._waiting[0][1] if self._waiting else None
                arrivals = [(arrival, at) for arrival, at, _ in batch]
                plan = self._registry.plan(arrivals, stored, heard=heard)
                if await self._commit(plan, last=last):
                    outcomes = plan.outcomes
        finally:
            _answer(self._under_way, outcomes)
        return plan is not None and plan.more

    async def _lookup(self, arrivals: list[Arrival]) -> Stored | None:
        needed = filter(self._registry.needs_lookup, arrivals)
        keys = [(arrival.node_id, arrival.sent_ms, self._trail(arrival.node_id)) for arrival in needed]
        return await self._guarded("lookup", partial(self._database.lookup, keys)) if keys else _NOTHING

    async def _commit(self, plan: Plan, *, last: bool) -> bool:
        clock_is_old = self._clock.elapsed() - self._stored_at >= _CLOCK_EVERY and bool(self._registry.nodes)
        if plan.durable or clock_is_old or last or self._tail.holds_forgotten:
            batch = self._prepare(plan)
            stored = None
            try:
                stored = await self._guarded("commit", partial(self._store, batch))
            finally:
                if stored is None:
                    self._registry.abandon(plan)
            if stored is None:
                return False
            self._stored_at = self._clock.elapsed()
            self._note(batch)
        self._registry.apply(plan)
        for event, state in plan.events:
            self._observer.happened(event, state)
        for gap, skew_ms in plan.lives:
            self._observer.heard(gap, skew_ms)
        if self._observer.wants_updates:
            for state in plan.updated:
                self._observer.updated(state)
        return True

    def _prepare(self, plan: Plan) -> Batch:
        """Return what a plan writes; its states then say where they and their arrivals are."""
        number = self._number + 1
        keys: list[tuple[KeyRow, int]] = []
        strangers: list[KeyRow] = []
        for row in plan.keys.values():
            state = self._after(plan, row.node_id)
            if state is None:
                strangers.append(row)
                continue
            if row.node_id not in plan.states:
                # Only its trail is new.
                state = plan.states[row.node_id] = msgspec.structs.replace(state)
            plan.only_late.discard(row.node_id)
            keys.append((row, state.trail))
            state.trail = place(number, len(keys) - 1)
        states = plan.changed
        for state in states:
            state.stored = number
        folded, dropped = self._tail.surplus(len(self._registry.nodes), partial(self._after, plan))
        forgotten = plan.forgotten
        if not (keys or states or forgotten):
            number = self._number
        return Batch(number, plan.moment, keys, strangers, states, forgotten, folded, dropped)

    def _after(self, plan: Plan, node_id: str) -> NodeState | None:
        """Return a node's state as it is after a plan."""
        return plan.states[node_id] if node_id in plan.states else self._registry.nodes.get(node_id)

    def _note(self, batch: Batch) -> None:
        """Note that a batch is stored."""
        if batch.number != self._number:
            self._number = batch.number
            self._tail.add(batch.number, [state.node_id for state in batch.states])
        for state in batch.folded:
            state.stored = 0
        for node_id in batch.forgotten:
            if (gone := self._registry.nodes.get(node_id)) is not None:
                self._tail.forget(gone.stored)
        self._tail.drop(batch.dropped)

    def _trail(self, node_id: str) -> int:
        state = self._registry.nodes.get(node_id)
        return NOWHERE if state is None else state.trail

    def _store(self, batch: Batch) -> bool:
        self._database.commit(batch)
        return True

    async def _guarded(self, operation: str, work: Callable[[], T]) -> T | None:
        """Do blocking work; None: it failed, and the store counts as lost."""
        self._busy_since = self._clock.elapsed()
        try:
            return await self._timed(operation, work)
        except _FAILURES as error:
            self._lose(type(error).__name__, f"{self._database.path}: the registry cannot be stored: {error}")
            return None
        finally:
            self._busy_since = None

    async def _timed(self, operation: str, work: Callable[[], T]) -> T:
        started = time.perf_counter()
        try:
            return await self._writer.submit(work)
        finally:
            self._observer.timed(operation, time.perf_counter() - started)

    def _stalled(self) -> bool:
        return self._busy_since is not None and self._clock.elapsed() - self._busy_since > _STALLED_AFTER

    def _lose(self, cause: str, message: str) -> None:
        if self._available:
            self._available = False
            self._registry.listening.deafen("store")
        self._probed_at = self._clock.elapsed()
        self._episodes.begin("store", cause, message, level=logging.ERROR)
        waiting, self._waiting = self._waiting, []
        _answer([done for _, _, done in waiting], None)

    async def _probe(self) -> None:
        if self._clock.elapsed() - self._probed_at < _PROBE_EVERY:
            return
        moment = self._registry.listening.read()
        nodes = list(self._registry.nodes.values())
        try:
            fresh = await self._timed("recover", partial(self._database.recover, moment, self._number, nodes))
        except _FAILURES as error:
            self._lose(type(error).__name__, f"{self._database.path}: the registry cannot be stored: {error}")
            return
        if fresh:
            self._tail.clear()
            for state in nodes:
                state.stored = 0
        self._available = True
        self._registry.listening.hear("store")
        self._episodes.end("store", f"{self._database.path}: the registry can be stored again")


def _answer(waiting: list[_Done], outcomes: list[Outcome] | None) -> None:
    """Answer all of those that wait, once: the list is empty then."""
    if not waiting:
        return
    answered = waiting.copy()
    waiting.clear()
    given: Iterable[Outcome | None] = repeat(None, len(answered)) if outcomes is None else outcomes
    for done, outcome in zip(answered, given, strict=True):
        try:
            done(outcome)
        except Exception:
            # Whoever fails to take an answer must not keep the others from theirs.
            _logger.exception("an answer could not be given")


def _settle(future: asyncio.Future[Outcome], outcome: Outcome | None) -> None:
    if future.done():
        return
    if outcome is None:
        future.set_exception(_unavailable())
    else:
        future.set_result(outcome)


def _unavailable() -> StoreUnavailableError:
    return StoreUnavailableError("the registry's store cannot be reached now")
