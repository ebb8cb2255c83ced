"""What stores that keep a registry in memory share: arrivals gather, are recorded in batches and answered.

One batch is under way at a time, or one for each server that is behind the store. Arrivals queue meanwhile,
and the next batch takes them all: the busier what is behind the store, the larger the batch. Reads are
answered from memory.
"""

from __future__ import annotations

import abc
import asyncio
import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING, Final, TypedDict

from openclaw_exporter.errors import StoreUnavailableError
from openclaw_exporter.logs import Episodes
from openclaw_exporter.receiver.census import Census, take_census
from openclaw_exporter.receiver.liveness import Outcome
from openclaw_exporter.receiver.query import scan, select, view
from openclaw_exporter.receiver.refusals import SheddingError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from openclaw_exporter.receiver.brake import Held
    from openclaw_exporter.receiver.clock import Clock
    from openclaw_exporter.receiver.listening import Listening, Moment
    from openclaw_exporter.receiver.liveness import Arrival, NodeState, Rules
    from openclaw_exporter.receiver.query import NodeView, Query
    from openclaw_exporter.receiver.registry import Plan, Registry
    from openclaw_exporter.receiver.store import Observer, Page

_logger = logging.getLogger(__name__)

BATCH: Final = 1024
"""Arrivals that one batch takes, at most."""

GATHER: Final = 0.002
PACE: Final = 0.005
LONGEST: Final = 0.02
"""Seconds: for which arrivals gather, and again for as long as more come; between the beginnings of two
batches; and for which one batch gathers at most. A commit costs as much as ten heartbeats, and none is in a
hurry of milliseconds."""

_SHED_FOR: Final = 1.0
_CENSUS_LIFE: Final = 1.0
_CENSUS_SHARE: Final = 10

Done = Callable[[Outcome | None], None]
"""Takes an outcome; None: the store was lost."""

Waiting = tuple["Arrival", "Moment", Done]
"""An arrival, when it came, and who wants to know what became of it."""


class Options(TypedDict, total=False):
    """Arguments of every `BatchingStore`."""

    max_waiting: int
    turn_away: Callable[[], int]


class BatchingStore(abc.ABC):
    """A registry in memory, and one worker that records what arrives. See `Store`.

    Args:
        rules: The configuration's.
        clock: This machine's clocks.
        observer: Who wants to know what happens.
        max_waiting: Arrivals that may wait for a commit; more are turned away.
        turn_away: Returns after how many seconds one that is turned away may come back.
    """

    _gather = GATHER
    _pace_seconds = PACE

    def __init__(
        self,
        rules: Rules,
        clock: Clock,
        observer: Observer,
        *,
        max_waiting: int = 8192,
        turn_away: Callable[[], int] = lambda: 5,
    ) -> None:
        self._rules = rules
        self._clock = clock
        self._observer = observer
        self._max_waiting = max_waiting
        self._turn_away = turn_away
        self._waiting: list[Waiting] = []
        self._episodes = Episodes(_logger)
        self._available = False
        self._closing = False
        self._taken_at = 0.0
        self._shed_at: float | None = None
        self._probed_at = clock.elapsed()
        self._census_lock = threading.Lock()
        self._census: tuple[float, Census] | None = None

    def _begin(self, registry: Registry) -> None:
        """Begin to record what arrives."""
        self._registry = registry
        self._wake = asyncio.Event()
        self._available = True
        self._task = asyncio.create_task(self._run(), name="openclaw-store")

    async def _end(self) -> None:
        """Record what waits, and stop."""
        self._closing = True
        self._wake.set()
        await self._task

    @property
    def listening(self) -> Listening:
        """The listening clock, once open."""
        return self._registry.listening

    def shed(self) -> None:
        """Stop listening time until a second has passed without another call."""
        self._shed_at = self._clock.elapsed()
        self._registry.listening.deafen("shedding")

    def record(self, arrival: Arrival) -> asyncio.Future[Outcome]:
        """Record an arrival; see `Store.record`."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.submit(arrival, partial(_settle, future))
        return future

    def submit(self, arrival: Arrival, done: Done) -> None:
        """Queue an arrival for the next commit; see `Store.submit`."""
        # A commit that hangs is found by the next tick, and soon enough.
        if self._closing or not self._available:
            raise unavailable()
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

    def held(self) -> Held:
        """Return what the brake on mass expiry holds now."""
        return self._registry.held

    def census(self) -> Census | None:
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

    @abc.abstractmethod
    async def _batch(self, *, last: bool = False) -> bool:
        """Record what waits and let time pass; return whether there is more to do at once."""

    @abc.abstractmethod
    async def _rest(self) -> None:
        """Do what is left to do when nothing waits."""

    @abc.abstractmethod
    async def _probe(self) -> None:
        """Look whether a lost store can be used again."""

    def _end_shedding(self) -> None:
        """Hear again where nobody was turned away lately."""
        if self._shed_at is not None and self._clock.elapsed() - self._shed_at >= _SHED_FOR:
            self._shed_at = None
            self._registry.listening.hear("shedding")

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
        await self._rest()

    async def _pace(self) -> None:
        """Let arrivals gather until none has come for a while: they all share one commit."""
        began = time.monotonic()
        gathered = len(self._waiting)
        await asyncio.sleep(max(self._gather, self._taken_at + self._pace_seconds - began))
        while gathered < len(self._waiting) < BATCH and time.monotonic() < began + LONGEST:
            gathered = len(self._waiting)
            await asyncio.sleep(self._gather)
        self._taken_at = time.monotonic()

    def _lose(self, cause: str, message: str) -> None:
        """Note that nothing can be recorded; what waits is answered so."""
        if self._available:
            self._available = False
            self._registry.listening.deafen("store")
        self._probed_at = self._clock.elapsed()
        self._episodes.begin("store", cause, message, level=logging.ERROR)
        waiting, self._waiting = self._waiting, []
        answer([done for _, _, done in waiting], None)

    def _regain(self, message: str) -> None:
        """Note that it can be recorded again."""
        self._available = True
        self._registry.listening.hear("store")
        self._episodes.end("store", message)


def answer(waiting: list[Done], outcomes: Sequence[Outcome | None] | None) -> None:
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


def tell_heard(observer: Observer, plan: Plan) -> None:
    """Tell who wants to know of the live heartbeats in a plan that is stored."""
    for life in plan.lives:
        observer.heard(life.gap, life.skew_ms)
    if observer.wants_updates:
        for state in plan.updated:
            observer.updated(state)


def unavailable() -> StoreUnavailableError:
    """Return what says that the store is lost."""
    return StoreUnavailableError("the registry's store cannot be reached now")


def _settle(future: asyncio.Future[Outcome], outcome: Outcome | None) -> None:
    if future.done():
        return
    if outcome is None:
        future.set_exception(unavailable())
    else:
        future.set_result(outcome)
