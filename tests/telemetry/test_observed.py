"""Observed instruments as readers get them: what is there now, however many were there before."""

from __future__ import annotations

import gc
import io
import logging
import weakref
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families
from telemetry.otlp_collectors import HttpCollector

from openclaw_exporter.telemetry.instruments import Instruments, registrar_of
from openclaw_exporter.telemetry.provider import Telemetry
from openclaw_exporter.telemetry.settings import OtlpSettings, PrometheusSettings, TelemetrySettings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DEPTH = "openclaw.node.queue.depth"
TOPIC = "messaging.destination.name"
CPU = "system.cpu.time"
Rows = list[tuple[float, "Mapping[str, str]"]]


@pytest.fixture
def collector() -> Iterator[HttpCollector]:
    collector = HttpCollector()
    yield collector
    collector.close()


def started(collector: HttpCollector | None = None) -> Telemetry:
    otlp = OtlpSettings(enabled=False)
    if collector is not None:
        otlp = OtlpSettings(enabled=True, endpoint=collector.endpoint, interval=3600)
    settings = TelemetrySettings(otlp=otlp, prometheus=PrometheusSettings(enabled=False))
    return Telemetry.start(settings, service="openclaw-exporter", node_id="node")


def scraped(telemetry: Telemetry, name: str) -> dict[str, float]:
    """Return topic → value of a metric's series."""
    found = {}
    for family in text_string_to_metric_families(telemetry.exposition().decode()):
        for sample in family.samples:
            if sample.name == name:
                found[sample.labels.get("messaging_destination_name", "")] = sample.value
    return found


def test_topics_without_end_never_become_one(collector: HttpCollector) -> None:
    telemetry = started(collector)
    rows: Rows = []
    Instruments(telemetry.meter).observe(DEPTH, lambda: rows)
    for number in range(2500):
        rows[:] = [(number, {TOPIC: f"topic-{number}"})]
        if number % 50 == 0:
            assert scraped(telemetry, "openclaw_node_queue_depth") == {f"topic-{number}": number}
    # The SDK's own limit of attribute sets, at one collection.
    rows[:] = [(number, {TOPIC: f"other-{number}"}) for number in range(2500)]
    assert len(scraped(telemetry, "openclaw_node_queue_depth")) == 2500
    telemetry.export()
    assert len(collector.series(DEPTH)) == 2500
    telemetry.shutdown()


def test_two_sources_of_one_series_are_one_series(collector: HttpCollector) -> None:
    telemetry = started(collector)
    first, second = Instruments(telemetry.meter), Instruments(telemetry.meter)
    first.observe(DEPTH, lambda: [(1, {TOPIC: "a"}), (2, {TOPIC: "b"})])
    second.observe(DEPTH, lambda: [(3, {TOPIC: "b"})])
    telemetry.export()
    assert collector.series(DEPTH) == {((TOPIC, "a"),): 1, ((TOPIC, "b"),): 3}
    second.close()
    telemetry.export()
    assert collector.series(DEPTH) == {((TOPIC, "a"),): 1, ((TOPIC, "b"),): 2}
    telemetry.shutdown()


def points(collector: HttpCollector, name: str) -> dict[str, tuple[int, float]]:
    """Return of the last export: mode → start and value of a sum's points."""
    for scope in collector.requests[-1].resource_metrics[0].scope_metrics:
        for metric in scope.metrics:
            if metric.name == name:
                return {
                    point.attributes[0].value.string_value: (point.start_time_unix_nano, point.as_double)
                    for point in metric.sum.data_points
                }
    return {}


def test_a_counter_keeps_its_beginning_until_its_source_is_gone(collector: HttpCollector) -> None:
    telemetry = started(collector)
    rows: Rows = [(5.0, {"cpu.mode": "user"})]
    instruments = Instruments(telemetry.meter)
    instruments.observe(CPU, lambda: rows)
    instruments.counter("openclaw.publish.success_total")
    telemetry.export()
    began, value = points(collector, CPU)["user"]
    assert value == 5.0
    rows[:] = [(7.0, {"cpu.mode": "user"})]
    telemetry.export()
    assert points(collector, CPU)["user"] == (began, 7.0)
    rows.clear()
    telemetry.export()
    assert points(collector, CPU) == {}
    rows[:] = [(1.0, {"cpu.mode": "user"})]
    telemetry.export()
    again, value = points(collector, CPU)["user"]
    assert again > began
    assert value == 1.0
    telemetry.shutdown()


def test_differences_where_a_back_end_wants_them(
    collector: HttpCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta")
    telemetry = started(collector)
    rows: Rows = []
    instruments = Instruments(telemetry.meter)
    instruments.observe(CPU, lambda: rows)
    instruments.observe(DEPTH, lambda: [(4, {TOPIC: "a"})])
    exported = []
    for total in (5.0, 7.5, 7.5, 2.0):  # at last the source began anew
        rows[:] = [(total, {"cpu.mode": "user"})]
        telemetry.export()
        exported.append(points(collector, CPU)["user"])
        assert collector.series(DEPTH) == {((TOPIC, "a"),): 4}  # what adds up over nodes stays as it is
    assert [value for _, value in exported] == [5.0, 2.5, 0.0, 2.0]
    starts = [start for start, _ in exported]
    assert starts[1:] == sorted(set(starts[1:]))
    assert scraped(telemetry, "system_cpu_time_seconds_total") == {"": 2.0}
    telemetry.shutdown()


def test_a_source_that_fails_takes_nothing_else_away_and_is_named_once() -> None:
    stream = io.StringIO()
    logger = logging.getLogger("openclaw_exporter")
    handler = logging.StreamHandler(stream)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    telemetry = started()
    broken = [True]

    def source() -> Rows:
        if broken:
            raise ValueError("canary")
        return [(1, {TOPIC: "a"})]

    instruments = Instruments(telemetry.meter)
    instruments.observe(DEPTH, source)
    instruments.observe("openclaw.node.uptime", lambda: [(5, {})])
    for _ in range(3):
        assert scraped(telemetry, "openclaw_node_uptime_seconds") == {"": 5}
        assert scraped(telemetry, "openclaw_node_queue_depth") == {}
    broken.clear()
    assert scraped(telemetry, "openclaw_node_queue_depth") == {"a": 1}
    telemetry.shutdown()
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)
    lines = stream.getvalue().splitlines()
    assert lines[0] == f"{DEPTH} cannot be read: ValueError: canary"
    assert lines[1].startswith(f"{DEPTH} can be read again")
    assert len(lines) == 2


def test_where_the_sdk_is_disabled_nothing_is_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    telemetry = started()
    Instruments(telemetry.meter).observe(DEPTH, lambda: [(1, {TOPIC: "a"})])
    assert scraped(telemetry, "openclaw_node_queue_depth") == {}
    telemetry.shutdown()


def test_a_set_up_that_is_over_leaves_nothing_behind() -> None:
    def run() -> weakref.ref[object]:
        telemetry = started()
        meter = telemetry.meter
        # What is observed knows the meter, as an agent's metrics do.
        Instruments(meter).observe(DEPTH, lambda: [(1, {TOPIC: str(meter)})])
        registrar = registrar_of(meter)
        telemetry.shutdown()
        return weakref.ref(registrar)

    left = run()
    gc.collect()
    assert left() is None
