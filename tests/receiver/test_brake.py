"""The brake on mass expiry, in virtual time: what it holds, for how long, and that it holds nothing else."""

from __future__ import annotations

import logging
import os
import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from receiver.reference import Reference
from receiver.scene import receiver_settings, running
from receiver.virtual import World, arrival, node_id

from openclaw_exporter.receiver.brake import Alarm, Held, must_hold
from openclaw_exporter.receiver.liveness import Rules
from openclaw_exporter.receiver.query import view
from support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from support.pki import Pki

EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "60"))


class Fleet:
    """Nodes that beat at their interval, spread over it, until they fall silent."""

    def __init__(self, size: int, *, interval: int = 60, is_spread: bool = True) -> None:
        self.world = World()
        self.interval = interval
        self.size = size
        self.phases = [round(4 * interval * number / size) / 4 * is_spread for number in range(size)]
        self.silent: set[int] = set()
        self.now = 0.0
        self.sent = 0
        self.run(2 * interval)

    def run(self, seconds: float) -> None:
        """Let time pass; the beats of a quarter of a second come before its tick."""
        for _ in range(round(seconds * 4)):
            self.now += 0.25
            self.world.clock.pass_(0.25)
            self.beat(number for number in range(self.size) if self._is_due(number))
            self.world.tick()

    def beat(self, numbers: Iterable[int]) -> None:
        self.sent += 1
        beats = [
            arrival(node_id(number), self.sent, interval=self.interval)
            for number in numbers
            if number not in self.silent
        ]
        if beats:
            self.world.arrive(*beats)

    def states(self) -> Counter[str]:
        return Counter(state.state for state in self.world.registry.nodes.values())

    def happened(self, event: str) -> int:
        return sum(name == event for name, _ in self.world.events)

    def _is_due(self, number: int) -> bool:
        return (self.now - self.phases[number]) % self.interval == 0


def test_the_boundaries_are_exact() -> None:
    assert not must_hold(9, 9)
    assert must_hold(10, 6)
    assert not must_hold(10, 5)
    assert must_hold(20, 11)
    assert not must_hold(100, 54)
    assert must_hold(100, 55)
    assert must_hold(1_000_000, 550_000)
    assert not must_hold(1_000_000, 549_999)


