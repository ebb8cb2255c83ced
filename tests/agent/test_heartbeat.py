"""From the snapshot to what the node says of itself."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from openclaw_exporter.agent.heartbeat import report, view
from openclaw_exporter.agent.settings import NodeSettings, PressureSettings, Threshold
from openclaw_exporter.agent.snapshot import Board, CollectorState, Snapshot
from openclaw_exporter.plugin import Capacity, Measurement, Observation, QueueDepth, Tag, Uptime
from openclaw_exporter.plugin.guard import Guard
from openclaw_exporter.wire.heartbeat import build, decode, encode

NO_PRESSURE = PressureSettings()


def snapshot(*observations: Observation) -> Snapshot:
    board = Board(clock=lambda: 0.0)
    board.arrange([("test", "a")])
    board.put(CollectorState("test", "a", healthy=True, observations=observations, fresh_until=1.0))
    return board.read()


def test_silence_is_zero_workers_and_nothing_else() -> None:
    now = view(snapshot(), NodeSettings(), NO_PRESSURE)
    assert now.capacity == {"workers": 0, "available_slots": 0}
    said = report(now, NodeSettings())
    assert (said.queue_depth, said.tags, said.uptime_seconds) == ({}, (), None)
    assert (said.version, said.hostname) == (None, None)


def test_configured_workers_stand_where_no_collector_tells() -> None:
    node = NodeSettings(workers=24)
    assert view(snapshot(), node, NO_PRESSURE).capacity == {"workers": 24, "available_slots": 24}
    told = snapshot(Capacity("workers", 8), Capacity("gpus", 2))
    assert view(told, node, NO_PRESSURE).capacity == {"workers": 8, "available_slots": 8, "gpus": 2}


def test_available_slots_are_a_collectors_but_never_above_the_workers() -> None:
    slots = snapshot(Capacity("available_slots", 5))
    assert view(slots, NodeSettings(), NO_PRESSURE).capacity == {"workers": 0, "available_slots": 5}
    assert view(slots, NodeSettings(workers=8), NO_PRESSURE).capacity["available_slots"] == 5
    assert view(slots, NodeSettings(workers=3), NO_PRESSURE).capacity["available_slots"] == 3


def test_queue_pressure_comes_off_the_slots_whoever_read_the_depth() -> None:
    pressure = PressureSettings(
        topics={"tasks": Threshold(soft=0, hard=100), "review": Threshold(soft=10, hard=20)}
    )
    told = snapshot(Capacity("workers", 10), QueueDepth("tasks", 50), QueueDepth("review", 5))
    now = view(told, NodeSettings(), pressure)
    assert now.capacity == {"workers": 10, "available_slots": 5}
    assert (now.withheld, now.pressing) == (5, "tasks")


def test_a_configured_tag_wins_over_a_collected_one_of_the_same_key() -> None:
    node = NodeSettings(region="us-east-1", tags=("gpu:true",))
    told = snapshot(Tag("gpu", "false"), Tag("region", "elsewhere"), Tag("rack", "7"))
    now = view(told, node, NO_PRESSURE)
    assert now.tags == ("region:us-east-1", "gpu:true", "rack:7")


def test_configured_tags_come_first_and_each_once() -> None:
    node = NodeSettings(region="us-east-1", environment="prod", tags=("swarm:blue", "gpu:true"))
    now = view(snapshot(Tag("gpu", "true"), Tag("zone", "b")), node, NO_PRESSURE)
    assert now.tags == ("region:us-east-1", "env:prod", "swarm:blue", "gpu:true", "zone:b")


def test_what_has_no_room_is_left_out_and_named() -> None:
    observations: list[Observation] = [QueueDepth(f"q{n}", n) for n in range(40)]
    observations += [Capacity(f"r{n}", n) for n in range(40)]
    observations += [Tag(f"t{n}", "x") for n in range(40)]
    now = view(snapshot(*observations), NodeSettings(region="here"), NO_PRESSURE)
    assert list(now.queues) == [f"q{n}" for n in range(32)]
    assert len(now.capacity) == 32
    assert len(now.tags) == 32
    assert now.tags[0] == "region:here"
    assert now.cut == ("more than 32 topics", "more than 30 resources", "more than 32 tags")


TEXT = st.text(max_size=40)
NUMBER = st.one_of(st.integers(), st.floats(), st.integers(0, 10**6))
OBSERVATIONS = st.lists(
    st.one_of(
        st.builds(Capacity, st.one_of(st.sampled_from(["workers", "available_slots", "gpus"]), TEXT), NUMBER),
        st.builds(QueueDepth, st.one_of(st.sampled_from(["tasks", "a:b"]), TEXT), NUMBER, st.none()),
        st.builds(Uptime, NUMBER),
        st.builds(Tag, st.one_of(st.just("gpu"), TEXT), TEXT),
        st.builds(Measurement, TEXT, NUMBER, st.sampled_from(["s", "By", "nonsense"])),
        TEXT,
    ),
    max_size=60,
)
NODES = st.builds(
    NodeSettings,
    workers=st.one_of(st.none(), st.integers(0, 100)),
    region=st.sampled_from(["", "us-east-1"]),
    tags=st.lists(st.sampled_from(["swarm:blue", "a", "b:c"]), max_size=5).map(tuple),
)
PRESSURES = st.sampled_from(
    [
        NO_PRESSURE,
        PressureSettings(topics={"tasks": Threshold(soft=0, hard=1000)}, when_unknown="withhold"),
        PressureSettings(topics={"tasks": Threshold(soft=5, hard=6), "a:b": Threshold(soft=0, hard=9)}),
    ]
)


@given(OBSERVATIONS, NODES, PRESSURES)
def test_whatever_collectors_yield_the_heartbeat_keeps_the_contract(
    observations: list[Any], node: NodeSettings, pressure: PressureSettings
) -> None:
    checked = Guard(series_budget=500).check(observations)
    now = view(snapshot(*checked.observations), node, pressure)
    said = report(now, node)
    heartbeat = build(
        node_id="0b1e8a5e-6f43-4f0c-9a55-1f1a1f6d3c11",
        hostname=said.hostname or "node",
        version=said.version or "unknown",
        capacity=said.capacity,
        queue_depth=said.queue_depth,
        last_heartbeat="2026-01-01T00:00:00Z",
        tags=said.tags,
        uptime_seconds=said.uptime_seconds,
    )
    assert decode(encode(heartbeat)) == heartbeat
    slots = heartbeat.capacity["available_slots"]
    assert now.withheld >= 0
    assert heartbeat.capacity["workers"] == 0 or slots + now.withheld <= heartbeat.capacity["workers"]
