"""The embedded store on a real SQLite file: restarts, faults, recovery, and what must never differ."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import stat
import threading
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from receiver.virtual import RULES, VirtualClock, arrival, node_id

from openclaw_exporter.errors import StateError, StoreUnavailableError
from openclaw_exporter.receiver import registry
from openclaw_exporter.receiver.liveness import KEY_LIFE_SECONDS
from openclaw_exporter.receiver.query import Query
from openclaw_exporter.receiver.refusals import SheddingError
from openclaw_exporter.receiver.store.embedded import EmbeddedStore
from openclaw_exporter.receiver.store.sqlite import Database
from openclaw_exporter.wire.headers import Sequence
from openclaw_exporter.wire.heartbeat import build, digest, encode
from openclaw_exporter.wire.timestamps import format_ms, parse_ms
from support.registry import left_in
from support.wait import come_true

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path
    from typing import Self

    from openclaw_exporter.receiver.liveness import Arrival, Event, NodeState
    from openclaw_exporter.receiver.query import NodeView

NODE = node_id(1)


class Listener:
    """Notes what a store tells its observer."""

    def __init__(self) -> None:
        self.events: list[tuple[Event, str]] = []
        self.lives: list[tuple[float | None, int]] = []
        self.operations: list[str] = []
        self.updates: list[str] = []

    def happened(self, event: Event, state: NodeState) -> None:
        self.events.append((event, state.node_id))

    def heard(self, gap: float | None, skew_ms: int) -> None:
        self.lives.append((gap, skew_ms))

    wants_updates = True

    def updated(self, state: NodeState) -> None:
        self.updates.append(state.node_id)

    def timed(self, operation: str, seconds: float) -> None:
        assert seconds >= 0
        self.operations.append(operation)


class Bench:
    """A store in virtual time on a real file."""

    def __init__(self, path: Path, clock: VirtualClock | None = None, **arguments: Any) -> None:
        self.clock = clock or VirtualClock()
        self.observer = Listener()
        self.database = Database(path)
        self.store = EmbeddedStore(self.database, RULES, self.clock, self.observer, **arguments)

    async def __aenter__(self) -> Self:
        await self.store.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.store.close()

    async def wait(self, seconds: float, *, every: float = 1.0) -> None:
        for _ in range(round(seconds / every)):
            self.clock.pass_(every)
            await self.tick()

    async def tick(self) -> None:
        self.store.tick()
        # The worker has taken up the tick, and what it does in its thread comes back before this does.
        for _ in range(3):
            await asyncio.sleep(0)
            await self.store._writer.submit(lambda: None)

    async def state(self, node: str = NODE) -> str | None:
        found = await self.store.node(node)
        return found.state if found else None

    async def execute(self, statement: str) -> Any:
        """Do something to the database behind the store's back."""
        connection = self.database._connection
        assert connection is not None
        return await self.store._writer.submit(lambda: connection.execute(statement).fetchall())


def beat(sent_ms: int, node: str = NODE, **changes: Any) -> Arrival:
    """Return an arrival whose payload can be read back."""
    heartbeat = build(
        node_id=node,
        hostname="a.test",
        version=changes.pop("version", "1"),
        capacity={"workers": 4, "available_slots": 2},
        queue_depth={"planner": 1},
        last_heartbeat=format_ms(sent_ms),
        tags=changes.pop("tags", ()),
    )
    payload = encode(heartbeat)
    return arrival(
        node, sent_ms, payload=payload, digest=digest(payload), slots=2, tags=heartbeat.tags, **changes
    )


def shown(node: NodeView) -> Any:
    """Return what is shown of a node, its expiry apart."""
    return msgspec.json.decode(msgspec.json.encode(msgspec.structs.replace(node, expires_at="")))


def files_in(directory: Path) -> list[Path]:
    return list(directory.iterdir())


def run(coroutine: Any) -> None:
    asyncio.run(coroutine)


