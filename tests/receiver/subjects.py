# ruff: noqa: ARG002 - every subject is called alike
"""The stores as the model test drives them: in virtual time, with faults at the moments that it chooses."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING, Any, Protocol

from receiver.virtual import VirtualClock

from openclaw_exporter.errors import StoreUnavailableError
from openclaw_exporter.receiver.query import Query
from openclaw_exporter.receiver.store.embedded import EmbeddedStore
from openclaw_exporter.receiver.store.sqlite import Database

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from openclaw_exporter.receiver.listening import Moment
    from openclaw_exporter.receiver.liveness import Arrival, Event, NodeState, Outcome, Rules
    from openclaw_exporter.receiver.registry import KeyRow
    from openclaw_exporter.receiver.store import Store
    from openclaw_exporter.receiver.store.records import Batch

ALL = Query()


class Subject(Protocol):
    """One registry with one receiver or several."""

    clock: VirtualClock
    receivers: int
    told: list[tuple[Event, str]]
    """What the receivers counted, all together and in its order; the test takes from it."""
    is_shared: bool
    """Whether the registry goes on without the receiver: its lateness and its events are then kept as well,
    and what is due is done by one receiver at its ticks."""

    async def open(self) -> None: ...
    async def close(self) -> None: ...
    async def submit(self, receiver: int, arrivals: Sequence[Arrival], after: float) -> list[Outcome | None]:
        """Let heartbeats come in one batch, the last `after` seconds behind the rest; None: answered 503."""

    async def tick(self, *, without: int | None = None) -> bool:
        """Let the receivers notice the time, all but one; return whether they have done what is due."""

    async def align(self) -> None:
        """Let the store know of all time that has passed."""

    async def kill(self, receiver: int) -> None: ...
    async def start(self, receiver: int) -> None: ...
    def shed(self, receiver: int) -> None: ...
    def take_away(self, *, after_a_commit: bool) -> None:
        """Let the store be away, at once or as soon as it has stored something and before it says so."""

    def take_part_away(self, part: int) -> None:
        """Let a part of the store be away, at once; part of that is `part_of` of its nodes."""

    def part_of(self, node_id: str) -> int: ...
    def bring_back(self) -> None: ...
    def available(self) -> bool:
        """Whether all receivers reach the store."""

    def is_stored(self, fate: str) -> bool:
        """Whether a commit is kept whose success was never heard of."""

    def moment(self) -> Moment: ...
    async def states(self) -> list[dict[str, NodeState]]:
        """Return what each running receiver knows; nothing of those that need not know everything yet."""

    async def known(self, receiver: int) -> dict[str, NodeState]:
        """Return what one receiver knows by now."""

    def logged(self) -> list[tuple[str, str]] | None:
        """Return what has been added to the log that all share; None: not everything need be there yet."""

    async def history(self, node_id: str) -> list[KeyRow]: ...


class Told:
    """Notes what a store tells its observer."""

    wants_updates = True

    def __init__(self, told: list[tuple[Event, str]]) -> None:
        self._told = told

    def happened(self, event: Event, state: NodeState) -> None:
        self._told.append((event, state.node_id))

    def heard(self, gap: float | None, skew_ms: int) -> None: ...
    def updated(self, state: NodeState) -> None: ...
    def timed(self, operation: str, seconds: float) -> None: ...


class InlineWriter:
    """Does the store's blocking work at once, so that a history always runs the same."""

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str) -> None:
        self._loop = loop

    def submit(self, work: Callable[[], Any]) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        try:
            future.set_result(work())
        except Exception as error:  # noqa: BLE001 - whoever awaits it judges it
            future.set_exception(error)
        return future

    async def stop(self) -> None:
        pass


class FaultyDatabase(Database):
    """A file that goes away when it is told to."""

    away = False
    away_after_a_commit = False

    def commit(self, batch: Batch) -> None:
        self._check()
        super().commit(batch)
        self.away = self.away_after_a_commit
        self._check()

    def recover(self, *arguments: Any) -> bool:
        self._check()
        return super().recover(*arguments)

    def lookup(self, *arguments: Any, **options: Any) -> Any:
        self._check()
        return super().lookup(*arguments, **options)

    def _check(self) -> None:
        if self.away:
            message = "disk I/O error"
            raise sqlite3.OperationalError(message)


class Embedded:
    """The embedded store on a real file. A `Subject`."""

    receivers = 1
    is_shared = False

    def __init__(self, directory: Path, rules: Rules) -> None:
        self.clock = VirtualClock()
        self.told: list[tuple[Event, str]] = []
        self._path = directory / "registry.sqlite"
        self._rules = rules

    async def open(self) -> None:
        await self.start(0)

    async def close(self) -> None:
        await self._store.close()

    async def start(self, receiver: int) -> None:
        self._database = FaultyDatabase(self._path)
        self._store = EmbeddedStore(self._database, self._rules, self.clock, Told(self.told))
        await self._store.open()

    async def kill(self, receiver: int) -> None:
        self._store._available = False  # no last commit
        await self._store.close()

    async def submit(self, receiver: int, arrivals: Sequence[Arrival], after: float) -> list[Outcome | None]:
        outcomes = submit(self._store, self.clock, arrivals, after)
        await self._settle()
        assert len(outcomes) == len(arrivals)
        return [outcomes[number] for number in range(len(arrivals))]

    async def tick(self, *, without: int | None = None) -> bool:
        self._store.tick()
        await self._settle()
        return True

    async def align(self) -> None:
        """There is nothing to align: what was not stored yet is lost with the receiver."""

    def shed(self, receiver: int) -> None:
        self._store.shed()

    def take_away(self, *, after_a_commit: bool) -> None:
        self._database.away = not after_a_commit
        self._database.away_after_a_commit = after_a_commit

    def take_part_away(self, part: int) -> None:
        raise NotImplementedError

    def part_of(self, node_id: str) -> int:
        return 0

    def bring_back(self) -> None:
        self._database.away = self._database.away_after_a_commit = False

    def available(self) -> bool:
        return self._store.available

    def is_stored(self, fate: str) -> bool:
        """Memory has nothing of such a commit, and the next one takes its place; a restart reads it."""
        return fate == "stored and killed"

    def moment(self) -> Moment:
        return self._store.moment()

    async def states(self) -> list[dict[str, NodeState]]:
        return [await known(self._store)]

    async def known(self, receiver: int) -> dict[str, NodeState]:
        return await known(self._store)

    def logged(self) -> list[tuple[str, str]] | None:
        return None

    async def history(self, node_id: str) -> list[KeyRow]:
        return await self._store.history(node_id)

    async def _settle(self) -> None:
        store = self._store
        while store._waiting or store._wake.is_set():  # noqa: ASYNC110 - the store's worker has work to do
            await asyncio.sleep(0)
        for _ in range(3):
            await asyncio.sleep(0)


def submit(
    store: Store, clock: VirtualClock, arrivals: Sequence[Arrival], after: float
) -> dict[int, Outcome | None]:
    """Submit heartbeats; what is returned is filled as they are answered."""
    outcomes: dict[int, Outcome | None] = {}
    for number, arrival in enumerate(arrivals):
        if number == len(arrivals) - 1:
            clock.pass_(after)
        try:
            store.submit(arrival, lambda outcome, number=number: outcomes.__setitem__(number, outcome))
        except StoreUnavailableError:
            outcomes[number] = None
    return outcomes


async def known(store: Store) -> dict[str, NodeState]:
    """Return every node that a store knows."""
    return {state.node_id: state async for part in store.scan(ALL) for state in part}
