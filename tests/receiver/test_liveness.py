"""Order, idempotency and life, rule by rule."""

from __future__ import annotations

import heapq
import random

import pytest
from receiver.virtual import RULES, World, arrival, node_id

from openclaw_exporter.receiver.liveness import Rules
from openclaw_exporter.wire.headers import Sequence

NODE = node_id(1)


@pytest.fixture
def world() -> World:
    return World()


def test_a_node_is_late_after_one_and_a_half_intervals_and_expires_after_two(world: World) -> None:
    world.arrive(arrival(NODE, 1, interval=40))
    world.wait(59.75)
    assert world.state(NODE) == "up"
    world.wait(0.25)
    assert world.state(NODE) == "late"
    world.wait(19.75)
    assert world.state(NODE) == "late"
    world.wait(0.25)
    assert world.state(NODE) == "expired"
    world.wait(RULES.retention)
    assert world.state(NODE) is None
    assert world.journal.states == {}
    assert world.journal.keys == {}
    assert [event for event, _ in world.events] == ["registered", "late", "expired", "forgotten"]


def test_the_answer_tells_the_expiry_and_echoes_the_interval(world: World) -> None:
    now_ms = world.clock.wall_ms()
    (outcome,) = world.arrive(arrival(NODE, 1, interval=40))
    assert (outcome.kind, outcome.interval, outcome.expires_ms - now_ms) == ("recorded", 40, 80_000)
    world.wait(10)
    (outcome,) = world.arrive(arrival(NODE, 1, interval=40))
    assert (outcome.kind, outcome.interval, outcome.expires_ms - now_ms) == ("duplicate", 40, 80_000)


def test_without_an_interval_the_default_or_the_last_gap_counts_up_to_the_maximum(world: World) -> None:
    (outcome,) = world.arrive(arrival(NODE, 1))
    assert (outcome.interval, world.registry.nodes[NODE].interval) == (60, 60)
    world.wait(100)
    (outcome,) = world.arrive(arrival(NODE, 2))
    assert (outcome.interval, world.registry.nodes[NODE].interval) == (60, 100)
    world.wait(199.75)
    assert world.state(NODE) == "late"
    world.wait(500)
    world.arrive(arrival(NODE, 3))
    assert world.registry.nodes[NODE].interval == 120
    world.wait(1)
    world.arrive(arrival(NODE, 4))
    assert world.registry.nodes[NODE].interval == 60


def test_a_shorter_interval_brings_the_expiry_forward(world: World) -> None:
    world.arrive(arrival(NODE, 1, interval=120))
    world.wait(1)
    world.arrive(arrival(NODE, 2, interval=30))
    world.wait(60)
    assert world.state(NODE) == "expired"


def test_the_same_key_with_the_same_content_changes_nothing_not_even_life(world: World) -> None:
    world.arrive(arrival(NODE, 1, interval=30))
    before = world.registry.nodes[NODE]
    world.wait(30)
    (outcome,) = world.arrive(arrival(NODE, 1, interval=30))
    assert outcome.kind == "duplicate"
    assert world.registry.nodes[NODE] is before
    world.wait(30)
    assert world.state(NODE) == "expired"


def test_the_same_key_with_other_content_is_a_conflict(world: World) -> None:
    world.arrive(arrival(NODE, 1, sequence=Sequence(7, 0)))
    (outcome,) = world.arrive(arrival(NODE, 1, content="other", sequence=Sequence(7, 1)))
    assert (outcome.kind, outcome.epoch) == ("key-conflict", 7)


def test_a_batch_sees_its_own_keys(world: World) -> None:
    beat = arrival(NODE, 1)
    outcomes = world.arrive(beat, beat, arrival(NODE, 1, content="other"), arrival(NODE, 2))
    assert [outcome.kind for outcome in outcomes] == ["recorded", "duplicate", "key-conflict", "recorded"]


def test_sequences_order_where_the_clock_steps_back(world: World) -> None:
    world.arrive(arrival(NODE, 1_000_000, sequence=Sequence(5, 0)))
    (outcome,) = world.arrive(arrival(NODE, 1000, sequence=Sequence(5, 1)))
    assert outcome.kind == "recorded"
    assert world.registry.nodes[NODE].sent_ms == 1000


def test_a_lower_number_of_the_epoch_is_history(world: World) -> None:
    world.arrive(arrival(NODE, 100, sequence=Sequence(5, 7)))
    before = world.registry.nodes[NODE]
    (outcome,) = world.arrive(arrival(NODE, 99, sequence=Sequence(5, 6)))
    assert outcome.kind == "history"
    assert world.registry.nodes[NODE] is before


def test_an_older_epoch_is_a_conflict_unless_it_is_a_replay(world: World) -> None:
    world.arrive(arrival(NODE, 100, sequence=Sequence(5, 0)))
    (live, replay) = world.arrive(
        arrival(NODE, 50, sequence=Sequence(4, 9)),
        arrival(NODE, 51, sequence=Sequence(4, 10), replay=True),
    )
    assert (live.kind, live.epoch) == ("epoch-conflict", 5)
    assert replay.kind == "history"
    assert (NODE, 50) not in world.journal.keys


def test_without_a_sequence_every_new_heartbeat_proves_life_but_an_older_changes_nothing_else(
    world: World,
) -> None:
    world.arrive(arrival(NODE, 1000, version="new", interval=30))
    world.wait(40)
    (outcome,) = world.arrive(arrival(NODE, 999, version="old", interval=30))
    assert outcome.kind == "recorded"
    world.wait(40)
    assert world.state(NODE) == "up"
    assert world.registry.nodes[NODE].version == "new"