def test_what_was_answered_is_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "registry.sqlite"

    async def main() -> None:
        async with Bench(path) as bench:
            first = await bench.store.record(
                beat(1000, tags=("region:eu",), interval=45, sequence=Sequence(5, 3))
            )
            await bench.wait(1)
            await bench.store.record(beat(900, replay=True, sequence=Sequence(5, 2)))
            await bench.wait(9)
            before = await bench.store.node(NODE)
        async with Bench(path, bench.clock) as again:
            after = await again.store.node(NODE)
            assert before is not None
            assert after is not None
            # The restart interrupted listening: the node gets three intervals now.
            assert parse_ms(after.expires_at) - parse_ms(before.expires_at) == 45_000
            assert shown(after) == shown(before)
            page = await again.store.page(Query(tags=frozenset({"region:eu"}), min_slots=2))
            assert [node.node_id for node in page.nodes] == [NODE]
            assert [row.result for row in await again.store.history(NODE)] == ["recorded", "history"]
            # Duplicates are known over the restart, and so is the epoch.
            duplicate = await again.store.record(beat(1000, tags=("region:eu",), interval=45))
            assert duplicate.kind == "duplicate"
            assert (await again.store.record(beat(900))).kind == "duplicate"
            assert (await again.store.record(beat(1000, version="2"))).kind == "key-conflict"
            older = await again.store.record(beat(2000, sequence=Sequence(4, 0)))
            assert (older.kind, older.epoch) == ("epoch-conflict", 5)
            assert first.kind == "recorded"
            assert again.observer.events == []

    run(main())


def test_listening_time_goes_on_after_a_restart_with_a_new_interruption(tmp_path: Path) -> None:
    path = tmp_path / "registry.sqlite"

    async def main() -> None:
        async with Bench(path) as bench:
            await bench.store.record(beat(1000, interval=30))
            await bench.wait(50)
            then = bench.store.listening.read()
        bench.clock.pass_(5000)
        async with Bench(path, bench.clock) as again:
            now = again.store.listening.read()
            assert (now.seconds, now.interruption) == (then.seconds, then.interruption + 1)
            await again.wait(39)
            assert await again.state() == "late"
            await again.wait(1)
            assert await again.state() == "expired"

    run(main())


def test_a_dead_node_expires_in_spite_of_kills(tmp_path: Path) -> None:
    """Killed every 20 seconds without a last commit: what was stored each second is enough."""
    path = tmp_path / "registry.sqlite"

    async def main() -> None:
        clock = VirtualClock()
        passed = 0
        async with Bench(path, clock) as bench:
            await bench.store.record(beat(1000, interval=30))
        while True:
            bench = Bench(path, clock)
            await bench.store.open()
            await bench.wait(19)
            state = await bench.state()
            bench.store._available = False  # no last commit
            await bench.store.close()
            clock.pass_(1)
            passed += 20
            if state == "expired":
                break
            assert passed < 120
        assert passed >= 60

    run(main())


def test_a_failed_commit_is_answered_503_and_recovers_by_itself(tmp_path: Path) -> None:
    async def main() -> None:
        async with Bench(tmp_path / "registry.sqlite") as bench:
            await bench.store.record(beat(1000, interval=30))
            ((pages,),) = await bench.execute("PRAGMA page_count")
            await bench.execute(f"PRAGMA max_page_count = {pages}")
            crowd = [bench.store.record(beat(5, node_id(number), interval=30)) for number in range(100, 400)]
            results = await asyncio.gather(*crowd, return_exceptions=True)
            assert {type(result) for result in results} == {StoreUnavailableError}
            assert not bench.store.available
            # Nothing of it is claimed, and nothing is taken in meanwhile.
            page = await bench.store.page(Query())
            assert [node.node_id for node in page.nodes] == [NODE]
            with pytest.raises(StoreUnavailableError):
                bench.store.record(beat(2000))
            # Time in which the registry could not hear is no listening time. A new connection has no limit.
            before = bench.store.listening.read()
            bench.clock.pass_(0.75)
            assert bench.store.listening.read().seconds == before.seconds
            bench.clock.pass_(0.5)
            await bench.tick()
            assert bench.store.available
            assert bench.store.listening.read().interruption == before.interruption + 1
            retry = await bench.store.record(beat(5, node_id(100), interval=30))
            assert retry.kind == "recorded"
            events = [event for event in bench.observer.events if event[1] == node_id(100)]
            assert events == [("registered", node_id(100))]

    run(main())


