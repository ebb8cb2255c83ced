"""The timing wheel and the rate limit."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st
from receiver.virtual import World, arrival, node_id

from openclaw_exporter.receiver.rate import RateLimit
from openclaw_exporter.receiver.registry import DUE_LIMIT
from openclaw_exporter.receiver.wheel import GRANULARITY, HORIZON, Wheel


@given(st.lists(st.floats(0, 2000), max_size=50), st.integers(1, 7))
def test_nothing_comes_early_and_everything_comes_in_time(deadlines: list[float], limit: int) -> None:
    wheel = Wheel(0.0)
    for number, due in enumerate(deadlines):
        wheel.place(str(number), wheel.bucket(due))
    came: dict[str, float] = {}
    now = 0.0
    while len(came) < len(deadlines):
        for _, name in wheel.take(now, limit):
            if deadlines[int(name)] > now:
                # Beyond the horizon: looked at on the way, and put back.
                assert deadlines[int(name)] > HORIZON
                wheel.place(name, wheel.bucket(deadlines[int(name)]))
            else:
                came[name] = now
        now += GRANULARITY
    assert len(wheel) == 0
    late = [came[name] - deadlines[int(name)] for name in came]
    # A small limit spreads a crowd over as many turns as it needs.
    assert all(0 <= delay <= GRANULARITY * (1 + len(deadlines) / limit) for delay in late)


def test_beats_leave_one_entry_for_each_node_in_the_wheel() -> None:
    world = World()
    for beat in range(200):
        world.arrive(*(arrival(node_id(n), beat, interval=30) for n in range(5)))
        world.wait(1)
    assert len(world.registry._wheel) == 5


def test_nodes_that_come_and_go_for_a_day_leave_no_pile_of_stale_entries() -> None:
    world = World()
    for beat in range(500):
        world.arrive(*(arrival(node_id(n), beat, interval=30) for n in range(5)))
        world.wait(90, every=0.5)
    assert len(world.registry._wheel) <= 5 * (HORIZON / 90 + 2)


def test_a_crowd_that_expires_at_once_is_spread_over_plans() -> None:
    world = World()
    count = DUE_LIMIT * 2 + 10
    world.arrive(*(arrival(node_id(n), 1, interval=30) for n in range(count)))
    world.wait(45)
    # The brake makes them suspects first, for four more intervals.
    for events, wait, state in ((3, 15, "suspect"), (4, 120, "expired")):
        world.wait(wait)
        plans = 0
        while len(world.events) < events * count:
            world.tick()
            plans += 1
        assert plans >= 2
        assert world.registry._wheel.bucket(0.0) > 0
        assert {node.state for node in world.registry.nodes.values()} == {state}


@given(st.lists(st.floats(0, 30), max_size=200), st.sampled_from([0.5, 1.0, 3.0]), st.integers(1, 20))
def test_no_window_admits_more_than_its_share(gaps: list[float], rate: float, burst: int) -> None:
    limit = RateLimit(rate, burst)
    now = 0.0
    admitted: deque[float] = deque()
    for gap in gaps:
        now += gap / 10
        wait = limit.admit("node", now)
        if wait == 0:
            admitted.append(now)
        else:
            assert 0 < wait <= 1 / rate + 1e-6
    for start in range(len(admitted)):
        for end in range(start, len(admitted)):
            window = admitted[end] - admitted[start]
            assert end - start + 1 <= burst + rate * window + 1e-6


def test_a_burst_is_admitted_whole_and_nodes_do_not_share() -> None:
    limit = RateLimit(1.0, 20)
    assert [limit.admit("a", 100.0) for _ in range(20)] == [0.0] * 20
    assert limit.admit("a", 100.0) > 0
    assert limit.admit("b", 100.0) == 0
    assert limit.admit("a", 101.0) == 0


def test_nodes_whose_bucket_is_full_are_not_remembered() -> None:
    limit = RateLimit(1.0, 20)
    for number in range(10_000):
        limit.admit(f"node-{number}", number / 100)
    assert len(limit) < 500