def test_a_replay_revives_nobody_and_registers_nobody(world: World) -> None:
    (outcome,) = world.arrive(arrival(NODE, 5, replay=True))
    assert outcome.kind == "history"
    assert world.state(NODE) is None
    world.arrive(arrival(NODE, 10, interval=30))
    world.wait(60)
    (outcome,) = world.arrive(arrival(NODE, 20, replay=True))
    assert (outcome.kind, world.state(NODE)) == ("history", "expired")
    (outcome,) = world.arrive(arrival(NODE, 20, replay=True))
    assert outcome.kind == "duplicate"


def test_draining_ends_offline_without_an_expiry_and_a_beat_ends_draining(world: World) -> None:
    world.arrive(arrival(NODE, 1, interval=30))
    world.arrive(arrival(NODE, 2, interval=30, draining=True))
    assert world.state(NODE) == "draining"
    world.arrive(arrival(NODE, 3, interval=30))
    assert world.state(NODE) == "up"
    world.arrive(arrival(NODE, 4, interval=30, draining=True))
    world.wait(59.75)
    assert world.state(NODE) == "draining"
    world.wait(0.25)
    assert world.state(NODE) == "offline"
    world.arrive(arrival(NODE, 5, interval=30))
    names = [event for event, _ in world.events]
    assert names == ["registered", "draining", "draining", "offline", "returned"]


def test_skew_and_first_and_last_seen_follow_live_beats_only(world: World) -> None:
    first_ms = world.clock.wall_ms()
    world.arrive(arrival(NODE, first_ms + 1500, sequence=Sequence(1, 0)))
    world.wait(10)
    world.arrive(arrival(NODE, first_ms + 9000, sequence=Sequence(1, 1)))
    world.wait(5)
    world.arrive(arrival(NODE, first_ms + 4000, sequence=Sequence(1, 0), replay=True))
    node = world.registry.nodes[NODE]
    assert (node.first_seen_ms, node.last_seen_ms, node.skew_ms) == (first_ms, first_ms + 10_000, -1000)


def test_last_seen_never_goes_back_when_the_receivers_clock_does(world: World) -> None:
    world.arrive(arrival(NODE, 1))
    seen = world.registry.nodes[NODE].last_seen_ms
    world.clock.step_wall(-3600)
    world.wait(10)
    world.arrive(arrival(NODE, 2))
    assert world.registry.nodes[NODE].last_seen_ms == seen
    assert world.state(NODE) == "up"


def test_a_step_of_the_receivers_clock_expires_nobody(world: World) -> None:
    world.arrive(arrival(NODE, 1, interval=30))
    world.clock.step_wall(+3600)
    world.wait(59.75)
    assert world.state(NODE) == "late"
    world.clock.step_wall(-7200)
    world.wait(0.25)
    assert world.state(NODE) == "expired"


def test_a_forgotten_node_registers_anew_and_its_epoch_is_forgotten(world: World) -> None:
    world.arrive(arrival(NODE, 1, interval=30, sequence=Sequence(9, 0)))
    world.wait(60 + RULES.retention)
    assert world.state(NODE) is None
    (outcome,) = world.arrive(arrival(NODE, 2, interval=30, sequence=Sequence(3, 0)))
    assert outcome.kind == "recorded"
    assert [event for event, _ in world.events].count("registered") == 2


def test_a_failed_commit_leaves_no_trace_and_the_retry_is_new(world: World) -> None:
    world.arrive(arrival(NODE, 1, interval=30))
    world.wait(10)
    before = world.registry.nodes[NODE]
    world.arrive(arrival(NODE, 2, interval=30), fails=True)
    assert world.registry.nodes[NODE] == before
    (outcome,) = world.arrive(arrival(NODE, 2, interval=30))
    assert outcome.kind == "recorded"


def test_an_expiry_that_could_not_be_stored_happens_later_and_once(world: World) -> None:
    world.arrive(arrival(NODE, 1, interval=30))
    world.wait(59.75)
    world.clock.pass_(0.25)
    for _ in range(3):
        world.tick(fails=True)
        assert world.state(NODE) == "late"
    world.tick()
    world.wait(30)
    assert world.state(NODE) == "expired"
    assert [event for event, _ in world.events].count("expired") == 1


def test_an_expiry_comes_never_early_and_at_most_a_tick_and_a_bucket_late() -> None:
    """Nodes of all intervals die one by one, each at a time of its own; all in listening time."""
    dice = random.Random(11)
    world = World(Rules(default_interval=60, max_interval=120, retention=10_000.0))
    count = 300
    beats = [dice.randrange(5) for _ in range(count)]
    intervals = [dice.choice((30, 45, 60, 90, 120)) for _ in range(count)]
    due = [(dice.uniform(0, intervals[number]), number, 0) for number in range(count)]
    heapq.heapify(due)
    now = world.registry.listening.read().seconds
    while now < 1500:
        world.clock.pass_(0.25)
        now = world.registry.listening.read().seconds
        while due and due[0][0] <= now:
            at, number, sent = heapq.heappop(due)
            world.arrive(arrival(node_id(number), sent + 1, interval=intervals[number]))
            if sent < beats[number]:
                heapq.heappush(due, (at + intervals[number], number, sent + 1))
        world.tick()
    # As the fleet dies out, the brake may hold the last of it.
    assert {state.state for state in world.registry.nodes.values()} == {"expired"}
    held = {node for event, node in world.events if event == "suspect"}
    for node, state in world.registry.nodes.items():
        deadline = state.heard_at + (6 if node in held else 2) * state.interval
        assert 0 <= state.lapsed_at - deadline <= 0.5
