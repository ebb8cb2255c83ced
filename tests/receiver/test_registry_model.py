"""The registry against the reference, step by step in virtual time, with everything that can go wrong.

All times are quarters of a second, which the wheel's buckets are too, so that the two agree to the moment.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from receiver.reference import Reference
from receiver.virtual import World, arrival, node_id

from openclaw_exporter.receiver.liveness import Rules
from openclaw_exporter.wire.headers import Sequence

EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "150"))
RULES = Rules(default_interval=6, max_interval=12, retention=60.0)

nodes = st.integers(0, 2).map(node_id)
intervals = st.sampled_from([None, 4, 6, 12])
quarters = st.integers(1, 40).map(lambda number: number / 4)


class RegistryMachine(RuleBasedStateMachine):
    """Drives a world and a reference through the same history."""

    @initialize()
    def begin(self) -> None:
        self.world = World(RULES)
        self.reference = Reference(RULES)
        self.last_seen: dict[str, int] = {}
        self.sent = 1_000
        self.numbers: Counter[str] = Counter()
        self.epochs: dict[str, int] = {}

    def arrive(self, *arrivals: Any, fails: bool = False) -> None:
        outcomes = self.world.arrive(*arrivals, fails=fails)
        if fails:
            return
        wall = self.world.clock.wall_ms()
        expected = [self.reference.arrive(item, self.reference.now(wall)) for item in arrivals]
        assert outcomes == expected
        self.look()

    def look(self) -> None:
        self.reference.look(self.world.clock.wall_ms())

    @rule(node=nodes, interval=intervals, draining=st.booleans(), fails=st.booleans(), ordered=st.booleans())
    def beat(self, *, node: str, interval: int | None, draining: bool, fails: bool, ordered: bool) -> None:
        """The next heartbeat of a node; where it fails it is sent again."""
        self.sent += 1
        sequence = None
        if ordered:
            sequence = Sequence(self.epochs.setdefault(node, 10), self.numbers[node])
            self.numbers[node] += 1
        item = arrival(node, self.sent, interval=interval, draining=draining, sequence=sequence)
        if fails:
            self.arrive(item, fails=True)
        self.arrive(item)

    @rule(node=nodes, ago=st.integers(0, 30), content=st.sampled_from(["", "other"]), replay=st.booleans())
    def send_something_old(self, *, node: str, ago: int, content: str, replay: bool) -> None:
        """A duplicate, a conflict, or an older heartbeat that was lost until now."""
        self.arrive(arrival(node, max(1, self.sent - ago), content=content, replay=replay))

    @rule(node=nodes, epoch=st.integers(8, 12), number=st.integers(0, 12), replay=st.booleans())
    def send_any_sequence(self, *, node: str, epoch: int, number: int, replay: bool) -> None:
        self.sent += 1
        self.arrive(arrival(node, self.sent, sequence=Sequence(epoch, number), replay=replay))

    @rule(node=nodes)
    def begin_a_new_epoch(self, node: str) -> None:
        self.epochs[node] = self.epochs.get(node, 10) + 1
        self.numbers[node] = 0

    @rule(node=nodes, content=st.sampled_from(["", "other"]))
    def send_twice_at_once(self, node: str, content: str) -> None:
        self.sent += 1
        self.arrive(arrival(node, self.sent), arrival(node, self.sent, content=content))

    @rule(seconds=quarters)
    def wait(self, seconds: float) -> None:
        for _ in range(round(seconds * 4)):
            self.world.clock.pass_(0.25)
            self.reference.listening += 0.25
            self.world.tick()
            self.look()

    @rule(seconds=st.integers(21, 400).map(lambda number: number / 4))
    def stall(self, seconds: float) -> None:
        """The process is stopped, or its loop blocked."""
        self.world.clock.pass_(seconds)
        self.reference.interruptions += 1
        self.world.tick()
        self.look()

    @rule(seconds=quarters)
    def lose_the_store(self, seconds: float) -> None:
        self.world.registry.listening.deafen("store")
        self.world.clock.pass_(seconds)
        self.world.tick(fails=True)
        self.world.registry.listening.hear("store")
        self.reference.interruptions += 1
        self.world.tick()
        self.look()

    @rule(down=quarters)
    def kill_and_restart(self, down: float) -> None:
        """What has passed since the last commit is lost, and so is the time that it was down."""
        self.world.clock.pass_(down)
        self.world.start()
        self.reference.interruptions += 1
        self.world.tick()
        self.look()

    @rule(seconds=st.integers(-3600, 3600))
    def step_the_wall_clock(self, seconds: int) -> None:
        self.world.clock.step_wall(seconds)

    @invariant()
    def the_two_agree(self) -> None:
        known = self.world.registry.nodes
        assert known.keys() == self.reference.nodes.keys()
        for name, node in self.reference.nodes.items():
            state = known[name]
            assert (state.state, state.interval, state.heard_at) == (node.state, node.interval, node.heard_at)
            assert (state.first_seen_ms, state.last_seen_ms) == (node.first_seen, node.last_seen)
            assert state.payload == node.content

    @invariant()
    def each_event_is_counted_once(self) -> None:
        # Lateness is told from the time, and once more after a restart.
        told, happened = (
            Counter(event for event in events if event[0] != "late")
            for events in (self.world.events, self.reference.events)
        )
        assert told == happened

    @invariant()
    def last_seen_never_goes_back(self) -> None:
        for name, state in self.world.registry.nodes.items():
            assert state.last_seen_ms >= self.last_seen.get(name, 0)
        self.last_seen = {name: state.last_seen_ms for name, state in self.world.registry.nodes.items()}

    @invariant()
    def the_disk_has_every_key(self) -> None:
        expected = {
            (node, sent_ms): key.digest
            for node, keys in self.reference.keys.items()
            for sent_ms, key in keys.items()
        }
        assert {key: row.digest for key, row in self.world.journal.keys.items()} == expected


def test_the_registry_keeps_the_rules_of_the_contract() -> None:
    run_state_machine_as_test(
        RegistryMachine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=60,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
