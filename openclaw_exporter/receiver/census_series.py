"""The registry's numbers as series: a census, folded to what the instruments may have."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from openclaw_exporter.receiver.census import UNKNOWN, Place
from openclaw_exporter.receiver.folding import MAX_SERIES, Folding
from openclaw_exporter.receiver.liveness import STATES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from openclaw_exporter.receiver.census import Census
    from openclaw_exporter.telemetry.instruments import Series

MAX_PLACES: Final = MAX_SERIES // len(STATES)
"""Pairs of region and environment: each has a series for every state."""


def place_attributes(region: str, environment: str) -> dict[str, str]:
    """Return the attributes of a place."""
    return {"openclaw.node.region": region, "openclaw.node.environment": environment}


class CensusSeries:
    """Which of the nodes' own words have series of their own; remembered from one census to the next.

    Attributes:
        sources: By instrument, what makes its series of a census.
    """

    def __init__(self) -> None:
        self._places = Folding(MAX_PLACES)
        self._regions = Folding()
        self._of_versions = Folding()
        self._of_capacity = Folding()
        self._of_queues = Folding()
        self.sources: Mapping[str, Callable[[Census], Iterable[Series]]] = {
            "openclaw.registry.node.count": self._node_counts,
            "openclaw.registry.node.version.count": self._versions,
            "openclaw.registry.capacity": self._capacity,
            "openclaw.registry.queue.depth": self._queues,
            "openclaw.registry.node.silence": self._silence,
        }

    def _node_counts(self, census: Census) -> Iterable[Series]:
        nodes: Counter[tuple[str, ...]] = Counter()
        for (_, place), count in census.nodes.items():
            nodes[place] += count
        names = self._places.names(nodes or {Place(UNKNOWN, UNKNOWN): 0})
        # A state that no node of a place is in now is 0, and not gone.
        series: dict[tuple[str, tuple[str, ...]], int] = {
            (state, name): 0 for name in names.values() for state in STATES
        }
        for (state, place), count in census.nodes.items():
            series[state, names[place]] += count
        for (state, name), count in series.items():
            yield count, {"openclaw.node.state": state, **place_attributes(*name)}

    def _versions(self, census: Census) -> Iterable[Series]:
        pairs = (((version, str(gpu).lower()), count) for (version, gpu), count in census.versions.items())
        for (version, gpu), count in self._of_versions.fold(pairs).items():
            yield count, {"openclaw.node.version": version, "openclaw.node.gpu": gpu}

    def _capacity(self, census: Census) -> Iterable[Series]:
        for (resource, region), amount in self._of_capacity.fold(census.capacity.items()).items():
            yield amount, {"openclaw.resource": resource, "openclaw.node.region": region}

    def _queues(self, census: Census) -> Iterable[Series]:
        for (topic, region), depth in self._of_queues.fold(census.queues.items()).items():
            yield depth, {"messaging.destination.name": topic, "openclaw.node.region": region}

    def _silence(self, census: Census) -> Iterable[Series]:
        nodes: Counter[tuple[str, ...]] = Counter()
        for (_, place), count in census.nodes.items():
            nodes[(place.region,)] += count
        names = self._regions.names(nodes)
        longest: dict[str, float] = {}
        for region, seconds in census.silence.items():
            (name,) = names[(region,)]
            longest[name] = max(seconds, longest.get(name, 0.0))
        for name, seconds in longest.items():
            yield seconds, {"openclaw.node.region": name}
