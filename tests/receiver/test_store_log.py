"""What the embedded store appends, folds and drops: after any history a restart finds what was answered."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from receiver.test_store import Bench, beat
from receiver.virtual import node_id

from openclaw_exporter.receiver.liveness import KEY_LIFE_SECONDS
from openclaw_exporter.receiver.store import tail
from openclaw_exporter.receiver.store.tail import Tail
from openclaw_exporter.wire.headers import Sequence
from support.registry import left_in

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from openclaw_exporter.receiver.liveness import NodeState

NODES = 6
OWN = ("bucket", "trail", "stored")
"""What wheel and store keep in a state for themselves."""


@pytest.fixture
def short_tail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fold from the first states on, a few at a time."""
    monkeypatch.setattr(tail, "SPARE", 2)
    monkeypatch.setattr(tail, "_STEP", 5)


def essence(states: Any) -> dict[str, Any]:
    """Return what has to be the same after a restart: lateness is told from the time."""
    return {
        state.node_id: {
            name: value
            for name, value in msgspec.structs.asdict(state).items()
            if name not in OWN and not (name == "state" and value in ("up", "late"))
        }
        for state in states
    }


class History:
    """Drives a store through steps and knows what was answered."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bench = Bench(path)
        self.sent = 1000
        self.numbers = [0] * NODES
        self.answered: list[tuple[float, Any]] = []

    @property
    def now(self) -> float:
        return self.bench.store.listening.read().seconds

    async def beats(self, nodes: list[int]) -> None:
        """Some nodes beat, all in one commit; one may be named several times."""
        arrivals = []
        for number in nodes:
            self.sent += 1
            self.numbers[number] += 1
            sequence = Sequence(7, self.numbers[number]) if number % 2 else None
            arrivals.append(beat(self.sent, node_id(number), interval=30, sequence=sequence))
        futures = [self.bench.store.record(arrival) for arrival in arrivals]
        assert [(await future).kind for future in futures] == ["recorded"] * len(arrivals)
        self.answered += [(self.now, arrival) for arrival in arrivals]

    async def replay(self, number: int, ago: int) -> None:
        """A node, known or not, delivers something old."""
        arrival = beat(max(1, self.sent - ago), node_id(number), replay=True, version="old")
        outcome = await self.bench.store.record(arrival)
        if outcome.kind == "history":
            self.answered.append((self.now, arrival))

    async def fail(self, number: int) -> None:
        """A commit fails and leaves nothing behind; the store comes back by itself."""
        database = self.bench.database
        connection = database._connection
        assert connection is not None
        await self.bench.store._writer.submit(lambda: connection.execute("PRAGMA query_only = 1"))
        failing = self.bench.store.record(beat(self.sent + 500, node_id(number), interval=30))
        with pytest.raises(Exception, match="cannot be reached"):
            await failing
        await self.bench.wait(3)
        assert self.bench.store.available

    async def restart(self, *, killed: bool) -> None:
        """End with or without a last commit; everything that was answered is there."""
        before = essence(self.bench.store._registry.nodes.values())
        if killed:
            self.bench.store._available = False
        await self.bench.store.close()
        self.bench = Bench(self.path, self.bench.clock)
        await self.bench.store.open()
        assert essence(self.bench.store._registry.nodes.values()) == before
        await self.check()

    async def check(self) -> None:
        """Each key that was answered within the hour is known, and is history."""
        known = self.bench.store._registry.nodes
        for number in range(NODES):
            mine = [
                arrival
                for at, arrival in self.answered
                if arrival.node_id == node_id(number) and at > self.now - KEY_LIFE_SECONDS + 10
            ]
            rows = await self.bench.store.history(node_id(number))
            if node_id(number) in known:
                keys = [row.sent_ms for row in rows]
                assert len(keys) == len(set(keys))
                assert {arrival.sent_ms for arrival in mine} <= set(keys)
                digests = {row.sent_ms: row.digest for row in rows}
                assert all(digests[arrival.sent_ms] == arrival.digest for arrival in mine)
        recent = [arrival for _, arrival in self.answered[-5:] if arrival.node_id in known]
        for arrival in recent:
            assert (await self.bench.store.record(arrival)).kind == "duplicate"


steps = st.lists(
    st.one_of(
        st.tuples(st.just("beats"), st.lists(st.integers(0, NODES - 2), min_size=1, max_size=8)),
        st.tuples(st.just("replay"), st.integers(0, NODES - 1), st.integers(0, 400)),
        st.tuples(st.just("wait"), st.sampled_from([1, 20, 70, 200])),
        st.tuples(st.just("fail"), st.integers(0, NODES - 2)),
        st.tuples(st.just("restart"), st.booleans()),
    ),
    min_size=5,
    max_size=40,
)


@pytest.mark.usefixtures("short_tail")
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(steps=steps)
def test_after_any_history_a_restart_finds_what_was_answered(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[Any, ...]]
) -> None:
    async def main() -> None:
        history = History(tmp_path_factory.mktemp("registry") / "registry.sqlite")
        await history.bench.store.open()
        for name, *arguments in steps:
            if name == "beats":
                await history.beats(*arguments)
            elif name == "replay":
                await history.replay(*arguments)
            elif name == "wait":
                await history.bench.wait(*arguments, every=2)
            elif name == "fail":
                await history.fail(*arguments)
            else:
                await history.restart(killed=arguments[0])
        await history.restart(killed=True)
        await history.restart(killed=False)
        await history.bench.store.close()
        left = left_in(history.path)
        assert len(left.nodes) <= NODES

    asyncio.run(main())


@pytest.mark.usefixtures("short_tail")
def test_only_the_silent_are_folded_and_the_tail_stays_short(tmp_path: Path) -> None:
    path = tmp_path / "registry.sqlite"

    async def main() -> None:
        async with Bench(path) as bench:
            await bench.store.record(beat(1, node_id(1), interval=120))
            for sent in range(2, 200):
                await bench.store.record(beat(sent, node_id(2), interval=120))
            ((batches,),) = await bench.execute("SELECT count(*) FROM state_batches")
            assert batches == len(bench.store._tail) <= 2 * 2 + 2 + 1
            folded = await bench.execute("SELECT lower(hex(node_id)) FROM nodes")
            assert folded == [(node_id(1).replace("-", ""),)]
            # It comes back, and is newer in a batch than in the table.
            await bench.store.record(beat(900, node_id(1), interval=120))
            bench.store._available = False
        left = left_in(path)
        assert left.nodes[node_id(1)].sent_ms == 900
        assert left.nodes[node_id(2)].sent_ms == 199
        assert [row.sent_ms for row in left.arrivals if row.node_id == node_id(1)] == [1, 900]

    asyncio.run(main())


@pytest.mark.usefixtures("short_tail")
def test_a_forgotten_node_does_not_come_back(tmp_path: Path) -> None:
    path = tmp_path / "registry.sqlite"

    async def main() -> None:
        async with Bench(path) as bench:
            await bench.store.record(beat(1, interval=30))
            await bench.wait(700, every=5)
            assert await bench.state(node_id(1)) is None
            bench.store._available = False
        assert left_in(path).nodes == {}
        async with Bench(path, bench.clock) as again:
            assert (await again.store.record(beat(1, interval=30))).kind == "recorded"
            assert [event for event, _ in again.observer.events] == ["registered"]

    asyncio.run(main())


def test_what_a_stranger_replayed_is_known_when_it_registers(tmp_path: Path) -> None:
    path = tmp_path / "registry.sqlite"

    async def main() -> None:
        async with Bench(path) as bench:
            assert (await bench.store.record(beat(5, replay=True))).kind == "history"
            assert [row.sent_ms for row in await bench.store.history(node_id(1))] == [5]
        async with Bench(path, bench.clock) as again:
            assert (await again.store.record(beat(5, replay=True))).kind == "duplicate"
            assert (await again.store.record(beat(9))).kind == "recorded"
            assert (await again.store.record(beat(5, version="2"))).kind == "key-conflict"
            assert [row.sent_ms for row in await again.store.history(node_id(1))] == [5, 9]
            for _ in range(80):
                await again.wait(100, every=5)
                await again.store.record(beat(round(again.store.listening.latest * 1000) + 10_000))
            assert await again.execute("SELECT count(*) FROM strangers") == [(0,)]

    asyncio.run(main())


def test_a_chain_that_leads_elsewhere_ends(tmp_path: Path) -> None:
    path = tmp_path / "registry.sqlite"

    async def main() -> None:
        async with Bench(path) as bench:
            for sent in range(1, 6):
                await bench.store.record(beat(sent))
            await bench.store.record(beat(1, node_id(2)))
            state = bench.store._registry.nodes[node_id(1)]
            whole = state.trail
            for wrong in (whole + 1, whole << 16, bench.store._registry.nodes[node_id(2)].trail):
                state.trail = wrong
                assert await bench.store.history(node_id(1)) == []
            state.trail = whole
            await bench.execute("UPDATE arrival_batches SET keys = x'00' WHERE number = 3")
            assert [row.sent_ms for row in await bench.store.history(node_id(1))] == [4, 5]

    asyncio.run(main())


def find_in(states: dict[str, int]) -> Callable[[str], NodeState | None]:
    class Stub:
        def __init__(self, stored: int) -> None:
            self.stored = stored

    return lambda name: Stub(states[name]) if name in states else None  # type: ignore[return-value]


def test_a_batch_goes_as_a_whole_and_not_before_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "SPARE", 0)
    monkeypatch.setattr(tail, "_STEP", 3)
    whole = Tail()
    for number in (1, 2, 3):
        whole.add(number, ["a", "b"])
    # One node: two states may stay, four are too many, and three may go with one commit.
    folded, newest = whole.surplus(1, find_in({"a": 3, "b": 1}))
    assert ([state.stored for state in folded], newest) == ([1], 1)
    whole.drop(newest)
    assert len(whole) == 4
    assert whole.surplus(2, find_in({})) == ([], 0)
    whole.clear()
    assert len(whole) == 0
