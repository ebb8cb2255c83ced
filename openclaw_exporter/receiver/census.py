"""A count of the whole registry, for the metrics: one pass over every node, in the thread that asks."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from openclaw_exporter.receiver.content import CONTENT, swarm_of
from openclaw_exporter.receiver.liveness import LIVE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from openclaw_exporter.receiver.liveness import NodeState

UNKNOWN = "unknown"
"""Stands for a region or environment that a node does not tell."""

_REMEMBERED: Final = 16_384
_NEVER: Final = float("inf")


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


def place_of(tags: Iterable[str]) -> Place:
    """Return where a node is; the first tag of each kind counts."""
    region = environment = ""
    for tag in tags:
        if not region and tag.startswith("region:"):
            region = tag[len("region:") :]
        elif not environment and tag.startswith("env:"):
            environment = tag[len("env:") :]
    return Place(region or UNKNOWN, environment or UNKNOWN)


class _Standing(NamedTuple):
    """What a node's tags say."""

    place: Place
    gpu: bool
    swarm: str


@lru_cache(_REMEMBERED)
def _standing(tags: tuple[str, ...]) -> _Standing:
    return _Standing(place_of(tags), "gpu:true" in tags, swarm_of(tags))


def take_census(states: Iterable[NodeState], now: float) -> Census:
    """Count the nodes.

    Args:
        states: All of them.
        now: Listening time.
    """
    census = Census()
    nodes, versions, capacity = census.nodes, census.versions, census.capacity
    heard: dict[str, float] = {}
    deepest: dict[tuple[str, str], tuple[int, str]] = {}
    decode = CONTENT.decode
    for state in states:
        place, gpu, swarm = _standing(state.tags)
        key = (state.state, place)
        nodes[key] = nodes.get(key, 0) + 1
        if state.state not in LIVE:
            continue
        version = (state.version, gpu)
        versions[version] = versions.get(version, 0) + 1
        region = place.region
        if state.heard_at < heard.get(region, _NEVER):
            heard[region] = state.heard_at
        content = decode(state.payload)
        for resource, amount in content.capacity.items():
            what = (resource, region)
            capacity[what] = capacity.get(what, 0) + amount
        for topic, depth in content.queue_depth.items():
            queue = (swarm, topic)
            known = deepest.get(queue)
            if known is None or depth > known[0]:
                deepest[queue] = (depth, region)
    census.silence.update((region, max(0.0, now - at)) for region, at in heard.items())
    for (_, topic), (depth, region) in deepest.items():
        census.queues[topic, region] += depth
    return census
