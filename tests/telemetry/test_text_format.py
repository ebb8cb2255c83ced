"""Our text is what OpenTelemetry's own exporter says of the same metrics, read back by Prometheus' parser."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from openclaw_exporter.telemetry.text_format import PROMOTED, Page, TextFormat

if TYPE_CHECKING:
    from collections.abc import Mapping

RESOURCE: dict[str, Any] = {
    "service.name": "openclaw-exporter",
    "service.instance.id": "0b1e8a5e",
    "host.name": 'no"de\\1\n',
    "process.command_args": ("a", "b"),
}
SCOPE = InstrumentationScope("test", "1")
BOUNDS = (0.005, 0.25, 2.5)
CUMULATIVE = AggregationTemporality.CUMULATIVE

names = st.from_regex(r"[a-z][a-z0-9._/-]{2,12}[a-z](_total|_seconds|\.total)?", fullmatch=True)
units = st.sampled_from(
    ["", "1", "s", "ms", "By", "KiBy", "%", "{task}", "By/s", "m/h", "/s", "{a}/s", "furlong", "kg.m", "a/"]
) | st.text(max_size=6)
values = st.floats() | st.integers(-(10**18), 10**18)
keys = st.from_regex(r"[a-z0-9][a-z._-]{0,8}[a-z]", fullmatch=True)
attributes = st.dictionaries(
    keys, st.text(max_size=20) | st.booleans() | st.integers() | st.floats(allow_nan=False), max_size=4
)

# (family's type, comment, samples as name, labels without the empty ones, value)
Read = list[tuple[str, str, list[tuple[str, dict[str, str], str]]]]


def read(text: bytes) -> Read:
    return [
        (
            family.type,
            family.documentation,
            [
                (
                    sample.name,
                    {name: value for name, value in sample.labels.items() if value},
                    repr(sample.value),
                )
                for sample in family.samples
            ],
        )
        for family in text_string_to_metric_families(text.decode())
    ]


def collected(*metrics: Metric) -> MetricsData:
    return MetricsData([ResourceMetrics(Resource(RESOURCE), [ScopeMetrics(SCOPE, list(metrics), "")], "")])


def theirs(data: MetricsData) -> bytes:
    """Return the text of OpenTelemetry's exporter and Prometheus' writer."""
    registry = CollectorRegistry(auto_describe=False)
    reader = PrometheusMetricReader(
        scope_info_enabled=False, resource_attribute_filter=PROMOTED.__contains__, registry=registry
    )
    reader._collector._callback = None
    reader._receive_metrics(data)
    return generate_latest(registry)


def ours(*metrics: Metric) -> bytes:
    page = Page(TextFormat(RESOURCE))
    for metric in metrics:
        page.add_metric(metric)
    return page.text()


def metric_of(kind: int, name: str, unit: str, text: str, rows: list[tuple[Any, float]]) -> Metric:
    if kind == 3:
        histogram = [
            HistogramDataPoint(row, 1, 2, 8, abs(value), [1, 2, 0, 5], BOUNDS, 0.0, 9.0)
            for row, value in rows
        ]
        return Metric(name, text, unit, Histogram(histogram, CUMULATIVE))
    points = [NumberDataPoint(row, 1, 2, value) for row, value in rows]
    data = Gauge(points) if kind == 0 else Sum(points, CUMULATIVE, is_monotonic=kind == 1)
    return Metric(name, text, unit, data)


@st.composite
def metrics(draw: st.DrawFn) -> list[Metric]:
    drawn = draw(st.lists(st.tuples(st.integers(0, 3), names, units, st.text(max_size=30)), max_size=5))
    made: dict[str, Metric] = {}
    format_ = TextFormat(RESOURCE)
    for kind, name, unit, text in drawn:
        rows: dict[str, tuple[Mapping[str, Any], float]] = {}
        for row, value in draw(st.lists(st.tuples(attributes, values), min_size=1, max_size=4)):
            # Where two sets of attributes make the same labels the exporter repeats a series; ours does not.
            rows.setdefault(format_.labels(row), (row, value))
        metric = metric_of(kind, name, unit, text, list(rows.values()))
        page = Page(format_)
        page.add_metric(metric)
        # Nor are there two families of one name, which the catalogue and the agent's check of names rule out.
        made.setdefault(read(page.text())[1][2][0][0].removesuffix("_bucket"), metric)
    return list(made.values())


@given(metrics())
def test_it_says_what_the_library_says(drawn: list[Metric]) -> None:
    expected = read(theirs(collected(*drawn))) if drawn else []
    assert read(ours(*drawn)) == expected


@pytest.mark.parametrize(
    ("value", "written"),
    [(float("inf"), "+Inf"), (float("-inf"), "-Inf"), (float("nan"), "NaN"), (3, "3.0"), (1e21, "1e+21")],
)
def test_numbers(value: float, written: str) -> None:
    page = TextFormat({}).page()
    page.add("gauge", "a", "", "b", [(value, {})])
    assert page.text().decode().splitlines()[-3:] == ["# HELP a b", "# TYPE a gauge", f"a {written}"]


def test_a_label_without_a_value_is_left_out() -> None:
    page = TextFormat({}).page()
    page.add("gauge", "a", "", "b", [(1, {"kept": "x", "empty": ""}), (2, {"kept": "", "empty": ""})])
    assert page.text().decode().splitlines()[-2:] == ['a{kept="x"} 1.0', "a 2.0"]


def test_attributes_that_are_equal_in_python_are_written_as_what_they_are() -> None:
    page = TextFormat({}).page()
    page.add("gauge", "a", "", "b", [(1, {"k": True}), (2, {"k": 1}), (3, {"k": 1.0}), (4, {"k": "1"})])
    assert page.text().decode().splitlines()[-3:] == ['a{k="true"} 1.0', 'a{k="1"} 4.0', 'a{k="1.0"} 3.0']


def test_a_series_that_comes_twice_is_written_once_and_families_of_one_name_are_one() -> None:
    page = TextFormat({}).page()
    page.add("counter", "a.b", "s", "c", [(1, {"k": "x"}), (2, {"k": "y"})])
    page.add("counter", "a.b", "s", "c", [(3, {"k": "x"})])
    text = page.text().decode()
    assert text.count("# TYPE a_b_seconds_total counter") == 1
    assert text.splitlines()[-2:] == ['a_b_seconds_total{k="x"} 3.0', 'a_b_seconds_total{k="y"} 2.0']


def test_a_page_without_metrics_is_empty() -> None:
    page = TextFormat(RESOURCE).page()
    page.add("gauge", "a", "", "b", [])
    assert page.text() == b""
