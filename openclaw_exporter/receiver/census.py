"""A count of the whole registry, for the metrics: one pass over every node, in the thread that asks."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from openclaw_exporter.receiver.liveness import LIVE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from openclaw_exporter.receiver.liveness import NodeState

UNKNOWN = "unknown"
"""Stands for a region or environment that a node does not tell."""


class Place(NamedTuple):
    """Where a node is, by its tags `region:` and `env:`."""

    region: str
    environment: str


@dataclass
class Census:
    """The registry in numbers. Live nodes are those that are up, late or suspect.

    Attributes:
        nodes: By state and place.
        versions: Live nodes by version and whether they have a GPU.
        capacity: What live nodes have, by resource and region.
        queues: By topic and region: of each swarm the greatest depth among its live nodes, for they share
            queues, counted where that node is.
        silence: By region, the longest listening time since a live node's last heartbeat, seconds.
    """

    nodes: Counter[tuple[str, Place]] = field(default_factory=Counter)
    versions: Counter[tuple[str, bool]] = field(default_factory=Counter)
    capacity: defaultdict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))
    queues: Counter[tuple[str, str]] = field(default_factory=Counter)
    silence: dict[str, float] = field(default_factory=dict)


class _Content(msgspec.Struct, gc=False):
    capacity: dict[str, int | float]
    queue_depth: dict[str, int]


_CONTENT = msgspec.json.Decoder(_Content)


def place_of(tags: Iterable[str]) -> Place:
    """Return where a node is; the first tag of each kind counts."""
    region = environment = ""
    for tag in tags:
        if not region and tag.startswith("region:"):
            region = tag[len("region:") :]
        elif not environment and tag.startswith("env:"):
            environment = tag[len("env:") :]
    return Place(region or UNKNOWN, environment or UNKNOWN)


def take_census(states: Iterable[NodeState], now: float) -> Census:
    """Count the nodes.

    Args:
        states: All of them.
        now: Listening time.
    """
    census = Census()
    deepest: dict[tuple[str, str], tuple[int, str]] = {}
    for state in states:
        place = place_of(state.tags)
        census.nodes[state.state, place] += 1
        if state.state not in LIVE:
            continue
        census.versions[state.version, "gpu:true" in state.tags] += 1
        silence = now - state.heard_at
        census.silence[place.region] = max(silence, census.silence.get(place.region, 0.0))
        content = _CONTENT.decode(state.payload)
        for resource, amount in content.capacity.items():
            census.capacity[resource, place.region] += amount
        swarm = next((tag for tag in state.tags if tag.startswith("swarm:")), "")
        for topic, depth in content.queue_depth.items():
            known = deepest.get((swarm, topic))
            if known is None or depth > known[0]:
                deepest[swarm, topic] = (depth, place.region)
    for (_, topic), (depth, region) in deepest.items():
        census.queues[topic, region] += depth
    return census
