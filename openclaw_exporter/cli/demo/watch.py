"""Watching the demo from outside: the registry through its API, and both `/metrics`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import httpx
from prometheus_client.parser import text_string_to_metric_families

from openclaw_exporter.client import Registry, RegistryError
from openclaw_exporter.client.nodes import Node

if TYPE_CHECKING:
    from openclaw_exporter.cli.demo.stage import Stage

_TIMEOUT: Final = 20.0
"""Seconds for one answer: a machine that stalls for some is no receiver that is gone."""
_SHOWN: Final = ("up", "late", "expired")
_RESULTS: Final = ("recorded", "duplicate", "history")
_SHEDDING: Final = "shedding"


@dataclass(frozen=True, slots=True)
class Delivered:
    """How heartbeats were delivered, as their sender counts.

    Attributes:
        failures: Publish attempts that were not answered 2xx.
        waiting: Heartbeats that wait in the buffer.
        dropped: Heartbeats that were given up.
    """

    failures: int = 0
    waiting: int = 0
    dropped: int = 0

    def __add__(self, other: Delivered) -> Delivered:
        """Return both together."""
        return Delivered(
            self.failures + other.failures, self.waiting + other.waiting, self.dropped + other.dropped
        )


@dataclass(frozen=True, slots=True)
class Sight:
    """What is to be seen at one time.

    Attributes:
        nodes: The registry, as the API shows it.
        received: Heartbeats by result, from the receiver's metrics; `turned_away` are those that it asked to
            come back because it shed load, `refused` all others that it refused.
        refusals: Those that were refused, by their problem.
        agent: What the real agent's metrics last said of its publishing; None until it has served some.
    """

    nodes: tuple[Node, ...] = ()
    received: Mapping[str, int] = field(default_factory=dict)
    refusals: Mapping[str, int] = field(default_factory=dict)
    agent: Delivered | None = None

    def states(self) -> dict[str, int]:
        """Return how many nodes are up, late and expired."""
        return {state: sum(node.state == state for node in self.nodes) for state in _SHOWN}

    def node(self, node_id: str) -> Node | None:
        """Return one node; None where the registry does not know it."""
        return next((node for node in self.nodes if node.node_id == node_id), None)


class Watcher:
    """Looks at the receiver and at the agent; a context manager by its `close`."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._registry = Registry(
            stage.pki.endpoint,
            ca=stage.pki.ca,
            certificate=stage.reader.certificate,
            key=stage.reader.key,
            timeout=_TIMEOUT,
        )
        self._http = httpx.Client(timeout=_TIMEOUT, trust_env=False)
        self._agent: Delivered | None = None

    def close(self) -> None:
        """Close the connections."""
        self._registry.close()
        self._http.close()

    def ready(self) -> bool:
        """Whether the receiver takes heartbeats."""
        try:
            return self._http.get(f"{self._stage.admin_url}/readyz").is_success
        except httpx.HTTPError:
            return False

    def nodes(self) -> tuple[Node, ...]:
        """Return the registry.

        Raises:
            RegistryError: The receiver does not answer.
        """
        return tuple(self._registry.nodes())

    def look(self) -> Sight:
        """Return everything that is to be seen now.

        Raises:
            RegistryError: The receiver does not answer.
        """
        received = dict.fromkeys((*_RESULTS, "turned_away", "refused"), 0)
        refusals: dict[str, int] = {}
        for name, labels, value in self._metrics(f"{self._stage.admin_url}/metrics"):
            if name == "openclaw_registry_heartbeat_received_total":
                received[labels["openclaw_result"]] += int(value)
            elif name == "openclaw_registry_heartbeat_refused_total" and value:
                slug = labels["error_type"]
                received["turned_away" if slug == _SHEDDING else "refused"] += int(value)
                if slug != _SHEDDING:
                    refusals[slug] = refusals.get(slug, 0) + int(value)
        return Sight(self.nodes(), received, refusals, self._look_at_agent())

    def _look_at_agent(self) -> Delivered | None:
        try:
            samples = self._metrics(self._stage.metrics_url)
        except RegistryError:
            return self._agent
        names = ("openclaw_publish_failure_total", "openclaw_buffer_usage", "openclaw_buffer_dropped_total")
        self._agent = Delivered(
            *(sum(int(value) for name, _, value in samples if name == asked) for asked in names)
        )
        return self._agent

    def _metrics(self, url: str) -> list[tuple[str, dict[str, str], float]]:
        try:
            text = self._http.get(url).raise_for_status().text
        except httpx.HTTPError as error:
            raise RegistryError(f"{url} does not answer: {error}") from error
        return [
            (sample.name, sample.labels, sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        ]


@dataclass(slots=True)
class Changes:
    """Tells what happened to the nodes between two looks at them."""

    _states: dict[str, str] = field(default_factory=dict)

    def of(self, nodes: tuple[Node, ...]) -> list[str]:
        """Return a line for each node that went late, expired, came back or leaves."""
        lines: list[str] = []
        for node in nodes:
            node_id, state = node.node_id, node.state
            before = self._states.get(node_id)
            self._states[node_id] = state
            name = node.heartbeat.hostname
            if before is None or before == state:
                continue
            if state == "up":
                lines.append(f"{name} returned" if before == "expired" else f"{name} is up again")
            else:
                lines.append(f"{name} {state}: {node.reason}")
        return lines
