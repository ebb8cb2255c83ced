"""Observed instruments, handed to readers as they are now.

The SDK keeps every set of attributes that it was ever given, looks at all of them at each collection, and
gives up after 2 000: then all further series of the instrument become one. A receiver that runs for months
meets more topics and regions than that, and an agent more mounts and queues. Here a series that is observed
no more is forgotten, and nothing but what is observed now costs anything.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from opentelemetry.sdk.metrics import ObservableCounter, ObservableUpDownCounter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)

from openclaw_exporter.logs import Episodes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from opentelemetry.sdk.metrics.export import MetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    from openclaw_exporter.telemetry.instrument import AttributeValue, Kind
    from openclaw_exporter.telemetry.instruments import Series, Source

_LOGGER: Final = logging.getLogger(__name__)
_SUMS: Final = {"counter": ObservableCounter, "updowncounter": ObservableUpDownCounter}

_Key = frozenset[tuple[str, "AttributeValue"]]


class Observable(NamedTuple):
    """An instrument whose series are asked for at each collection."""

    kind: Kind
    name: str
    unit: str
    description: str
    sources: Callable[[], Iterable[Source]]


class ObservedInstruments:
    """The observed instruments of one meter, and how its readers get them.

    Args:
        resource: What the metrics are about.
        scope: The meter's.
    """

    def __init__(self, resource: Resource, scope: InstrumentationScope) -> None:
        self._resource = resource
        self._scope = scope
        self._observables: dict[str, Observable] = {}
        self._episodes = Episodes(_LOGGER)
        self._lock = threading.Lock()

    def register(
        self,
        kind: Kind,
        name: str,
        unit: str,
        description: str,
        sources: Callable[[], Iterable[Source]],
    ) -> None:
        """Export what the sources yield from the next collection on; the first of a name counts."""
        self._observables.setdefault(name, Observable(kind, name, unit, description, sources))

    def feed(self, reader: MetricReader) -> None:
        """Let a reader that a meter provider has taken collect these instruments too, from now on."""
        collect: Any = reader._collect  # noqa: SLF001 - the SDK has no producer of metrics of one's own
        readings = _Readings(reader)

        def collect_all(which: MetricReader, timeout_millis: float = 10_000) -> MetricsData | None:
            collected: MetricsData | None = collect(which, timeout_millis=timeout_millis)
            # One reader at a time, as in the SDK: sources need not be ready for two.
            with self._lock:
                metrics = readings.metrics(self._observables.values(), self._read)
            return self._joined(collected, metrics)

        reader._collect = collect_all  # type: ignore[assignment] # noqa: SLF001 - as above

    def read(self) -> list[tuple[Observable, list[Series]]]:
        """Return every instrument with its series now; where two are alike the later one counts."""
        with self._lock:
            return [(observable, self._series(observable)) for observable in list(self._observables.values())]

    def _read(self, observable: Observable) -> dict[_Key, tuple[Mapping[str, AttributeValue], float]]:
        return {
            frozenset(attributes.items()): (attributes, value)
            for value, attributes in self._series(observable)
        }

    def _series(self, observable: Observable) -> list[Series]:
        found: list[Series] = []
        failed = False
        for source in tuple(observable.sources()):
            try:
                found.extend(source())
            except Exception as error:  # noqa: BLE001 - one source must not take all other metrics away
                failed = True
                text = f"{observable.name} cannot be read: {type(error).__name__}: {error}"
                self._episodes.begin(observable.name, type(error).__name__, text)
        if not failed:
            self._episodes.end(observable.name, f"{observable.name} can be read again")
        return found

    def _joined(self, collected: MetricsData | None, metrics: list[Metric]) -> MetricsData | None:
        if not metrics:
            return collected
        own = ResourceMetrics(self._resource, [ScopeMetrics(self._scope, metrics, "")], "")
        if collected is None or not collected.resource_metrics:
            return MetricsData([own])
        first, *others = collected.resource_metrics
        scope, *scopes = first.scope_metrics
        extended = ScopeMetrics(scope.scope, [*scope.metrics, *metrics], scope.schema_url)
        return MetricsData([ResourceMetrics(first.resource, [extended, *scopes], first.schema_url), *others])


class _Readings:
    """What one reader has been given of each series that is there: since when, and what last."""

    def __init__(self, reader: MetricReader) -> None:
        by_class = reader._instrument_class_temporality.items()  # noqa: SLF001 - told in no other way
        delta = {found for found, temporality in by_class if temporality is AggregationTemporality.DELTA}
        self._delta = {
            kind: any(issubclass(found, instrument) for found in delta) for kind, instrument in _SUMS.items()
        }
        self._known: dict[str, dict[_Key, tuple[int, float]]] = {}

    def metrics(
        self,
        observables: Iterable[Observable],
        read: Callable[[Observable], dict[_Key, tuple[Mapping[str, AttributeValue], float]]],
    ) -> list[Metric]:
        metrics = []
        for observable in list(observables):
            found = read(observable)
            now = time.time_ns()
            if observable.kind == "gauge":
                never: Any = None  # a gauge has no beginning; the SDK leaves it out in the same way
                data: Any = Gauge(
                    [
                        NumberDataPoint(dict(attributes), never, now, value)
                        for attributes, value in found.values()
                    ]
                )
            else:
                data = self._sum(observable, found, now)
            if found:
                metrics.append(Metric(observable.name, observable.description, observable.unit, data))
        return metrics

    def _sum(
        self,
        observable: Observable,
        found: dict[_Key, tuple[Mapping[str, AttributeValue], float]],
        now: int,
    ) -> Sum:
        delta = self._delta[observable.kind]
        before = self._known.get(observable.name, {})
        known: dict[_Key, tuple[int, float]] = {}
        points = []
        for key, (attributes, value) in found.items():
            start, last = before.get(key, (now, 0.0))
            exported = value
            if delta:
                # A counter that fell has been started anew.
                exported = value if observable.kind == "counter" and value < last else value - last
            points.append(NumberDataPoint(dict(attributes), start, now, exported))
            known[key] = (now if delta else start, value if delta else 0.0)
        self._known[observable.name] = known
        temporality = AggregationTemporality.DELTA if delta else AggregationTemporality.CUMULATIVE
        return Sum(points, temporality, is_monotonic=observable.kind == "counter")
