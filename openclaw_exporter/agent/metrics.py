"""From the snapshot to OpenTelemetry: every series is read from it at each export, and nothing else is.

So a scrape or an export never runs a collector, and what left the snapshot leaves the exporters.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from openclaw_exporter.agent.worker import DEADLINE
from openclaw_exporter.telemetry.catalogue import CATALOGUE
from openclaw_exporter.telemetry.instruments import Instruments, observe_with

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from opentelemetry.metrics import Meter

    from openclaw_exporter.agent.heartbeat import NodeView
    from openclaw_exporter.agent.snapshot import CollectorState, Snapshot
    from openclaw_exporter.plugin.host import LoadedCollector
    from openclaw_exporter.telemetry.instrument import AttributeValue
    from openclaw_exporter.telemetry.instruments import Series, Source

_TOPIC = "messaging.destination.name"


class AgentMetrics:
    """The metrics of the node, of its collectors, and whatever else collectors measure.

    Args:
        meter: Where the instruments are made.
        read: Returns the snapshot now.
        view: Returns what the node says now, which is what its heartbeat says.
    """

    def __init__(self, meter: Meter, read: Callable[[], Snapshot], view: Callable[[], NodeView]) -> None:
        self._meter = meter
        self._read = read
        self._view = view
        self._instruments = Instruments(meter)
        self._duration = self._instruments.histogram("openclaw.collector.duration")
        self._known: set[str] = set()
        self._lock = threading.Lock()
        for name, source in (*self._of_node(), *self._of_collectors()):
            self._instruments.observe(name, source)

    def learn(self, snapshot: Snapshot) -> None:
        """Make the instruments of measurements that are seen for the first time."""
        for name in snapshot.measurements.keys() - self._known:
            with self._lock:
                if name not in self._known:
                    self._known.add(name)
                    self._make(name, snapshot)

    def ran(self, loaded: LoadedCollector, seconds: float) -> None:
        """Record how long one collection took."""
        attributes = {"openclaw.plugin": loaded.plugin, "openclaw.collector": loaded.name}
        self._duration.record(seconds, attributes)

    def _make(self, name: str, snapshot: Snapshot) -> None:
        def source() -> Iterable[Series]:
            return [
                (measurement.value, measurement.attributes)
                for measurement in self._read().measurements.get(name, ())
            ]

        if name in CATALOGUE:
            self._instruments.observe(name, source)
            return
        first = snapshot.measurements[name][0]
        observe_with(self._meter, first.kind, name, first.unit, "Measured by a plugin", lambda: [source])

    def _of_node(self) -> Iterator[tuple[str, Source]]:
        def queue(series: Callable[[], Iterable[tuple[float | None, str]]]) -> Source:
            return lambda: [(value, {_TOPIC: topic}) for value, topic in series() if value is not None]

        yield (
            "openclaw.node.capacity",
            lambda: [
                (amount, {"openclaw.resource": resource})
                for resource, amount in self._view().capacity.items()
            ],
        )
        yield "openclaw.node.slots.withheld", lambda: [(self._view().withheld, {})]
        yield (
            "openclaw.node.queue.depth",
            queue(lambda: ((depth.depth, topic) for topic, depth in self._view().queues.items())),
        )
        yield (
            "openclaw.node.queue.oldest_message.age",
            queue(lambda: ((depth.oldest_age, topic) for topic, depth in self._view().queues.items())),
        )
        yield (
            "openclaw.node.uptime",
            lambda: [] if (uptime := self._view().uptime) is None else [(uptime, {})],
        )

    def _of_collectors(self) -> Iterator[tuple[str, Source]]:
        def each(value: Callable[[CollectorState], float | None]) -> Source:
            return lambda: [
                (found, _attributes(state))
                for state in self._read().collectors
                if (found := value(state)) is not None
            ]

        yield "openclaw.collector.healthy", each(_healthy)
        yield "openclaw.collector.errors", self._errors
        yield "openclaw.collector.last_success.timestamp", each(lambda state: state.last_success)
        yield "openclaw.collector.series", each(lambda state: state.series)
        yield "openclaw.collector.series.limit", each(lambda state: state.series_budget)
        yield "openclaw.collector.cpu.time", each(lambda state: state.cpu_seconds)
        yield "openclaw.collector.memory.usage", each(lambda state: state.memory_bytes)

    def _errors(self) -> Iterable[Series]:
        # A missed deadline is the error that every collector can have, so its series is there at 0.
        return [
            (count, {**_attributes(state), "error.type": error_type})
            for state in self._read().collectors
            for error_type, count in {DEADLINE: 0, **state.errors}.items()
        ]


def _healthy(state: CollectorState) -> int | None:
    has_run = state.taken_at or state.error_type is not None
    return int(state.healthy) if has_run else None


def _attributes(state: CollectorState) -> Mapping[str, AttributeValue]:
    return {"openclaw.plugin": state.plugin, "openclaw.collector": state.name}
