"""Instruments over the real SDK."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, Metric

from openclaw_exporter.telemetry.catalogue import CATALOGUE
from openclaw_exporter.telemetry.instruments import Instruments

if TYPE_CHECKING:
    from collections.abc import Iterator


class Read:
    """A meter, and what it exports."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader], shutdown_on_exit=False)
        self.meter = self.provider.get_meter("test")

    def metrics(self) -> dict[str, Metric]:
        exported = self.reader.get_metrics_data()
        if exported is None:
            return {}
        return {
            metric.name: metric
            for resource in exported.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def series(self, name: str) -> dict[tuple[tuple[str, object], ...], float]:
        metric = self.metrics().get(name)
        points = metric.data.data_points if metric else ()
        return {tuple(sorted((point.attributes or {}).items())): point.value for point in points}  # type: ignore[union-attr]


@pytest.fixture
def read() -> Iterator[Read]:
    read = Read()
    yield read
    read.provider.shutdown()


def test_every_counter_exists_at_zero_from_the_start(read: Read) -> None:
    instruments = Instruments(read.meter)
    counters = [name for name, instrument in CATALOGUE.items() if instrument.kind == "counter"]
    for name in counters:
        instruments.counter(name)
    exported = read.metrics()
    assert set(exported) == set(counters)
    for metric in exported.values():
        assert {point.value for point in metric.data.data_points} == {0}
    assert set(read.series("openclaw.registry.heartbeat.received")) == {
        (("openclaw.result", result),) for result in ("recorded", "duplicate", "history")
    }


@pytest.mark.parametrize("name", [n for n, i in CATALOGUE.items() if i.kind == "histogram"])
def test_histograms_have_the_catalogues_bounds(read: Read, name: str) -> None:
    Instruments(read.meter).histogram(name).record(0.3)
    metric = read.metrics()[name]
    (point,) = metric.data.data_points
    assert tuple(point.explicit_bounds) == CATALOGUE[name].bounds  # type: ignore[union-attr]
    assert (metric.unit, metric.description) == (CATALOGUE[name].unit, CATALOGUE[name].description)


def test_the_kinds_are_the_catalogues(read: Read) -> None:
    instruments = Instruments(read.meter)
    instruments.gauge("openclaw.registry.loop.lag").set(0.5)
    instruments.up_down("openclaw.buffer.usage").add(3)
    instruments.observe("openclaw.node.uptime", lambda: [(12.0, {})])
    instruments.observe("system.cpu.time", lambda: [(7.5, {"cpu.mode": "user"})])
    instruments.observe("openclaw.node.capacity", lambda: [(4, {"openclaw.resource": "workers"})])
    exported = read.metrics()
    kinds = {
        name: (type(metric.data).__name__, getattr(metric.data, "is_monotonic", None))
        for name, metric in exported.items()
    }
    assert kinds == {
        "openclaw.registry.loop.lag": ("Gauge", None),
        "openclaw.buffer.usage": ("Sum", False),
        "openclaw.node.uptime": ("Gauge", None),
        "system.cpu.time": ("Sum", True),
        "openclaw.node.capacity": ("Sum", False),
    }


def test_an_observed_series_disappears_with_its_source(read: Read) -> None:
    rows = [(1.0, {"openclaw.resource": "workers"}), (2.0, {"openclaw.resource": "gpus"})]
    Instruments(read.meter).observe("openclaw.node.capacity", lambda: rows)
    assert len(read.series("openclaw.node.capacity")) == 2
    rows.pop()
    assert read.series("openclaw.node.capacity") == {(("openclaw.resource", "workers"),): 1.0}
    rows.clear()
    assert "openclaw.node.capacity" not in read.metrics()


def test_several_share_a_meter_until_closed(read: Read) -> None:
    first, second = Instruments(read.meter), Instruments(read.meter)
    first.counter("openclaw.publish.success_total").add(2)
    first.observe("openclaw.credential.not_after", lambda: [(1.0, {"openclaw.credential": "token"})])
    second.observe("openclaw.credential.not_after", lambda: [(2.0, {"openclaw.credential": "ca"})])
    assert sorted(read.series("openclaw.credential.not_after").values()) == [1.0, 2.0]
    first.close()
    second.counter("openclaw.publish.success_total").add(1)
    assert list(read.series("openclaw.credential.not_after").values()) == [2.0]
    assert read.series("openclaw.publish.success_total") == {(): 3}
    second.observe("openclaw.credential.not_after", lambda: [(3.0, {"openclaw.credential": "certificate"})])
    assert sorted(read.series("openclaw.credential.not_after").values()) == [2.0, 3.0]


@pytest.mark.parametrize(
    ("method", "name", "text"),
    [
        ("counter", "openclaw.nonsense", "no instrument 'openclaw.nonsense'"),
        ("counter", "openclaw.node.uptime", "is a gauge in the catalogue, not a counter"),
        ("histogram", "openclaw.node.uptime", "not a histogram"),
        ("gauge", "openclaw.latency_seconds", "is a histogram"),
        ("up_down", "openclaw.latency_seconds", "is a histogram"),
        ("observe", "openclaw.latency_seconds", "is a histogram"),
    ],
)
def test_what_the_catalogue_does_not_say_is_refused(read: Read, method: str, name: str, text: str) -> None:
    create = getattr(Instruments(read.meter), method)
    arguments = (name, list) if method == "observe" else (name,)
    with pytest.raises(KeyError, match=text):
        create(*arguments)


def used_and_dropped() -> weakref.ref[object]:
    read = Read()
    instruments = Instruments(read.meter)
    instruments.observe("openclaw.node.uptime", lambda: [(1.0, {"meter": str(read.meter)})])
    instruments.counter("openclaw.publish.success_total")
    assert read.metrics()
    read.provider.shutdown()
    return weakref.ref(read.meter)


def test_nothing_keeps_a_meter_that_its_user_dropped() -> None:
    gone = used_and_dropped()
    gc.collect()
    assert gone() is None
