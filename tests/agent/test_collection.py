"""Collectors on threads: good ones and every kind of bad one, in real time."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from openclaw_exporter.agent.collection import Collection
from openclaw_exporter.agent.settings import ProcessSettings
from openclaw_exporter.agent.snapshot import Board, CollectorState
from openclaw_exporter.plugin import Capacity, Measurement, QueueDepth, Uptime
from openclaw_exporter.plugin.host import LoadedCollector
from support.wait import wait_until

if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Iterable, Iterator


class Scripted:
    """A collector whose collect() is a function."""

    def __init__(self, collect: Callable[[], Iterable[Any]]) -> None:
        self.name = "scripted"
        self.runs = 0
        self.closed = threading.Event()
        self._collect = collect

    def collect(self) -> Iterable[Any]:
        self.runs += 1
        return self._collect()

    def close(self) -> None:
        self.closed.set()


def loaded(
    name: str,
    collect: Callable[[], Iterable[Any]],
    *,
    interval: float = 0.1,
    deadline: float = 60.0,
    budget: int = 50,
) -> LoadedCollector:
    return LoadedCollector("test", name, Scripted(collect), interval, deadline, "thread", budget, {})


class Running:
    """A collection with its board."""

    def __init__(self) -> None:
        self.durations: list[tuple[str, float]] = []
        self.board = Board()
        self.collection = Collection(
            self.board, ProcessSettings, lambda item, seconds: self.durations.append((item.name, seconds))
        )
        self.collection.start()

    def state(self, name: str) -> CollectorState:
        return next(state for state in self.board.read().collectors if state.name == name)


@pytest.fixture
def running() -> Iterator[Running]:
    running = Running()
    yield running
    running.collection.cancel()
    assert running.collection.join(120) == ()


def test_a_good_collector(running: Running) -> None:
    running.collection.replace([loaded("good", lambda: [Uptime(time.monotonic()), Capacity("workers", 3)])])
    assert running.collection.wait_for_first(120)
    first = running.board.read()
    assert first.capacity == {"workers": 3}
    wait_until(lambda: running.board.read().uptime != first.uptime)
    state = running.state("good")
    assert state.healthy
    assert state.last_success == pytest.approx(time.time(), abs=60)
    assert state.errors == {}
    assert state.error_type is None
    assert state.series == 2
    assert {name for name, _ in running.durations} == {"good"}


def test_a_hung_one_is_given_up_at_its_deadline_and_skipped_until_it_ends(
    running: Running, log: io.StringIO
) -> None:
    hang, go_on = threading.Event(), threading.Event()

    def collect() -> list[Any]:
        if hang.is_set():
            go_on.wait(120)
        return [QueueDepth("tasks", 7)]

    hanging = loaded("hanging", collect, interval=0.1, deadline=3.0)
    other = loaded("other", lambda: [Uptime(time.monotonic())])
    running.collection.replace([hanging, other])
    wait_until(lambda: running.board.read().queues)
    hang.set()
    wait_until(lambda: not running.board.read().queues)
    wait_until(lambda: running.state("hanging").error_type)  # the last depth may be too old before that
    state = running.state("hanging")
    assert not state.healthy
    assert state.error_type == "deadline"
    runs = hanging.collector.runs  # type: ignore[attr-defined]
    uptime = running.board.read().uptime
    wait_until(lambda: (running.board.read().uptime or 0) > (uptime or 0) + 0.3)
    assert hanging.collector.runs == runs  # type: ignore[attr-defined]
    assert running.state("hanging").errors == {"deadline": 1}
    assert hanging in running.collection.running
    hang.clear()
    go_on.set()
    wait_until(lambda: running.state("hanging").healthy)
    assert running.board.read().queues["tasks"].depth == 7
    wait_until(lambda: "collects again" in log.getvalue())
    failed = [line for line in log.getvalue().splitlines() if "hanging failed" in line]
    assert failed == ["collector test/hanging failed: did not end within its deadline of 3 s"]


def test_what_a_late_run_yields_is_thrown_away(running: Running) -> None:
    release = threading.Event()
    ended = threading.Event()

    def collect() -> Iterator[Any]:
        release.wait(120)
        yield Capacity("workers", 1)
        ended.set()

    running.collection.replace([loaded("late", collect, interval=60, deadline=0.05)])
    wait_until(lambda: running.state("late").error_type == "deadline")
    release.set()
    assert ended.wait(120)
    wait_until(lambda: not running.collection.running)
    assert running.board.read().capacity == {}
    assert not running.state("late").healthy


@pytest.mark.parametrize(
    ("error", "error_type"),
    [
        (ConnectionError("no route to redis://user:hunter2@host"), "ConnectionError"),
        (SystemExit(3), "SystemExit"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
    ],
)
def test_one_that_raises_is_unhealthy_and_its_observations_disappear(
    running: Running, log: io.StringIO, error: BaseException, error_type: str
) -> None:
    fail = threading.Event()

    def collect() -> Iterator[Any]:
        yield QueueDepth("tasks", 1)
        if fail.is_set():
            raise error

    running.collection.replace([loaded("failing", collect)])
    wait_until(lambda: running.board.read().queues)
    fail.set()
    wait_until(lambda: running.state("failing").errors.get(error_type, 0) >= 3)
    assert running.board.read().queues == {}
    assert running.state("failing").error_type == error_type
    fail.clear()
    wait_until(lambda: running.state("failing").healthy)
    lines = log.getvalue().splitlines()
    assert len([line for line in lines if "failed" in line]) == 1
    assert "hunter2" not in log.getvalue()


def test_garbage_is_refused_and_named_and_the_rest_stands(running: Running, log: io.StringIO) -> None:
    def collect() -> Iterator[Any]:
        yield QueueDepth("tasks", -1)
        yield Capacity("workers", float("nan"))
        yield "what?"
        yield Measurement("app.x", 1.0, "furlong")
        yield Uptime(3.0)

    running.collection.replace([loaded("garbage", collect)])
    wait_until(lambda: running.state("garbage").errors.get("range", 0) >= 4)
    state = running.state("garbage")
    assert not state.healthy
    assert running.board.read().uptime == 3.0
    assert set(state.errors) == {"range", "type", "unit"}
    lines = [line for line in log.getvalue().splitlines() if "refused" in line]
    assert len(lines) == 1
    assert "and 1 more" in lines[0]


def test_a_flood_is_cut_off(running: Running) -> None:
    def collect() -> Iterator[Any]:
        number = 0
        while True:
            number += 1
            yield Measurement("app.flood", 1.0, "", "gauge", {"n": number})

    running.collection.replace([loaded("flood", collect, deadline=0.1, budget=40)])
    wait_until(lambda: running.state("flood").errors.get("flood", 0) >= 2)
    assert running.state("flood").series <= 40


def test_a_part_that_cannot_be_read_is_counted_and_the_others_stand(
    running: Running, log: io.StringIO
) -> None:
    running.collection.replace(
        [loaded("partial", lambda: [Capacity("workers", 2), ConnectionError("redis is away")])]
    )
    wait_until(lambda: running.state("partial").errors.get("partial"))
    assert running.board.read().capacity == {"workers": 2}
    assert not running.state("partial").healthy
    wait_until(log.getvalue)
    line = "collector test/partial could not read everything: ConnectionError: redis is away"
    assert log.getvalue().splitlines() == [line]


def test_two_that_say_the_same_are_told_apart_in_the_log(running: Running, log: io.StringIO) -> None:
    running.collection.replace(
        [loaded("a", lambda: [QueueDepth("tasks", 1)]), loaded("b", lambda: [QueueDepth("tasks", 2)])]
    )
    wait_until(lambda: running.state("b").errors.get("duplicate", 0) >= 2)
    assert running.board.read().queues["tasks"].depth == 1
    assert running.state("a").healthy
    lines = [line for line in log.getvalue().splitlines() if "comes from collector test/a already" in line]
    assert len(lines) == 1
    assert "test/b" in lines[0]


def test_only_so_many_error_types_are_told_apart(running: Running) -> None:
    numbers = iter(range(10_000))

    def collect() -> Iterator[Any]:
        raise type(f"Error{next(numbers)}", (Exception,), {})("again")

    running.collection.replace([loaded("creative", collect, interval=0.02, deadline=5)])
    wait_until(lambda: running.state("creative").errors.get("_OTHER", 0) >= 3)
    errors = running.state("creative").errors
    assert len(errors) == 21
    assert errors["Error0"] == 1


def test_an_error_whose_text_hangs_is_given_up_at_the_deadline_too(running: Running) -> None:
    go_on = threading.Event()

    class HangingError(Exception):
        def __str__(self) -> str:
            go_on.wait()
            return "at last"

    def collect() -> Iterable[Any]:
        raise HangingError

    running.collection.replace([loaded("hanging", collect, interval=3600, deadline=0.5)])
    try:
        wait_until(lambda: running.state("hanging").error_type)
        assert running.state("hanging").error_type == "deadline"
    finally:
        go_on.set()


class SpeechlessError(Exception):
    @property
    def error_type(self) -> str:
        raise KeyError("error_type")

    def __str__(self) -> str:
        raise SystemExit(3)


def test_an_error_that_cannot_be_told_does_not_end_its_collector(running: Running) -> None:
    runs: list[float] = []

    def collect() -> Iterable[Any]:
        runs.append(time.monotonic())
        raise SpeechlessError

    running.collection.replace([loaded("speechless", collect)])
    wait_until(lambda: len(runs) > 2, what="further runs")
    assert running.state("speechless").error_type == "SpeechlessError"


def test_replacing_keeps_what_is_unchanged_and_ends_what_is_gone(running: Running) -> None:
    kept = loaded("kept", lambda: [Uptime(1.0)])
    gone = loaded("gone", lambda: [Capacity("workers", 1)])
    running.collection.replace([kept, gone])
    assert running.collection.wait_for_first(120)
    runs = kept.collector.runs  # type: ignore[attr-defined]
    fresh = loaded("fresh", lambda: [QueueDepth("tasks", 1)])
    running.collection.replace([kept, fresh])
    assert running.board.read().capacity == {}
    assert gone.collector.closed.wait(120)  # type: ignore[attr-defined]
    assert not kept.collector.closed.is_set()  # type: ignore[attr-defined]
    wait_until(lambda: running.board.read().queues)
    wait_until(lambda: kept.collector.runs > runs)  # type: ignore[attr-defined]
    running.collection.add([gone2 := loaded("gone", lambda: [Capacity("workers", 2)])])
    wait_until(lambda: running.board.read().capacity == {"workers": 2})
    assert running.collection.loaded == (fresh, gone2, kept)


def test_collectors_of_one_interval_run_at_the_same_moments(running: Running) -> None:
    ones = [
        loaded(name, lambda: [Uptime(1.0)], interval=interval) for name, interval in (("a", 60), ("b", 20))
    ]
    running.collection.replace(ones)
    assert running.collection.wait_for_first(120)
    running.collection.add([loaded("c", lambda: [Uptime(1.0)], interval=60)])  # at another moment
    assert running.collection.wait_for_first(120)
    due = {worker.loaded.name: worker._due for worker in running.collection._workers.values()}
    assert due["a"] == due["c"]
    apart = (due["a"] - due["b"]) / 20
    assert apart == pytest.approx(round(apart), abs=1e-6)


def test_the_end_waits_for_no_collector() -> None:
    running = Running()
    release = threading.Event()

    def collect() -> list[Any]:
        release.wait(120)
        return []

    hung = loaded("hung", collect, interval=120, deadline=120)
    running.collection.replace([hung])
    wait_until(lambda: running.collection.running)
    assert not running.collection.wait_for_first(0.01)
    running.collection.cancel()
    assert running.collection.join(0.05) == (hung,)
    release.set()
    assert running.collection.join(120) == ()
    assert running.board.read().collectors[0].error_type is None
    running.collection.replace([])
    assert running.collection.loaded == (hung,)


def test_a_fault_of_our_own_ends_no_thread(
    running: Running, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_state: CollectorState) -> None:
        raise ArithmeticError("of our own")

    running.collection.replace(
        [
            loaded("good", lambda: [Uptime(time.monotonic())]),
            loaded("late", lambda: [time.sleep(0.3)], deadline=0.1),
        ]
    )
    assert running.collection.wait_for_first(120)
    monkeypatch.setattr(running.board, "put", fail)
    wait_until(lambda: "its result could not be taken (ArithmeticError" in log.getvalue())
    wait_until(lambda: "late could not be attended to (ArithmeticError" in log.getvalue())
    monkeypatch.undo()
    uptime = running.board.read().uptime
    wait_until(lambda: running.board.read().uptime not in (None, uptime))
    wait_until(lambda: running.state("late").errors.get("deadline", 0) > 1)


def test_a_close_that_raises_costs_one_line(running: Running, log: io.StringIO) -> None:
    item = loaded("closing", lambda: [Uptime(1.0)])

    def close() -> None:
        raise RuntimeError("cannot close")

    item.collector.close = close  # type: ignore[attr-defined]
    running.collection.replace([item])
    assert running.collection.wait_for_first(120)
    running.collection.replace([])
    wait_until(lambda: "RuntimeError: cannot close" in log.getvalue())


def test_a_plugin_that_cannot_be_loaded_is_on_the_board_until_it_can(running: Running) -> None:
    running.collection.add([loaded("other", lambda: [Uptime(1.0)])])
    running.collection.note_unloaded("broken")
    running.collection.note_unloaded("broken")
    wait_until(lambda: running.board.read().uptime)
    (state, other) = running.board.read().collectors
    assert (state.key, state.healthy, state.error_type) == (("broken", ""), False, "load")
    assert state.errors == {"load": 2}
    assert other.healthy
    running.collection.note_loaded("broken")
    assert [state.plugin for state in running.board.read().collectors] == ["test"]


def test_one_whose_close_does_not_end_is_among_those_left_behind(running: Running) -> None:
    go_on = threading.Event()
    closing = loaded("closing", lambda: [Uptime(1.0)])
    closing.collector.close = lambda: go_on.wait(120)  # type: ignore[attr-defined]
    running.collection.replace([closing, loaded("other", lambda: [Capacity("workers", 1)])])
    wait_until(lambda: running.state("closing").healthy and running.state("other").healthy)
    running.collection.cancel()
    assert running.collection.join(0.5) == (closing,)
    go_on.set()
    assert running.collection.join(120) == ()
