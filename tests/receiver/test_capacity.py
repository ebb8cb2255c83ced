"""GET /openclaw/capacity against a brute-force sum over the same nodes."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st
from receiver.scene import problem
from receiver.virtual import World, arrival, node_id

from openclaw_exporter.receiver.discovery.capacity import CapacityDesk
from openclaw_exporter.receiver.query import scan
from openclaw_exporter.wire.fields import MAX_INTEGER
from openclaw_exporter.wire.heartbeat import build, encode
from openclaw_exporter.wire.timestamps import format_ms

if TYPE_CHECKING:
    from receiver.scene import Running

TAGS = ("region:eu", "region:us", "swarm:blue", "swarm:red", "gpu:true")
members = st.fixed_dictionaries(
    {
        "tags": st.lists(st.sampled_from(TAGS), unique=True, max_size=4),
        "capacity": st.fixed_dictionaries(
            {"workers": st.integers(0, 50), "available_slots": st.integers(0, 50)},
            optional={"vram_gb": st.sampled_from([0.5, 16, 80.25])},
        ),
        "queue_depth": st.dictionaries(st.sampled_from(["planner", "worker", "a.b:c"]), st.integers(0, 99)),
        "draining": st.booleans(),
        "late": st.booleans(),
    }
)


def beat(number: int, sent_ms: int, content: dict[str, Any]) -> Any:
    heartbeat = build(
        node_id=node_id(number),
        hostname="chimera-01.test",
        version="1",
        last_heartbeat=format_ms(sent_ms),
        **{key: content[key] for key in ("capacity", "queue_depth", "tags")},
    )
    changes = {"payload": encode(heartbeat), "tags": tuple(heartbeat.tags), "interval": 60}
    return arrival(node_id(number), sent_ms, draining=content.get("draining", False), **changes)


def read(world: World, tags: frozenset[str] = frozenset()) -> Any:
    desk = CapacityDesk(lambda query: scan(world.registry, query))
    return asyncio.run(desk.read(tags))


@settings(max_examples=80, deadline=None)
@given(nodes=st.lists(members, max_size=12), tags=st.sets(st.sampled_from(TAGS), max_size=2))
def test_the_sums_are_those_of_brute_force(nodes: list[dict[str, Any]], tags: set[str]) -> None:
    world = World()
    late = [number for number, node in enumerate(nodes) if node["late"]]
    world.arrive(*(beat(number, 1, nodes[number]) for number in late))
    world.wait(95)
    world.arrive(*(beat(number, 2, node) for number, node in enumerate(nodes) if not node["late"]))
    counted = [node for node in nodes if not node["draining"] and tags <= set(node["tags"])]
    capacity = read(world, frozenset(tags))
    assert capacity.nodes == len(counted)
    for resource in ("workers", "available_slots"):
        assert getattr(capacity, resource) == sum(node["capacity"][resource] for node in counted)
    assert capacity.resources.get("vram_gb", 0) == sum(n["capacity"].get("vram_gb", 0) for n in counted)
    depths: dict[str, dict[Any, list[int]]] = {}
    for node in counted:
        swarm = next((tag for tag in node["tags"] if tag.startswith("swarm:")), None)
        for topic, depth in node["queue_depth"].items():
            depths.setdefault(topic, {}).setdefault(swarm, []).append(depth)
    expected = {topic: sum(map(max, swarms.values())) for topic, swarms in depths.items()}
    assert capacity.queue_depth == expected
    assert capacity.queue_depth_sum == sum(expected.values())


def test_sums_beyond_what_json_keeps_exact_are_cut() -> None:
    world = World()
    huge = {"workers": MAX_INTEGER, "available_slots": MAX_INTEGER, "vram_gb": sys.float_info.max}
    content = {"capacity": huge, "queue_depth": {"planner": MAX_INTEGER}, "tags": []}
    world.arrive(*(beat(n, 1, content | {"tags": [f"swarm:{n}"]}) for n in range(3)))
    capacity = read(world)
    assert capacity.workers == capacity.available_slots == capacity.queue_depth["planner"] == MAX_INTEGER
    assert capacity.resources == {"vram_gb": sys.float_info.max}


def test_a_survey_counts_for_ten_times_as_long_as_it_took() -> None:
    world = World()
    content = {"capacity": {"workers": 1, "available_slots": 1}, "queue_depth": {}, "tags": []}
    world.arrive(beat(1, 1, content))
    now = [0.0]
    scans = 0

    async def slow_scan(query: Any) -> Any:
        nonlocal scans
        scans += 1
        async for states in scan(world.registry, query):
            yield states

    def clock() -> float:
        # Each reading takes a tenth of a second, so a survey of one slice takes that.
        now[0] += 0.1
        return now[0]

    async def main() -> None:
        desk = CapacityDesk(slow_scan, clock)
        assert (await desk.read(frozenset())).nodes == 1
        world.arrive(beat(2, 1, content))
        assert (await desk.read(frozenset())).nodes == 1
        now[0] += 2
        both = await asyncio.gather(desk.read(frozenset()), desk.read(frozenset()))
        assert [capacity.nodes for capacity in both] == [2, 2]

    asyncio.run(main())
    assert scans == 2


def test_over_http_each_is_one_number(calm: Running) -> None:
    for number, swarm in enumerate(("swarm:a", "swarm:a", "swarm:b")):
        node = calm.node()
        capacity = {"workers": 8, "available_slots": number, "vram_gb": 24.5}
        tags = ["pool:sums", swarm]
        answer = node.beat(tags=tags, capacity=capacity, queue_depth={"planner": 10 + number, "worker": 1})
        assert answer.status_code == 200
    reader = calm.reader()
    shown = reader.get("/openclaw/capacity", params={"tag": "pool:sums"}).json()
    assert shown == {
        "nodes": 3,
        "workers": 24,
        "available_slots": 3,
        "resources": {"vram_gb": 73.5},
        "queue_depth": {"planner": 23, "worker": 2},
        "queue_depth_sum": 25,
    }
    one = reader.get("/openclaw/capacity", params=[("tag", "pool:sums"), ("tag", "swarm:b")]).json()
    assert (one["nodes"], one["queue_depth"]["planner"]) == (1, 12)
    none = reader.get("/openclaw/capacity", params={"tag": "pool:none"}).json()
    assert (none["nodes"], none["workers"], none["queue_depth"]) == (0, 0, {})
    assert problem(reader.get("/openclaw/capacity?state=up")) == (400, "invalid-query")
    node = calm.node()
    assert problem(node.client.get("/openclaw/capacity")) == (403, "role-not-allowed")
