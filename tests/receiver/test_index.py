"""The index of nodes against brute force over the same registry, whichever way it takes."""

from __future__ import annotations

import asyncio
import random
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from receiver.virtual import World, arrival, node_id

from openclaw_exporter.receiver.discovery import index
from openclaw_exporter.receiver.discovery.index import EXACT
from openclaw_exporter.receiver.liveness import STATES
from openclaw_exporter.receiver.query import Query, offered_slots, select

TAGS = ("region:eu", "region:us", "gpu:true", "env:prod")
SLOTS = (0, 1, 2, 7, EXACT - 1, EXACT, EXACT + 1, EXACT * 2 - 1, EXACT * 2, EXACT * 3, 2**53 - 1)

queries = st.builds(
    Query,
    states=st.frozensets(st.sampled_from(STATES), max_size=3),
    tags=st.frozensets(st.sampled_from(TAGS), max_size=2),
    min_slots=st.sampled_from((0, 0, *SLOTS)),
    limit=st.integers(1, 12),
    best=st.booleans(),
)
beats = st.lists(
    st.tuples(
        st.integers(0, 30),
        st.lists(st.sampled_from(TAGS), unique=True, max_size=3),
        st.sampled_from(SLOTS),
        st.booleans(),
        st.sampled_from((0, 0, 0, 25, 50, 130)),
    ),
    min_size=1,
    max_size=60,
)


def play(world: World, history: list[tuple[int, list[str], int, bool, int]]) -> None:
    """Let nodes beat and time pass; nodes change their tags and slots, expire, return and are forgotten."""
    for sent, (number, tags, slots, draining, wait) in enumerate(history, start=1):
        beat = arrival(node_id(number), sent, tags=tuple(tags), slots=slots, draining=draining, interval=30)
        world.arrive(beat)
        world.wait(wait, every=2.5)


def ask(world: World, query: Query) -> tuple[list[str], str | None]:
    page = asyncio.run(select(world.registry, query))
    return [node.node_id for node in page.nodes], page.after


def brute_force(world: World, query: Query) -> list[str]:
    found = [state for state in world.registry.nodes.values() if query.matches(state)]
    if query.best:
        found.sort(key=lambda state: (-offered_slots(state), state.node_id))
    else:
        found.sort(key=lambda state: state.node_id)
    return [state.node_id for state in found]


def pages(world: World, query: Query) -> list[str]:
    """Return all pages together, having checked each."""
    seen: list[str] = []
    after: str | None = None
    while True:
        found, after = ask(world, Query(**{**as_dict(query), "after": after}))
        assert len(found) <= query.limit
        seen += found
        if after is None:
            return seen


def as_dict(query: Query) -> dict[str, Any]:
    return {name: getattr(query, name) for name in ("states", "tags", "min_slots", "limit")}


@pytest.mark.parametrize("cost", [0, 4, 1_000_000], ids=["always walk", "as it is", "always collect"])
@settings(max_examples=20, deadline=None)
@given(history=beats, asked=st.lists(queries, min_size=1, max_size=8))
def test_every_query_finds_what_brute_force_finds(cost: int, history: Any, asked: list[Query]) -> None:
    world = World()
    play(world, history)
    with (
        mock.patch.object(index, "_WALK_COST", cost),
        mock.patch.object(index, "SLICE", 3),
        mock.patch.object(index, "MOST", 9),
    ):
        for query in asked:
            expected = brute_force(world, query)
            if query.best:
                assert ask(world, query) == (expected[: query.limit], None)
            else:
                assert pages(world, query) == expected


def test_an_index_made_at_once_is_the_one_that_grew() -> None:
    dice = random.Random(3)
    world = World()
    history = [
        (
            dice.randrange(40),
            dice.sample(TAGS, 2),
            dice.choice(SLOTS),
            dice.random() < 0.1,
            dice.choice((0, 9)),
        )
        for _ in range(300)
    ]
    play(world, history)
    grown = world.registry.index
    made = index.Index(world.registry.nodes)
    assert list(made._ids) == list(grown._ids) == sorted(world.registry.nodes)

    def members(one: index.Index) -> dict[Any, set[str]]:
        return {
            (tags, *key): set(index.each(ids))
            for tags, groups in one._by_tags.items()
            for key, ids in groups.items()
        }

    assert sum(map(len, members(grown).values())) == len(world.registry.nodes)
    assert members(made) == members(grown)


def test_a_page_that_looked_at_many_ends_early_with_a_cursor() -> None:
    world = World()
    # Every second one matches, but not one of the first hundred: ids need not be spread evenly.
    for number in range(200):
        tags = ("late:yes",) if number >= 100 else ()
        world.arrive(arrival(node_id(number), 1, tags=tags))
    query = Query(tags=frozenset({"late:yes"}), limit=5)
    with mock.patch.object(index, "SLICE", 10), mock.patch.object(index, "MOST", 50):
        assert ask(world, query) == ([], node_id(49))
        assert pages(world, query) == [node_id(number) for number in range(100, 200)]