def test_a_file_that_is_lost_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "registry.sqlite"

    async def main() -> None:
        async with Bench(path) as bench:
            await bench.store.record(beat(1000))
            for file in files_in(tmp_path):
                file.unlink()
            with pytest.raises(StoreUnavailableError):
                await bench.store.record(beat(2000))
            await bench.wait(2)
            assert bench.store.available
        async with Bench(path, bench.clock) as again:
            assert await again.state() == "up"

    run(main())


def test_a_fault_of_our_own_answers_503_and_loses_no_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with Bench(tmp_path / "registry.sqlite") as bench:
            await bench.store.record(beat(1, interval=30))
            await bench.wait(59)

            def failing(*_: Any, **__: Any) -> None:
                raise ZeroDivisionError

            with monkeypatch.context() as patch:
                patch.setattr(bench.database, "commit", failing)
                with pytest.raises(StoreUnavailableError):
                    await bench.store.record(beat(1, node_id(2)))
                await bench.wait(1)
                assert await bench.state() == "late"
            await bench.wait(1)
            assert await bench.state() == "expired"
            assert (await bench.store.record(beat(1, node_id(2)))).kind == "recorded"
        assert "the registry's worker failed" in caplog.text

    run(main())


def test_a_full_queue_sheds_and_such_time_does_not_count(tmp_path: Path) -> None:
    async def main() -> None:
        async with Bench(tmp_path / "registry.sqlite", max_waiting=3) as bench:
            waiting = [bench.store.record(beat(n, interval=30)) for n in (1, 2, 3)]
            with pytest.raises(SheddingError):
                bench.store.record(beat(4))
            assert not bench.store.listening.hears
            assert [(await future).kind for future in waiting] == ["recorded"] * 3
            await bench.wait(1)
            assert bench.store.listening.hears
            assert (await bench.store.record(beat(4, interval=30))).kind == "recorded"

    run(main())


@contextlib.asynccontextmanager
async def hanging(bench: Bench) -> AsyncIterator[None]:
    """Let the disk hang for as long as the context lasts."""
    release = threading.Event()
    writing = bench.store._writer.submit(release.wait)
    try:
        yield
    finally:
        release.set()
        await writing


def test_a_disk_that_hangs_counts_as_lost_and_its_commit_still_counts(tmp_path: Path) -> None:
    async def main() -> None:
        async with Bench(tmp_path / "registry.sqlite") as bench:
            async with hanging(bench):
                stuck = bench.store.record(beat(1))
                await asyncio.sleep(0.01)
                bench.clock.pass_(4)
                bench.store.tick()
                assert bench.store.available
                bench.clock.pass_(2)
                bench.store.tick()
                assert not bench.store.available
                assert not bench.store.listening.hears
                with pytest.raises(StoreUnavailableError):
                    bench.store.record(beat(2))
                with pytest.raises(StoreUnavailableError):
                    await stuck
            await bench.wait(2)
            assert bench.store.available
            assert (await bench.store.record(beat(1))).kind == "duplicate"

    run(main())


def test_a_process_that_stood_still_does_not_blame_the_disk(tmp_path: Path) -> None:
    async def main() -> None:
        async with Bench(tmp_path / "registry.sqlite") as bench:
            async with hanging(bench):
                under_way = bench.store.record(beat(1))
                await asyncio.sleep(0.01)
                # Stopped, or on a machine that stalls: the commit had no time either.
                bench.clock.pass_(60)
                bench.store.tick()
                assert bench.store.available
            assert (await under_way).kind == "recorded"

    run(main())


