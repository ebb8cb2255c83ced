"""Histograms for paths where a microsecond counts: plain counting, handed over when somebody collects.

Recording into the SDK's histogram costs 10 to 20 microseconds for each reader. A tally counts in plain lists
(0.4 microseconds), and each reader is given it as an ordinary histogram with the catalogue's name and bounds,
beside what the SDK has collected. It has no exemplars, which are off here anyway.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from opentelemetry.sdk.metrics import Histogram as HistogramInstrument
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    ResourceMetrics,
    ScopeMetrics,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from opentelemetry.metrics import Meter
    from opentelemetry.sdk.metrics.export import MetricReader

    from openclaw_exporter.telemetry.instrument import AttributeValue, Instrument


class TallySeries:
    """One series of a tally: `record` is all that the hot path calls. For one writing thread.

    Args:
        bounds: The upper bounds of the buckets, inclusive as OpenTelemetry's are.
    """

    __slots__ = ("_bounds", "_counts", "_max", "_min", "_sum", "start_ns")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self._min = float("inf")
        self._max = float("-inf")
        self.start_ns = time.time_ns()

    def record(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value
        # Not min() and max(): they cost as much as all the rest.
        if value < self._min:  # noqa: PLR1730
            self._min = value
        if value > self._max:  # noqa: PLR1730
            self._max = value

    def add(self, counts: Iterable[int], total: float, least: float, greatest: float) -> None:
        """Count what another process has counted, as `take` returned it there."""
        self._counts = [mine + more for mine, more in zip(self._counts, counts, strict=True)]
        self._sum += total
        self._min, self._max = min(self._min, least), max(self._max, greatest)

    def take(self) -> tuple[list[int], float, float, float]:
        """Return what was counted since the last call, to be counted elsewhere."""
        taken = self.read(anew=True)
        self._counts, self._sum = [0] * len(self._counts), 0.0
        return taken

    def read(self, *, anew: bool) -> tuple[list[int], float, float, float]:
        """Return the counts by bucket, the sum, the least and the greatest value so far.

        Args:
            anew: Whether the least and the greatest are then looked for anew.
        """
        read = self._counts.copy(), self._sum, self._min, self._max
        if anew:
            self._min, self._max = float("inf"), float("-inf")
        return read


class Tally:
    """A histogram of the catalogue.

    Args:
        definition: The catalogue's row.
    """

    def __init__(self, definition: Instrument) -> None:
        self.definition = definition
        self._bounds = definition.bounds or ()
        self._series: dict[frozenset[tuple[str, AttributeValue]], TallySeries] = {}

    def series(self, attributes: Mapping[str, AttributeValue] | None = None) -> TallySeries:
        """Return the series of some attributes; it exists from now on. Keep it: looking it up is not free."""
        key = frozenset((attributes or {}).items())
        known = self._series.get(key)
        if known is None:
            known = self._series[key] = TallySeries(self._bounds)
        return known

    def all(self) -> Iterable[tuple[dict[str, AttributeValue], TallySeries]]:
        """Return every series with its attributes."""
        return [(dict(key), series) for key, series in list(self._series.items())]


class Tallies:
    """The tallies of one meter, and how its readers get them."""

    def __init__(self) -> None:
        self._tallies: dict[str, Tally] = {}

    def get(self, definition: Instrument) -> Tally:
        """Return the tally of an instrument; the same one for each caller."""
        return self._tallies.setdefault(definition.name, Tally(definition))

    def read(self) -> list[Metric]:
        """Return each tally that has counted anything, since the start."""
        return self._metrics(_Readings(delta=False))

    def feed(self, reader: MetricReader) -> None:
        """Let a reader receive the tallies with all that it collects from now on."""
        receive = reader._receive_metrics  # noqa: SLF001 - documented to be overridden
        by_kind = reader._instrument_class_temporality.items()  # noqa: SLF001 - told in no other way
        temporality = {value for kind, value in by_kind if issubclass(kind, HistogramInstrument)}
        readings = _Readings(delta=AggregationTemporality.DELTA in temporality)

        def receive_all(metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> None:
            metrics = self._metrics(readings)
            receive(_with(metrics_data, metrics), timeout_millis=timeout_millis, **kwargs)

        reader._receive_metrics = receive_all  # type: ignore[method-assign] # noqa: SLF001 - as above

    def _metrics(self, readings: _Readings) -> list[Metric]:
        return [metric for tally in list(self._tallies.values()) if (metric := readings.metric(tally))]


class _Readings:
    """What one reader has been given, where it asks for differences."""

    def __init__(self, *, delta: bool) -> None:
        self._delta = delta
        self._last: dict[TallySeries, tuple[list[int], float, int]] = {}

    def metric(self, tally: Tally) -> Metric | None:
        now = time.time_ns()
        points = [
            point
            for attributes, series in tally.all()
            if (point := self._point(tally, attributes, series, now))
        ]
        if not points:
            return None
        temporality = AggregationTemporality.DELTA if self._delta else AggregationTemporality.CUMULATIVE
        definition = tally.definition
        return Metric(
            definition.name, definition.description, definition.unit, Histogram(points, temporality)
        )

    def _point(
        self, tally: Tally, attributes: dict[str, AttributeValue], series: TallySeries, now: int
    ) -> HistogramDataPoint | None:
        counts, total, least, greatest = series.read(anew=self._delta)
        start = series.start_ns
        if self._delta:
            before, total_before, start = self._last.get(series, ([0] * len(counts), 0.0, start))
            self._last[series] = (counts, total, now)
            counts, total = [new - old for new, old in zip(counts, before, strict=True)], total - total_before
        count = sum(counts)
        if not count:
            return None
        return HistogramDataPoint(
            attributes=attributes,
            start_time_unix_nano=start,
            time_unix_nano=now,
            count=count,
            sum=total,
            bucket_counts=counts,
            explicit_bounds=tally.definition.bounds or (),
            min=least,
            max=greatest,
        )


_OF_METERS: Final[WeakKeyDictionary[Meter, Tallies]] = WeakKeyDictionary()


def tallies_of(meter: Meter) -> Tallies:
    """Return the tallies of a meter; those of a meter without readers of ours are counted and go nowhere."""
    return _OF_METERS.setdefault(meter, Tallies())


def _with(metrics_data: MetricsData, metrics: list[Metric]) -> MetricsData:
    """Return what was collected with further metrics in its first scope."""
    if not metrics:
        return metrics_data
    resource, *resources = metrics_data.resource_metrics
    scope, *scopes = resource.scope_metrics
    extended = ScopeMetrics(scope.scope, [*scope.metrics, *metrics], scope.schema_url)
    first = ResourceMetrics(resource.resource, [extended, *scopes], resource.schema_url)
    return MetricsData([first, *resources])