@pytest.mark.parametrize("size", [10, 20, 100, 200])
@pytest.mark.parametrize("percent", [10, 50, 54, 55, 56, 75, 100])
def test_so_many_of_a_fleet_fall_silent_at_once(size: int, percent: int) -> None:
    fleet = Fleet(size)
    silent = -(-size * percent // 100)
    # Silent ones are spread over the interval as all are.
    fleet.silent = set(random.Random(size).sample(range(size), silent))
    holds = silent * 100 >= 55 * size
    # The last beats came just now, so every deadline comes within two intervals.
    fleet.run(2 * 60)
    assert fleet.happened("suspect") == silent * holds
    assert fleet.happened("expired") == silent * (not holds)
    assert fleet.states()["up"] >= size - silent - fleet.states()["late"]
    fleet.run(3 * 60)
    # Nothing expires before its hold ends: the first deadline was an interval after they fell silent.
    assert fleet.happened("expired") == silent * (not holds)
    fleet.run(60 + 0.25)
    assert fleet.happened("expired") == silent
    assert fleet.happened("suspect") == silent * holds
    assert fleet.world.registry.held.suspects == 0
    assert fleet.states() == Counter({"up": size - silent, "expired": silent}) - Counter()


@pytest.mark.parametrize(("size", "expected"), [(9, "expired"), (10, "suspect")])
def test_fewer_than_ten_live_nodes_have_no_brake(size: int, expected: str) -> None:
    fleet = Fleet(size)
    fleet.silent = set(range(size))
    fleet.run(120.25)
    assert fleet.states() == Counter({expected: size})


def test_each_suspect_expires_four_of_its_intervals_after_its_own_deadline() -> None:
    world = World()
    intervals = [50, 55, 60, 90] * 3
    world.arrive(*(arrival(node_id(n), 1, interval=interval) for n, interval in enumerate(intervals)))
    ends: dict[str, float] = {}
    for quarter in range(1, 6 * 90 * 4 + 1):
        world.wait(0.25)
        for event, node in world.events:
            if event == "expired":
                ends.setdefault(node, quarter / 4)
    assert ends == {node_id(n): 6.0 * interval for n, interval in enumerate(intervals)}
    assert Counter(event for event, _ in world.events) == dict.fromkeys(
        ("registered", "late", "suspect", "expired"), 12
    )


@pytest.mark.parametrize("interval", [30, 120])
def test_the_interval_that_counts_is_each_nodes_own(interval: int) -> None:
    """At half the default everybody would always expire within a default interval; at twice it few would."""
    fleet = Fleet(40, interval=interval)
    fleet.silent = set(range(4))
    fleet.run(2 * interval + 0.25)
    assert fleet.states() == {"up": 36, "expired": 4}
    fleet.silent = set(range(40))
    fleet.run(2 * interval + 0.25)
    assert fleet.states() == {"suspect": 36, "expired": 4}


def test_a_fleet_that_beats_as_one_is_not_taken_for_silent() -> None:
    fleet = Fleet(100, is_spread=False)
    fleet.silent = set(range(10))
    fleet.run(120.25)
    assert fleet.states() == {"up": 90, "expired": 10}
    assert fleet.happened("suspect") == 0


def test_a_suspect_that_is_heard_is_up_and_was_never_away() -> None:
    fleet = Fleet(20)
    fleet.silent = set(range(20))
    fleet.run(120.25)
    assert fleet.states() == {"suspect": 20}
    held = fleet.world.registry.held
    assert held == Held(suspects=20, silent=20, live=20)
    fleet.silent = set()
    fleet.run(60)
    assert fleet.states() == {"up": 20}
    assert fleet.happened("returned") == fleet.happened("expired") == 0
    assert fleet.world.registry.held == Held(suspects=0, silent=0, live=20)
    # The next who dies alone expires at its deadline.
    fleet.silent = {3}
    fleet.run(121)
    assert fleet.states() == {"up": 19, "expired": 1}


def test_a_suspect_counts_as_live_and_tells_when_it_expires() -> None:
    fleet = Fleet(10, is_spread=False)
    fleet.silent = set(range(10))
    fleet.run(120)
    node = fleet.world.registry.nodes[node_id(3)]
    at = fleet.world.registry.listening.read()
    shown = view(node, at)
    assert shown.state == "suspect"
    assert "most of the fleet" in shown.reason
    expires = node.heard_at + 6 * 60 - at.seconds
    assert expires == pytest.approx(240, abs=0.01)


def test_draining_nodes_neither_count_nor_are_held() -> None:
    world = World()
    world.arrive(*(arrival(node_id(n), 1, interval=60, draining=n >= 9) for n in range(20)))
    world.wait(120)
    assert Counter(state.state for state in world.registry.nodes.values()) == {"expired": 9, "offline": 11}


def test_a_restart_ends_no_hold() -> None:
    fleet = Fleet(20)
    fleet.silent = set(range(20))
    fleet.run(121)
    fleet.world.start()
    fleet.run(1)
    assert fleet.states() == {"suspect": 20}
    # Listening was interrupted, so the deadline is three intervals, and four are held on top.
    fleet.run(7 * 60 - 122 - 60)
    assert fleet.states() == {"suspect": 20}
    fleet.run(61)
    assert fleet.states() == {"expired": 20}


def test_a_receiver_that_restarts_every_twenty_seconds_still_expires_a_dead_node() -> None:
    fleet = Fleet(30)
    fleet.silent = {7}
    heard_at = fleet.world.registry.nodes[node_id(7)].heard_at
    for _ in range(4 * 60 // 20):
        fleet.run(20)
        fleet.world.start()
    assert fleet.states() == {"up": 29, "expired": 1}
    assert fleet.world.registry.nodes[node_id(7)].lapsed_at - heard_at <= 4 * 60
    for _ in range(20):
        fleet.run(20)
        fleet.world.start()
    assert fleet.happened("expired") == 1


def test_a_suspicion_that_could_not_be_stored_is_decided_again() -> None:
    fleet = Fleet(12, is_spread=False)
    fleet.silent = set(range(12))
    fleet.run(119.75)
    fleet.world.clock.pass_(0.25)
    fleet.world.tick(fails=True)
    assert fleet.states() == {"late": 12}
    fleet.world.clock.pass_(0.25)
    fleet.world.tick()
    assert fleet.states() == {"suspect": 12}
    assert fleet.happened("suspect") == 12


def test_arrivals_of_the_same_plan_count() -> None:
    """Six of ten are silent until the plan in which the first deadline comes; in it one of them is heard."""
    world = World()
    world.arrive(*(arrival(node_id(n), 1, interval=60) for n in range(6)))
    world.wait(100)
    world.arrive(*(arrival(node_id(n), 2, interval=60) for n in range(6, 10)))
    world.wait(19.75)
    world.clock.pass_(0.25)
    world.arrive(arrival(node_id(0), 3, interval=60))
    assert Counter(state.state for state in world.registry.nodes.values()) == {"up": 5, "expired": 5}


@settings(max_examples=EXAMPLES, deadline=None)
@example(seed=13400405, size=24)
@given(seed=st.integers(0, 2**32), size=st.integers(8, 24))
def test_the_registry_agrees_with_the_reference(seed: int, size: int) -> None:
    """Random histories of a fleet whose parts fall silent, with stalls, restarts and several intervals."""
    dice = random.Random(seed)
    rules = Rules(default_interval=6, max_interval=12, retention=40.0)
    world, reference = World(rules), Reference(rules)
    intervals = [dice.choice((4, 6, 6, 6, 12)) for _ in range(size)]
    next_beat = [dice.randrange(4 * interval) / 4 for interval in intervals]
    silent: set[int] = set()
    now = 0.0
    for sent in range(1, 400):
        chance = dice.random()
        if chance < 0.02:
            silent = set(dice.sample(range(size), dice.randrange(size + 1)))
        elif chance < 0.03:
            world.start()
            reference.interruptions += 1
        elif chance < 0.04:
            world.clock.pass_(7)
            reference.interruptions += 1
        now += 0.25
        world.clock.pass_(0.25)
        if not 0.03 <= chance < 0.04:
            reference.listening += 0.25
        beats = [n for n in range(size) if next_beat[n] <= now and n not in silent]
        for n in beats:
            next_beat[n] = now + intervals[n]
        items = [
            arrival(node_id(n), sent, interval=intervals[n], draining=dice.random() < 0.02) for n in beats
        ]
        if items:
            world.arrive(*items)
            for item in items:
                reference.arrive(item, reference.now(world.clock.wall_ms()))
        else:
            world.tick()
        reference.look()
        states = {name: state.state for name, state in world.registry.nodes.items()}
        assert states == {name: node.state for name, node in reference.nodes.items()}
        held = world.registry.held
        assert held.suspects == sum(state == "suspect" for state in states.values())
        assert held.live == sum(state in ("up", "late", "suspect") for state in states.values())
    # Lateness is told from the time, and once more after a restart.
    told, happened = (
        Counter(event for event in events if event[0] != "late")
        for events in (world.events, reference.events)
    )
    assert told == happened


def test_the_log_says_when_the_brake_holds_and_when_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    alarm = Alarm()
    assert not alarm.note(Held(0, 54, 100))
    assert caplog.messages == []
    assert alarm.note(Held(3, 55, 100))
    assert alarm.note(Held(55, 55, 100))
    assert not alarm.note(Held(0, 0, 100))
    assert len(caplog.messages) == 2
    assert "55 of 100 live nodes" in caplog.messages[0]
    assert "no expiry is held back any more" in caplog.messages[1]


def test_a_running_receiver_shows_suspects_and_raises_its_metric(pki: Pki, tmp_path: Path) -> None:
    settings = receiver_settings(pki, tmp_path, min_interval=1, default_interval=6, max_interval=6)
    held = "openclaw_registry_expiry_held"
    with running(pki, settings) as scene:
        nodes = [scene.node() for _ in range(12)]
        assert scene.samples()[held] == 0
        for node in nodes:
            assert node.beat().status_code == 200
        reader = scene.reader()

        def suspects() -> int:
            return len(reader.get("/openclaw/nodes", params={"state": "suspect"}).json()["nodes"])

        wait_until(lambda: suspects() == 12 and scene.samples()[held] == 1, what="the brake")
        for node in nodes:
            assert node.beat().status_code == 200
        assert suspects() == 0
        wait_until(lambda: scene.samples()[held] == 0, what="the end of the brake")
        samples = scene.samples()
        assert sum(value for name, value in samples.items() if "node_expired" in name) == 0
