"""Prometheus' text format, version 0.0.4, out of what OpenTelemetry's SDK has collected.

Label sets hardly change from scrape to scrape, and checking and escaping them costs more than all the rest of
one: here each is written once and remembered.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from opentelemetry.sdk.metrics.export import Gauge, Histogram, Sum

from openclaw_exporter.telemetry.prometheus_names import label_name, label_value, metric_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from opentelemetry.sdk.metrics.export import HistogramDataPoint, Metric

    from openclaw_exporter.telemetry.instrument import AttributeValue

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

PROMOTED: Final = frozenset(
    {"service.instance.id", "host.name", "deployment.environment.name", "cloud.region"}
)
"""Resource attributes that become labels of every series, as Prometheus promotes them from OTLP."""

_REMEMBERED: Final = 4096


class TextFormat:
    """Writes the metrics of one resource, and remembers the names and label sets that it wrote.

    Args:
        resource: The attributes of what the metrics are about. All of them stand in `target_info`, those in
            `PROMOTED` on every series.
    """

    def __init__(self, resource: Mapping[str, object]) -> None:
        self._about = _labels({label_name(key): label_value(value) for key, value in resource.items()})
        self._promoted = {
            label_name(key): label_value(value) for key, value in resource.items() if key in PROMOTED
        }
        # Typed, because 1, 1.0 and True are equal and are written in three ways.
        self._labels = lru_cache(_REMEMBERED, typed=True)(self._write_labels)

    def page(self) -> Page:
        """Return an empty page."""
        return Page(self)

    @property
    def target_info(self) -> str:
        """The family that says what the metrics are about."""
        return f"{_head('target_info', 'gauge', 'Target metadata')}target_info{_closed(self._about)} 1.0\n"

    def labels(self, attributes: Mapping[str, AttributeValue]) -> str:
        """Return a series' labels, without the braces; a label without a value is left out.

        To Prometheus that is the same series.
        """
        return self._labels(tuple(attributes), *attributes.values())

    def _write_labels(self, keys: tuple[str, ...], *values: object) -> str:
        own = {label_name(key): label_value(value) for key, value in zip(keys, values, strict=True)}
        return _labels(self._promoted | own)


class Page:
    """One reading of all metrics.

    Families of one name, kind and description become one, in the order in which they come.

    Args:
        text_format: What writes its labels.
    """

    def __init__(self, text_format: TextFormat) -> None:
        self._format = text_format
        # A series is written once, whoever hands it over twice: Prometheus refuses a page that repeats one.
        self._families: dict[str, dict[str, float]] = {}

    def add(
        self,
        kind: str,
        name: str,
        unit: str,
        description: str,
        series: Iterable[tuple[float, Mapping[str, AttributeValue]]],
    ) -> None:
        """Write an instrument's series.

        Args:
            kind: `counter`; what adds up otherwise, and what does not, is a gauge to Prometheus.
            name: The instrument's, not Prometheus'.
            unit: UCUM.
            description: One sentence.
            series: Values with their attributes.
        """
        written = _name(name, unit, kind == "counter")
        labels = self._format.labels
        rows = {written + _closed(labels(attributes)): value for value, attributes in series}
        if rows:
            head = _head(written, "counter" if kind == "counter" else "gauge", description)
            self._families.setdefault(head, {}).update(rows)

    def add_metric(self, metric: Metric) -> None:
        """Write what the SDK has collected of one instrument; cumulative, and no exponential histogram."""
        data = metric.data
        if isinstance(data, Histogram):
            written = _name(metric.name, metric.unit or "", False)
            family = self._families.setdefault(_head(written, "histogram", metric.description or ""), {})
            for histogram in data.data_points:
                family.update(self._histogram(written, histogram))
        elif isinstance(data, (Sum, Gauge)):
            kind = "counter" if isinstance(data, Sum) and data.is_monotonic else "gauge"
            points: list[tuple[float, Mapping[str, AttributeValue]]] = [
                (point.value, point.attributes or {})  # type: ignore[misc] # the SDK's own attributes may be lists
                for point in data.data_points
            ]
            self.add(kind, metric.name, metric.unit or "", metric.description or "", points)

    def text(self) -> bytes:
        """Return the page; empty where there is no metric at all."""
        if not self._families:
            return b""
        parts = [self._format.target_info]
        for head, rows in self._families.items():
            parts.append(head)
            parts.extend([f"{series} {_number(value)}\n" for series, value in rows.items()])
        return "".join(parts).encode()

    def _histogram(self, name: str, point: HistogramDataPoint) -> Iterable[tuple[str, float]]:
        labels = self._format.labels(point.attributes or {})  # type: ignore[arg-type] # as above
        comma = "," if labels else ""
        total = 0
        for bound, count in zip((*point.explicit_bounds, "+Inf"), point.bucket_counts, strict=True):
            total += count
            yield f'{name}_bucket{{{labels}{comma}le="{bound}"}}', total
        yield f"{name}_count{_closed(labels)}", total
        yield f"{name}_sum{_closed(labels)}", point.sum


@lru_cache(_REMEMBERED)
def _name(name: str, unit: str, counter: bool) -> str:  # noqa: FBT001 - a cache takes it by its place
    return metric_name(name, unit, counter=counter)


@lru_cache(_REMEMBERED)
def _head(name: str, kind: str, description: str) -> str:
    text = description.replace("\\", r"\\").replace("\n", r"\n")
    return f"# HELP {name} {text}\n# TYPE {name} {kind}\n"


def _labels(values: Mapping[str, str]) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in sorted(values.items()) if value)


def _closed(labels: str) -> str:
    return f"{{{labels}}}" if labels else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    text = repr(float(value))
    if text[-1] in "fn":
        return {"inf": "+Inf", "-inf": "-Inf"}.get(text, "NaN")
    return text
