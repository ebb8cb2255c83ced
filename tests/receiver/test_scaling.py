"""Intervals that grow with the fleet: never less than configured, never above the maximum, stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st
from receiver.scene import receiver_settings, running
from receiver.virtual import RULES, World, arrival, node_id

from openclaw_exporter.receiver.liveness import Rules
from openclaw_exporter.receiver.scaling import answered_interval, scaled_interval

if TYPE_CHECKING:
    from pathlib import Path

    from support.pki import Pki

SCALED = Rules(default_interval=60, max_interval=120, retention=600.0, target_rate=1.0)


@given(
    live=st.integers(0, 2_000_000),
    rate=st.floats(0.1, 50_000),
    configured=st.integers(30, 120),
    number=st.integers(0, 2**128 - 1),
)
def test_an_answer_is_never_less_than_configured_and_never_above_the_maximum(
    live: int, rate: float, configured: int, number: int
) -> None:
    rules = Rules(default_interval=60, max_interval=120, target_rate=rate)
    scaled = scaled_interval(live, rules)
    answered = answered_interval(node_id(number), configured, scaled, rules)
    assert configured <= answered <= 120
    # Where the maximum allows it the fleet keeps to its rate.
    assert answered == 120 or live / answered <= rate


def test_without_a_target_the_configured_interval_is_echoed() -> None:
    assert scaled_interval(1_000_000, RULES) == 0
    assert answered_interval(node_id(1), 45, 0, RULES) == 45


def test_the_answer_grows_with_the_fleet_and_shrinks_with_it() -> None:
    world = World(SCALED)
    (first,) = world.arrive(arrival(node_id(0), 1, interval=30))
    assert first.interval == 30
    world.arrive(*(arrival(node_id(n), 1, interval=30) for n in range(1, 80)))
    outcomes = world.arrive(*(arrival(node_id(n), 2, interval=30) for n in range(80)))
    answers = {outcome.interval for outcome in outcomes}
    # 80 nodes at one heartbeat a second, and a tenth on top to drift apart.
    assert min(answers) >= 80
    assert max(answers) <= 88
    assert len(answers) > 3
    # What was answered is what counts: they are late after 1.5 of it, and not of 30 s.
    world.wait(119)
    assert {state.state for state in world.registry.nodes.values()} == {"up"}
    world.start()
    for number, outcome in enumerate(outcomes):
        state = world.registry.nodes[node_id(number)]
        assert (state.interval, state.answered) == (outcome.interval, outcome.interval)
    # A duplicate is told the same once more.
    (again,) = world.arrive(arrival(node_id(3), 2, interval=30))
    assert (again.kind, again.interval) == ("duplicate", outcomes[3].interval)
    world.arrive(*(arrival(node_id(n), 3, interval=30, draining=True) for n in range(10, 80)))
    (last,) = world.arrive(arrival(node_id(0), 3, interval=30))
    assert last.interval == 30


def test_over_http_the_answer_is_scaled_and_the_node_shows_it(pki: Pki, tmp_path: Path) -> None:
    with running(pki, receiver_settings(pki, tmp_path, target_rate=0.02)) as scene:
        nodes = [scene.node() for _ in range(2)]
        for node in nodes:
            node.beat({"OpenClaw-Interval": "30"})
        answer = nodes[0].beat({"OpenClaw-Interval": "30"}).json()
        assert 100 <= answer["interval_seconds"] <= 110
        shown = scene.reader().get(f"/openclaw/nodes/{nodes[0].node_id}").json()
        assert shown["interval_seconds"] == answer["interval_seconds"]
        configured = nodes[0].beat({"OpenClaw-Interval": "120"}).json()
        assert configured["interval_seconds"] == 120
