"""Our text is what prometheus_client's own writer says, read back by its own parser."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
    UntypedMetricFamily,
)
from prometheus_client.parser import text_string_to_metric_families

from openclaw_exporter.telemetry.text_format import render

if TYPE_CHECKING:
    from collections.abc import Iterable

names = st.from_regex(r"[a-z][a-z_]{2,12}[a-z]", fullmatch=True)
values = st.floats() | st.integers(-(10**18), 10**18)
texts = st.text(max_size=30)
rows = st.lists(st.tuples(texts, texts), min_size=1, max_size=4, unique=True)

# (family's type, comment, samples as name, labels without the empty ones, value)
Read = list[tuple[str, str, list[tuple[str, dict[str, str], str]]]]


class Fixed:
    """A collector of families that are there."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


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


def family_of(
    kind: int, name: str, help_text: str, labels: Iterable[tuple[str, str]], value: float
) -> Metric:
    keys = ("one", "two")
    if kind == 0:
        counter = CounterMetricFamily(name, help_text, labels=keys)
        for row in labels:
            counter.add_metric(row, value)
        return counter
    if kind == 1:
        gauge = GaugeMetricFamily(name, help_text, labels=keys)
        for row in labels:
            gauge.add_metric(row, value)
        return gauge
    if kind == 2:
        histogram = HistogramMetricFamily(name, help_text, labels=keys)
        for row in labels:
            histogram.add_metric(row, [("0.5", 1), ("1.5", 2), ("+Inf", 5)], value)
        return histogram
    if kind == 3:
        info = InfoMetricFamily(name, help_text)
        for one, two in labels:
            info.add_metric((), {"one": one, "two": two})
        return info
    untyped = UntypedMetricFamily(name, help_text, labels=keys)
    for row in labels:
        untyped.add_metric(row, value)
    return untyped


@given(
    st.lists(
        st.tuples(st.integers(0, 4), names, texts, rows, values), max_size=6, unique_by=lambda row: row[1]
    )
)
def test_it_says_what_the_library_says(
    drawn: list[tuple[int, str, str, list[tuple[str, str]], float]],
) -> None:
    families = [family_of(*one) for one in drawn]
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Fixed(families))  # type: ignore[arg-type]
    assert read(render(families)) == read(generate_latest(registry))


@pytest.mark.parametrize(
    ("value", "written"),
    [(float("inf"), "+Inf"), (float("-inf"), "-Inf"), (float("nan"), "NaN"), (3, "3.0"), (1e21, "1e+21")],
)
def test_numbers(value: float, written: str) -> None:
    gauge = GaugeMetricFamily("a", "b", value=value)
    assert render([gauge]) == f"# HELP a b\n# TYPE a gauge\na {written}\n".encode()


def test_a_label_without_a_value_is_left_out() -> None:
    gauge = GaugeMetricFamily("a", "b", labels=["kept", "empty"])
    gauge.add_metric(["x", ""], 1)
    gauge.add_metric(["", ""], 2)
    assert render([gauge]).decode().splitlines()[2:] == ['a{kept="x"} 1.0', "a 2.0"]
