"""The board and its snapshots."""

from __future__ import annotations

import pytest

from openclaw_exporter.agent.snapshot import Board, CollectorState, Snapshot
from openclaw_exporter.plugin import Capacity, Measurement, Observation, QueueDepth, Tag, Uptime


class Now:
    """A clock that stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
def board(now: Now) -> Board:
    board = Board(clock=now)
    board.arrange([("one", "a"), ("two", "b")])
    return board


def state(plugin: str, name: str, *observations: Observation, fresh_for: float = 20.0) -> CollectorState:
    return CollectorState(
        plugin, name, healthy=True, observations=observations, taken_at=1.0, fresh_until=100.0 + fresh_for
    )


def test_everything_that_collectors_say_is_in_one_snapshot(board: Board) -> None:
    board.put(state("two", "b", Uptime(5.0), QueueDepth("tasks", 3, 1.5), Measurement("app.x", 1.0, "s")))
    board.put(state("one", "a", Capacity("workers", 4), Tag("gpu", "true"), Measurement("app.y", 2.0, "")))
    snapshot = board.read()
    assert snapshot.capacity == {"workers": 4}
    assert snapshot.queues == {"tasks": QueueDepth("tasks", 3, 1.5)}
    assert snapshot.uptime == 5.0
    assert snapshot.tags == (Tag("gpu", "true"),)
    assert set(snapshot.measurements) == {"app.x", "app.y"}
    assert [item.key for item in snapshot.collectors] == [("one", "a"), ("two", "b")]
    assert [item.series for item in snapshot.collectors] == [2, 3]


def test_a_snapshot_never_changes(board: Board) -> None:
    board.put(state("one", "a", Capacity("workers", 4)))
    before = board.read()
    assert board.read() is before
    board.put(state("one", "a", Capacity("workers", 5)))
    assert before.capacity == {"workers": 4}
    assert board.read().capacity == {"workers": 5}
    with pytest.raises(AttributeError):
        before.uptime = 1.0  # type: ignore[misc]
    with pytest.raises(TypeError):
        before.capacity["workers"] = 1.0  # type: ignore[index]


def test_of_two_that_say_the_same_the_second_is_refused_and_named(board: Board) -> None:
    assert board.put(state("one", "a", QueueDepth("tasks", 1), Tag("gpu", "true"))) == ()
    refused = board.put(state("two", "b", QueueDepth("tasks", 2), Tag("gpu", "false"), Uptime(9.0)))
    assert [rejection.reason for rejection in refused] == ["duplicate", "duplicate"]
    assert "tasks" in refused[0].detail
    assert "one/a" in refused[0].detail
    snapshot = board.read()
    assert snapshot.queues["tasks"].depth == 1
    assert snapshot.tags == (Tag("gpu", "true"),)
    assert snapshot.uptime == 9.0
    second = snapshot.collectors[1]
    assert not second.healthy
    assert second.errors == {"duplicate": 2}
    assert second.series == 1


def test_the_order_decides_and_not_who_came_first(board: Board) -> None:
    board.put(state("two", "b", QueueDepth("tasks", 2)))
    assert board.read().queues["tasks"].depth == 2
    board.put(state("one", "a", QueueDepth("tasks", 1)))
    assert board.read().queues["tasks"].depth == 1
    refused = board.put(state("two", "b", QueueDepth("tasks", 2)))
    assert len(refused) == 1
    assert board.read().queues["tasks"].depth == 1


def test_the_second_stands_when_the_first_has_nothing_more_to_say(board: Board, now: Now) -> None:
    board.put(state("one", "a", QueueDepth("tasks", 1), fresh_for=10))
    board.put(state("two", "b", QueueDepth("tasks", 2), fresh_for=50))
    assert board.read().queues["tasks"].depth == 1
    now.time = 110.0
    assert board.read().queues["tasks"].depth == 2


def test_old_observations_vanish_by_themselves(board: Board, now: Now) -> None:
    board.put(state("one", "a", Capacity("workers", 4), fresh_for=20))
    board.put(state("two", "b", Uptime(1.0), fresh_for=30))
    now.time = 119.9
    assert board.read().capacity == {"workers": 4}
    now.time = 120.0
    snapshot = board.read()
    assert snapshot.capacity == {}
    assert snapshot.uptime == 1.0
    assert [item.healthy for item in snapshot.collectors] == [False, True]
    now.time = 130.0
    assert board.read().uptime is None


def test_a_frozen_board_neither_forgets_nor_learns(board: Board, now: Now) -> None:
    board.put(state("one", "a", Capacity("workers", 4), fresh_for=20))
    board.freeze()
    now.time = 1000.0
    assert board.put(state("two", "b", Uptime(1.0), fresh_for=2000)) == ()
    assert board.read().capacity == {"workers": 4}
    assert board.read().uptime is None


def test_a_name_has_one_kind_and_unit_over_all_collectors(board: Board) -> None:
    board.put(state("one", "a", Measurement("app.wait", 1.0, "s")))
    refused = board.put(
        state(
            "two",
            "b",
            Measurement("app.wait", 1.0, "s", "counter", {"x": 1}),
            Measurement("app.wait", 1.0, "s", "gauge", {"x": 2}),
        )
    )
    (conflict,) = refused
    assert conflict.reason == "conflict"
    assert "app.wait is a gauge in 's' by one/a, not a counter in 's'" in conflict.detail
    assert len(board.read().measurements["app.wait"]) == 2


def test_the_catalogue_fixes_its_names(board: Board) -> None:
    refused = board.put(
        state("one", "a", Measurement("system.memory.usage", 1.0, "By", "gauge"), Measurement("x.y", 1.0, ""))
    )
    assert "by the catalogue" in refused[0].detail
    assert set(board.read().measurements) == {"x.y"}


def test_two_names_that_prometheus_cannot_tell_apart(board: Board) -> None:
    board.put(state("one", "a", Measurement("app.queue.wait", 1.0, "s")))
    (refused,) = board.put(state("two", "b", Measurement("app.queue_wait", 1.0, "s")))
    assert "same name in Prometheus as app.queue.wait" in refused.detail
    assert "app.queue_wait" not in board.read().measurements


def test_a_collector_that_is_gone_leaves_nothing(board: Board) -> None:
    board.put(state("one", "a", Capacity("workers", 4)))
    board.put(state("two", "b", Uptime(1.0)))
    board.arrange([("two", "b")])
    snapshot = board.read()
    assert snapshot.capacity == {}
    assert snapshot.uptime == 1.0
    assert [item.key for item in snapshot.collectors] == [("two", "b")]
    assert board.put(state("one", "a", Capacity("workers", 4))) == ()
    assert board.read().capacity == {}


def test_every_result_is_told(now: Now) -> None:
    told: list[Snapshot] = []
    board = Board(clock=now, on_change=told.append)
    board.arrange([("one", "a")])
    board.put(state("one", "a", Uptime(1.0)))
    assert [snapshot.uptime for snapshot in told] == [1.0]
