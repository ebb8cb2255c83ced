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
import sqlite3
import time
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from openclaw_exporter.errors import StateError, StoreUnavailableError
from openclaw_exporter.receiver.listening import STALL_SECONDS, ListeningClock
from openclaw_exporter.receiver.liveness import KEY_LIFE_SECONDS
from openclaw_exporter.receiver.registry import Registry, Stored
from openclaw_exporter.receiver.store.batching import BATCH, BatchingStore, answer, tell_heard
from openclaw_exporter.receiver.store.records import NOWHERE, Batch, place
from openclaw_exporter.receiver.store.tail import Tail
from openclaw_exporter.receiver.store.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar, Unpack

    from openclaw_exporter.receiver.clock import Clock
    from openclaw_exporter.receiver.liveness import Arrival, NodeState, Outcome, Rules
    from openclaw_exporter.receiver.registry import KeyRow, Plan
    from openclaw_exporter.receiver.store import Observer
    from openclaw_exporter.receiver.store.batching import Done, Options
    from openclaw_exporter.receiver.store.sqlite import Database

    T = TypeVar("T")

_CLOCK_EVERY: Final = 1.0
_PURGE_EVERY: Final = 5.0
_PURGE_ROWS: Final = 1000
_STALLED_AFTER: Final = 5.0
_PROBE_EVERY: Final = 1.0

_NOTHING: Final = Stored({}, {})
_FAILURES: Final = (sqlite3.Error, OSError, StateError)


class EmbeddedStore(BatchingStore):
    """The registry in memory with a SQLite log; the authority for reads and decisions is memory.

    Args:
        database: The log, not open yet.
        rules: The configuration's.
        clock: This machine's clocks.
        observer: Who wants to know what happens.
        options: Those of every store, see `BatchingStore`.
    """

    system = "sqlite"

    def __init__(
        self,
        database: Database,
        rules: Rules,
        clock: Clock,
        observer: Observer,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(rules, clock, observer, **options)
        self._database = database
        self._number = 0
        self._tail = Tail()
        self._under_way: list[Done] = []
        self._busy_since: float | None = None
        self._busy_for = 0.0
        self._ticked_at = clock.elapsed()
        self._stored_at = self._purged_at = clock.elapsed()

    async def open(self) -> None:
        """Read the log into memory and begin.

        Raises:
            StateError: The file cannot be used.
        """
        self._writer = Writer(asyncio.get_running_loop(), "openclaw-store")
        try:
            seconds, interruption, self._number = await self._writer.submit(self._database.open)
            loaded = await self._writer.submit(self._database.load)
        except BaseException:
            await self._writer.submit(self._database.close)
            await self._writer.stop()
            raise
        listening = ListeningClock(self._clock, seconds=seconds, interruption=interruption)
        registry = Registry(self._rules, listening, loaded.states)
        for number, node_ids in loaded.batches:
            self._tail.add(number, node_ids)
        self._tail.forget(loaded.forgotten)
        self._begin(registry)

    async def close(self) -> None:
        """Store what waits and the listening time, and close the file."""
        await self._end()
        await self._writer.submit(self._database.close)
        await self._writer.stop()

    @property
    def available(self) -> bool:
        """Whether the last commit succeeded and none hangs."""
        return self._available and not self._stalled()

    def tick(self) -> None:
        """Let time pass: expiry, the stored clock, the end of shedding, old keys."""
        self._registry.listening.read()
        self._end_shedding()
        self._count_busy()
        if self._stalled():
            # What is under way may yet be stored; sent again it is then a duplicate.
            answer(self._under_way, None)
            self._lose(
                "stalled", f"{self._database.path}: the disk has not answered for {_STALLED_AFTER:.0f} s"
            )
        self._wake.set()

    async def history(self, node_id: str) -> list[KeyRow]:
        """Return what arrived from a node in the last hour, oldest first."""
        since = self._registry.listening.read().seconds - KEY_LIFE_SECONDS
        trail = self._trail(node_id)
        try:
            return await self._timed("history", partial(self._database.history, node_id, trail, since=since))
        except sqlite3.Error as error:
            raise StoreUnavailableError("the registry's store cannot be read now") from error

    async def _rest(self) -> None:
        """Delete keys that are too old."""
        now = self._clock.elapsed()
        if self._available and now - self._purged_at >= _PURGE_EVERY:
            before = self._registry.listening.latest - KEY_LIFE_SECONDS
            purge = partial(self._database.purge, before, _PURGE_ROWS)
            # Where it was not the last of them the next tick goes on.
            if await self._guarded("purge", purge) != _PURGE_ROWS:
                self._purged_at = now

    async def _batch(self, *, last: bool = False) -> bool:
        """Record what waits and let time pass; return whether more nodes have come due than fitted."""
        batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
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
            answer(self._under_way, outcomes)
        return plan is not None and plan.more

    async def _lookup(self, arrivals: list[Arrival]) -> Stored | None:
        needed = filter(self._registry.needs_lookup, arrivals)
        keys = [(arrival.node_id, arrival.sent_ms, self._trail(arrival.node_id)) for arrival in needed]
        if not keys:
            return _NOTHING
        since = self._registry.listening.read().seconds - KEY_LIFE_SECONDS
        return await self._guarded("lookup", partial(self._database.lookup, keys, since=since))

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
        tell_heard(self._observer, plan)
        return True

    def _prepare(self, plan: Plan) -> Batch:
        """Return what a plan writes; its states then say where they and their arrivals are."""
        number = self._number + 1
        keys: list[tuple[KeyRow, int]] = []
        strangers: list[KeyRow] = []
        for row in plan.keys.values():
            state = plan.states.get(row.node_id)
            if state is None:
                state = self._after(plan, row.node_id)
                if state is None:
                    strangers.append(row)
                    continue
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
        self._busy_for = 0.0
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

    def _count_busy(self) -> None:
        """Count for how long the disk has not answered, but for what this process stood still."""
        now = self._clock.elapsed()
        passed, self._ticked_at = now - self._ticked_at, now
        if self._busy_since is not None and passed <= STALL_SECONDS:
            self._busy_for += min(passed, now - self._busy_since)

    def _stalled(self) -> bool:
        return self._busy_since is not None and self._busy_for > _STALLED_AFTER

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
        self._regain(f"{self._database.path}: the registry can be stored again")