def test_keys_are_purged_an_hour_of_listening_after_their_arrival(tmp_path: Path) -> None:
    async def main() -> None:
        async with Bench(tmp_path / "registry.sqlite") as bench:
            for sent in range(5):
                await bench.store.record(beat(sent, interval=120, sequence=Sequence(1, sent)))
                await bench.wait(100, every=5)
            for sent in range(5, 40):
                await bench.store.record(beat(sent, interval=120, sequence=Sequence(1, sent)))
                await bench.wait(100, every=5)
                history = await bench.store.history(NODE)
                assert len(history) == min(sent + 1, KEY_LIFE_SECONDS // 100)
            ((rows,),) = await bench.execute("SELECT count(*) FROM arrival_batches")
            assert rows <= KEY_LIFE_SECONDS // 100 + 1

    run(main())


@pytest.mark.parametrize("known", [False, True])
def test_a_key_counts_for_an_hour_even_where_it_is_not_deleted_yet(*, known: bool, tmp_path: Path) -> None:
    async def main() -> None:
        async with Bench(tmp_path / "registry.sqlite") as bench:
            bench.database.purge = lambda *_: 0  # type: ignore[method-assign] # one that lags behind
            replay = beat(5, replay=True)
            assert (await bench.store.record(replay)).kind == "history"
            for sent in range(100, 136):
                if known:
                    await bench.store.record(beat(sent, interval=120))
                await bench.wait(100, every=5)
            assert (await bench.store.record(replay)).kind == "duplicate"
            await bench.wait(0.25, every=0.25)
            assert (await bench.store.record(replay)).kind == "history"
            assert (await bench.store.record(replay)).kind == "duplicate"

    run(main())


def test_a_forgotten_node_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "registry.sqlite"

    async def main() -> None:
        async with Bench(path) as bench:
            await bench.store.record(beat(1, interval=30, version="canary-5c1e"))
            await bench.store.record(beat(2, node_id(2), interval=120))
            for sent in range(3, 12):
                await bench.wait(100, every=5)
                await bench.store.record(beat(sent, node_id(2), interval=120))
            assert await bench.state() is None
            names = [event for event, node in bench.observer.events if node == NODE]
            assert names == ["registered", "late", "expired", "forgotten"]
            assert await bench.store.history(NODE) == []
            ((size,),) = await bench.execute("SELECT count(*) FROM nodes")
            assert size == 0
        assert left_in(path).nodes.keys() == {node_id(2)}


def test_many_arrivals_share_a_commit(tmp_path: Path) -> None:
    async def main() -> None:
        async with Bench(tmp_path / "registry.sqlite") as bench:
            bench.observer.operations.clear()
            futures = [bench.store.record(beat(1, node_id(number))) for number in range(1000)]
            await asyncio.gather(*futures)
            assert bench.observer.operations.count("commit") <= 2
            assert len(bench.observer.lives) == 1000

    run(main())


def test_many_that_come_due_at_once_let_the_loop_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That nodes are late is not stored, so nothing but the store's own courtesy interrupts that work."""
    monkeypatch.setattr(registry, "DUE_LIMIT", 4)

    async def main() -> None:
        async with Bench(tmp_path / "registry.sqlite") as bench:
            await asyncio.gather(*[bench.store.record(beat(1, node_id(n), interval=30)) for n in range(40)])
            await bench.wait(44)
            late = [0]

            async def count() -> None:
                while late[-1] < 40:
                    await asyncio.sleep(0)
                    late.append([event for event, _ in bench.observer.events].count("late"))

            bench.clock.pass_(2)
            bench.store.tick()
            await asyncio.wait_for(count(), 30)
            # They came bit by bit, as the loop saw.
            assert len(set(late)) >= 10

    run(main())


def test_a_census_counts_what_is_there(tmp_path: Path) -> None:
    async def main() -> None:
        async with Bench(tmp_path / "registry.sqlite") as bench:
            await bench.store.record(beat(1, node_id(1), tags=("region:eu", "swarm:a")))
            await bench.store.record(beat(1, node_id(2), tags=("region:eu", "swarm:a")))
            await bench.store.record(beat(1, node_id(3), tags=("region:us",)))
            await bench.store.record(beat(1, node_id(4), tags=("region:us",), draining=True))
            census = await asyncio.to_thread(bench.store.census)
            assert sum(census.nodes.values()) == 4
            assert census.capacity["workers", "eu"] == 8
            assert census.capacity["workers", "us"] == 4
            # Two nodes of one swarm share their queues.
            assert census.queues == {("planner", "eu"): 1, ("planner", "us"): 1}

    run(main())


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "registry.sqlite"

    async def main() -> None:
        async with Bench(path) as bench:
            await bench.store.record(beat(1))
            for file in files_in(tmp_path):
                assert stat.S_IMODE(file.stat().st_mode) == 0o600

    run(main())


@pytest.mark.parametrize("case", ["foreign", "garbage", "directory", "locked", "nowhere"])
def test_a_file_that_cannot_be_used_is_named_with_the_remedy(tmp_path: Path, case: str) -> None:
    path = tmp_path / "registry.sqlite"
    other: Database | None = None
    if case == "foreign":
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE theirs (x)")
        connection.close()
    elif case == "garbage":
        path.write_bytes(os.urandom(8192))
    elif case == "directory":
        path.mkdir()
    elif case == "locked":
        other = Database(path)
        other.open()
    else:
        path = tmp_path / "no" / "such" / "registry.sqlite"

    async def main() -> None:
        with pytest.raises(StateError, match=r"receiver\.store\.url") as refused:
            await Bench(path).store.open()
        assert str(path) in str(refused.value)

    run(main())
    if other is not None:
        other.close()


def test_a_heartbeat_that_waits_in_time_saves_its_node(tmp_path: Path) -> None:
    async def main() -> None:
        async with Bench(tmp_path / "registry.sqlite") as bench:
            await bench.store.record(beat(1, interval=30))
            await bench.store.record(beat(1, node_id(2), interval=120))
            await bench.wait(59)
            go_on = threading.Event()
            lookup = bench.database.lookup

            def slow(*arguments: Any, **options: Any) -> Any:
                assert go_on.wait(60)
                return lookup(*arguments, **options)

            bench.database.lookup = slow  # type: ignore[method-assign] # a disk that takes its time
            first = bench.store.record(beat(1, node_id(3), interval=30))
            await come_true(lambda: bool(bench.store._under_way))
            # One second before the node's deadline, and stored after it.
            second = bench.store.record(beat(2, interval=30))
            bench.clock.pass_(2)
            go_on.set()
            assert [(await first).kind, (await second).kind] == ["recorded", "recorded"]
            await bench.tick()
            assert not {"expired", "returned"} & {event for event, _ in bench.observer.events}
            assert await bench.state() == "up"
            # Its silence counts from that heartbeat on.
            await bench.wait(57)
            assert await bench.state() == "late"
            await bench.wait(3)
            assert await bench.state() == "expired"

    run(main())


@pytest.mark.parametrize("restarted", [False, True])
def test_no_batch_keeps_a_forgotten_nodes_state(*, restarted: bool, tmp_path: Path) -> None:
    path = tmp_path / "registry.sqlite"
    count = "SELECT count(*) FROM state_batches WHERE instr(states, CAST('canary-5c1e' AS BLOB))"

    async def main() -> None:
        async with Bench(path) as bench:
            await bench.store.record(beat(1, interval=30, version="canary-5c1e"))
            await bench.store.record(beat(1, node_id(2), interval=120))
            assert await bench.execute(count) == [(1,)]
            if restarted:
                # It is forgotten, and ends before anything has gone.
                bench.store._tail.surplus = lambda *_: ([], 0)  # type: ignore[method-assign]
            await bench.wait(60 + RULES.retention + 10, every=5)
            assert await bench.state() is None
        async with Bench(path, bench.clock) as again:
            await again.tick()
            assert await again.execute(count) == [(0,)]
            assert await again.state() is None
            assert await again.state(node_id(2)) is not None

    run(main())


def test_the_number_of_a_commit_that_was_called_failed_is_not_given_again(tmp_path: Path) -> None:
    path = tmp_path / "registry.sqlite"

    async def main() -> None:
        async with Bench(path) as bench:
            await bench.store.record(beat(1))
            await bench.store.record(beat(1, node_id(2)))
        # What a recovery leaves where the write-ahead log kept the commit before it.
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE clock SET batch = batch - 1")
        connection.close()
        async with Bench(path, VirtualClock()) as bench:
            await bench.store.record(beat(1, node_id(3)))
        async with Bench(path, VirtualClock()) as bench:
            assert [await bench.state(node_id(number)) for number in (1, 2, 3)] == ["up"] * 3

    run(main())
