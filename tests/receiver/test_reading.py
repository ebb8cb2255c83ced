"""GET /openclaw/nodes: filters and pages against a brute-force reading of the same registry."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
from receiver.scene import problem
from receiver.virtual import World, arrival, node_id

from openclaw_exporter.receiver.query import Query, parse_query, select
from openclaw_exporter.receiver.refusals import RefusedError

if TYPE_CHECKING:
    from receiver.scene import Running

TAGS = ("region:eu", "region:us", "gpu:true", "gpu:false", "env:prod", "a b&c=d", "ümlaut")


@pytest.fixture(scope="module")
def world() -> World:
    """Three hundred nodes in every state."""
    dice = random.Random(7)
    world = World()
    for number in dice.sample(range(1000), 300):
        tags = tuple(dice.sample(TAGS, dice.randrange(4)))
        slots = dice.randrange(6)
        interval = dice.choice((30, 60, 120))
        draining = dice.random() < 0.2
        beat = arrival(
            node_id(number), 1, tags=tags, slots=slots, interval=interval, draining=draining, version="1"
        )
        world.arrive(beat)
    world.wait(100)
    assert {state.state for state in world.registry.nodes.values()} == {
        "up",
        "late",
        "expired",
        "draining",
        "offline",
    }
    return world


def answer(world: World, **parameters: Any) -> tuple[list[str], str | None]:
    query = parse_query(urlencode(parameters, doseq=True).encode())
    page = asyncio.run(select(world.registry, query))
    return [node.node_id for node in page.nodes], page.after


def brute_force(world: World, states: list[str], tags: list[str], least: int) -> list[str]:
    found = []
    for state in world.registry.nodes.values():
        offered = state.slots if state.state in ("up", "late", "suspect") else 0
        if (not states or state.state in states) and set(tags) <= set(state.tags) and offered >= least:
            found.append(state.node_id)
    return sorted(found)


def test_filters_find_what_brute_force_finds(world: World) -> None:
    dice = random.Random(8)
    sizes = set()
    for _ in range(300):
        states = dice.sample(("up", "late", "expired", "draining", "offline"), dice.randrange(3))
        tags = dice.sample(TAGS, dice.randrange(3))
        least = dice.randrange(4)
        expected = brute_force(world, states, tags, least)
        found, after = answer(world, state=states, tag=tags, min_available_slots=least, limit=1000)
        assert found == expected
        assert after is None
        sizes.add(len(expected))
    assert len(sizes) > 20


@pytest.mark.parametrize("limit", [1, 7, 100, 299, 300, 301])
def test_pages_together_are_the_whole_in_order(world: World, limit: int) -> None:
    seen: list[str] = []
    after: str | None = None
    pages = 0
    while True:
        page = asyncio.run(select(world.registry, Query(limit=limit, after=after)))
        seen += [node.node_id for node in page.nodes]
        pages += 1
        after = page.after
        if after is None:
            break
        assert len(page.nodes) == limit
    assert seen == sorted(world.registry.nodes)
    assert pages == -(-300 // limit)


def test_the_best_come_first(world: World) -> None:
    slots = {
        state.node_id: state.slots if state.state in ("up", "late", "suspect") else 0
        for state in world.registry.nodes.values()
    }
    for limit in (1, 10, 300):
        found, after = answer(world, sort="-available_slots", limit=limit)
        assert found == sorted(slots, key=lambda name: (-slots[name], name))[:limit]
        assert after is None
    found, _ = answer(world, sort="-available_slots", tag="gpu:true", state="up", limit=5)
    assert (
        found
        == sorted(brute_force(world, ["up"], ["gpu:true"], 0), key=lambda name: (-slots[name], name))[:5]
    )


def test_suspect_may_be_asked_for(world: World) -> None:
    assert answer(world, state="suspect") == ([], None)
    assert answer(world, state=["suspect", "late"], limit=1000) == answer(world, state="late", limit=1000)


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("state=gone", "state"),
        ("state=", "state"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=+5", "limit"),
        ("limit=1_0", "limit"),
        ("limit=%D9%A3", "limit"),
        ("limit=", "limit"),
        ("limit=1&limit=2", "limit"),
        ("min_available_slots=-1", "min_available_slots"),
        ("min_available_slots=1.5", "min_available_slots"),
        ("min_available_slots=99999999999999999999", "min_available_slots"),
        ("cursor=", "cursor"),
        ("cursor=abc", "cursor"),
        ("cursor=%FF", "?"),
        ("cursor=AAAAAAAAAAAAAAAAAAAAAB", "cursor"),
        ("cursor=AAAAAAAAAAAAAAAAAAAAAA%3D%3D", "cursor"),
        ("sort=node_id", "sort"),
        ("sort=-available_slots&cursor=AAAAAAAAAAAAAAAAAAAAAA", "cursor"),
        ("tag=", "tag"),
        ("tag=gpu:true&tag=a%0Ab", "tag"),
        (f"tag={'a' * 129}", "tag"),
        ("tag=" + "%C3%A9" * 65, "tag"),
        ("colour=blue", "?"),
        ("state", "?"),
        ("&".join(["tag=a"] * 65), "?"),
        ("\u00fc=1", "?"),
    ],
)
def test_a_parameter_that_is_not_valid_is_named(query: str, parameter: str) -> None:
    with pytest.raises(RefusedError) as refused:
        parse_query(query.encode())
    document = refused.value.problem
    assert document.status == 400
    assert document.errors is not None
    assert [entry.field for entry in document.errors] == [parameter]


def test_over_http_a_cursor_leads_to_the_next_page(scene: Running) -> None:
    nodes = [scene.node() for _ in range(5)]
    for node in nodes:
        node.beat(tags=["region:eu", "batch:cursor"])
    reader = scene.reader()
    seen = []
    parameters = {"tag": "batch:cursor", "limit": "2"}
    while True:
        page = reader.get("/openclaw/nodes", params=parameters).json()
        seen += [entry["node_id"] for entry in page["nodes"]]
        if page["next_cursor"] is None:
            break
        parameters["cursor"] = page["next_cursor"]
    assert seen == sorted(node.node_id for node in nodes)
    for path in ("nodes", "capacity", "prometheus-sd", "events"):
        refused = reader.get(f"/openclaw/{path}?tag=")
        assert problem(refused) == (400, "invalid-query")
    refused = reader.get("/openclaw/nodes?limit=many")
    assert problem(refused) == (400, "invalid-query")
    assert refused.json()["errors"][0]["field"] == "limit"


@pytest.mark.parametrize(
    "name", ["nobody", "00000000-0000-0000-0000-000000000000", "..", "%00", "%7Bnode_id%7D"]
)
def test_a_node_that_is_not_known(scene: Running, name: str) -> None:
    reader = scene.reader()
    for path in (f"/openclaw/nodes/{name}", f"/openclaw/nodes/{name}/history"):
        response = reader.send(reader.build_request("GET", f"{scene.url}{path}"))
        assert problem(response) in ((404, "node-unknown"), (404, "not-found"))


def test_a_node_that_only_replayed_has_a_history_and_is_not_known(scene: Running) -> None:
    node = scene.node()
    assert node.beat({"OpenClaw-Replay": "1"}).json()["result"] == "history"
    reader = scene.reader()
    assert problem(reader.get(f"/openclaw/nodes/{node.node_id}")) == (404, "node-unknown")
    history = reader.get(f"/openclaw/nodes/{node.node_id}/history").json()["history"]
    assert [entry["result"] for entry in history] == ["history"]
