"""What an OTLP collector receives, over real HTTP and gRPC, and what one that is away costs."""

from __future__ import annotations

import io
import logging
import time
from typing import TYPE_CHECKING

import pytest
from telemetry.otlp_collectors import GrpcCollector, HttpCollector

from openclaw_exporter.errors import UserError
from openclaw_exporter.telemetry.instruments import Instruments
from openclaw_exporter.telemetry.provider import Telemetry
from openclaw_exporter.telemetry.settings import OtlpSettings, PrometheusSettings, TelemetrySettings
from support.ports import free_port
from support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

NODE = "0b1e8a5e-6f43-4f0c-9a55-1f1a1f6d3c11"


@pytest.fixture
def collector() -> Iterator[HttpCollector]:
    collector = HttpCollector()
    yield collector
    collector.close()


@pytest.fixture
def grpc_collector() -> Iterator[GrpcCollector]:
    collector = GrpcCollector()
    yield collector
    collector.close()


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What reaches the root logger's handlers."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield stream
    root.setLevel(level)
    root.removeHandler(handler)


def started(otlp: OtlpSettings) -> Telemetry:
    settings = TelemetrySettings(otlp=otlp, prometheus=PrometheusSettings(enabled=False))
    return Telemetry.start(
        settings, service="openclaw-exporter", node_id=NODE, resource={"host.name": "node-1"}
    )


def check_values(telemetry: Telemetry, collector: HttpCollector | GrpcCollector) -> None:
    instruments = Instruments(telemetry.meter)
    instruments.counter("openclaw.publish.success_total").add(4)
    instruments.histogram("openclaw.latency_seconds").record(0.2, {"http.response.status_code": 200})
    instruments.observe("openclaw.node.queue.depth", lambda: [(9, {"messaging.destination.name": "tasks"})])
    telemetry.shutdown(timeout=60)
    assert collector.series("openclaw.publish.success_total") == {(): 4}
    assert collector.series("openclaw.latency_seconds") == {(("http.response.status_code", 200),): 1}
    assert collector.series("openclaw.node.queue.depth") == {(("messaging.destination.name", "tasks"),): 9}
    resource = collector.resource()
    assert resource["service.name"] == "openclaw-exporter"
    assert resource["service.instance.id"] == NODE
    assert resource["host.name"] == "node-1"
    assert "service.namespace" not in resource


def test_http_by_its_base_url(collector: HttpCollector) -> None:
    telemetry = started(OtlpSettings(enabled=True, endpoint=collector.endpoint))
    check_values(telemetry, collector)
    assert collector.headers[-1]["path"] == "/v1/metrics"


def test_grpc(grpc_collector: GrpcCollector) -> None:
    telemetry = started(OtlpSettings(enabled=True, endpoint=grpc_collector.endpoint, protocol="grpc"))
    check_values(telemetry, grpc_collector)


def test_exports_come_at_every_interval_and_a_gone_series_is_left_out(
    collector: HttpCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "50")
    telemetry = started(OtlpSettings(enabled=True, endpoint=collector.endpoint))
    rows = [(1.0, {"messaging.destination.name": "tasks"})]
    instruments = Instruments(telemetry.meter)
    instruments.counter("openclaw.publish.success_total")
    instruments.observe("openclaw.node.queue.depth", lambda: rows)
    wait_until(lambda: collector.requests and collector.series("openclaw.node.queue.depth"))
    rows.clear()
    wait_until(lambda: not collector.series("openclaw.node.queue.depth"))
    assert collector.series("openclaw.publish.success_total") == {(): 0}
    telemetry.shutdown()


def test_the_standard_variables_are_respected(
    collector: HttpCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint + "/under/")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=blue")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta")
    telemetry = started(OtlpSettings(enabled=True))
    counter = Instruments(telemetry.meter).counter("openclaw.publish.success_total")
    counter.add(3)
    telemetry.shutdown(timeout=60)
    headers = collector.headers[-1]
    assert headers["path"] == "/under/v1/metrics"
    assert headers["x-tenant"] == "blue"
    assert headers["content-encoding"] == "gzip"
    metric = collector.requests[-1].resource_metrics[0].scope_metrics[0].metrics[0]
    assert metric.sum.aggregation_temporality == 1  # AGGREGATION_TEMPORALITY_DELTA


def test_a_configured_endpoint_wins_over_the_variable(
    collector: HttpCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    telemetry = started(OtlpSettings(enabled=True, endpoint=collector.endpoint + "/v1/metrics"))
    Instruments(telemetry.meter).counter("openclaw.publish.success_total")
    telemetry.shutdown(timeout=60)
    assert collector.headers[-1]["path"] == "/v1/metrics"


def test_the_protocol_variable_is_respected(
    grpc_collector: GrpcCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "grpc")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", grpc_collector.endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "60")
    telemetry = started(OtlpSettings(enabled=True))
    check_values(telemetry, grpc_collector)


def test_every_key_that_is_set_wins_over_its_variable(
    collector: HttpCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that is set to what it would have been anyway."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.001")
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "3600000")
    otlp = OtlpSettings(
        enabled=True, endpoint=collector.endpoint, protocol="http/protobuf", interval=1, timeout=30
    )
    telemetry = started(otlp)
    Instruments(telemetry.meter).counter("openclaw.publish.success_total").add(2)
    wait_until(lambda: collector.requests)
    telemetry.shutdown()


def test_the_metrics_variable_wins_over_the_general_one_and_is_used_as_it_is(
    collector: HttpCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", f"{collector.endpoint}/own/path")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=blue,x-other=1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "x-tenant=a%20b")
    telemetry = started(OtlpSettings(enabled=True))
    Instruments(telemetry.meter).counter("openclaw.publish.success_total")
    telemetry.shutdown(timeout=60)
    assert collector.headers[-1]["path"] == "/own/path"
    assert collector.headers[-1]["x-tenant"] == "a b"


def test_grpc_takes_headers_and_compression(
    grpc_collector: GrpcCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=blue")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    telemetry = started(OtlpSettings(enabled=True, endpoint=grpc_collector.endpoint, protocol="grpc"))
    check_values(telemetry, grpc_collector)
    assert grpc_collector.headers[-1]["x-tenant"] == "blue"


@pytest.mark.parametrize(
    ("variables", "pushes"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:4318"}, True),
        ({"OTEL_METRICS_EXPORTER": "otlp"}, True),
        ({"OTEL_METRICS_EXPORTER": "prometheus, OTLP"}, True),
        ({"OTEL_METRICS_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, False),
    ],
)
def test_the_variables_switch_it_on_where_the_configuration_says_nothing(
    variables: dict[str, str], *, pushes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert OtlpSettings().pushes is pushes
    assert OtlpSettings(enabled=True).pushes
    assert not OtlpSettings(enabled=False).pushes


def test_the_variable_alone_brings_metrics_to_a_collector(
    collector: HttpCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
    telemetry = started(OtlpSettings())
    Instruments(telemetry.meter).counter("openclaw.publish.success_total").add(1)
    telemetry.shutdown(timeout=60)
    assert collector.series("openclaw.publish.success_total") == {(): 1}


@pytest.mark.parametrize(
    ("otlp", "variables", "text"),
    [
        (OtlpSettings(enabled=True, endpoint="collector:4318"), {}, "telemetry.otlp.endpoint"),
        (OtlpSettings(enabled=True), {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, "http/protobuf"),
        (
            OtlpSettings(enabled=True, protocol="grpc"),
            {"OTEL_EXPORTER_OTLP_TIMEOUT": "soon"},
            "OTEL_EXPORTER_OTLP",
        ),
    ],
)
def test_mistakes_name_the_remedy(
    otlp: OtlpSettings, variables: dict[str, str], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=text):
        started(otlp)


def test_what_the_exporter_does_not_understand_is_said_once(
    collector: HttpCollector, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd")
    telemetry = started(OtlpSettings(enabled=True, endpoint=collector.endpoint))
    Instruments(telemetry.meter).counter("openclaw.publish.success_total")
    telemetry.shutdown(timeout=60)
    assert "content-encoding" not in collector.headers[-1]
    (line,) = log.getvalue().splitlines()
    assert "OTEL_EXPORTER_OTLP_* variable is not understood" in line
    assert "zstd" in line


def test_a_password_in_the_endpoint_is_never_shown() -> None:
    with pytest.raises(UserError) as caught:
        started(OtlpSettings(enabled=True, endpoint="ftp://user:hunter2@collector"))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_collector_that_is_away_is_one_line_and_shutdown_keeps_to_its_time(
    protocol: str, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "100")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")
    endpoint = f"http://127.0.0.1:{free_port()}"
    telemetry = started(OtlpSettings(enabled=True, endpoint=endpoint, protocol=protocol))  # type: ignore[arg-type]
    counter = Instruments(telemetry.meter).counter("openclaw.publish.success_total")
    wait_until(log.getvalue)
    counter.add(1)
    time.sleep(0.5)  # several more exports fail meanwhile
    began = time.monotonic()
    telemetry.shutdown(timeout=1)
    assert time.monotonic() - began < 30, "it waited for the collector"
    lines = log.getvalue().splitlines()
    assert len(lines) == 1
    assert "takes no metrics" in lines[0]
    assert endpoint in lines[0]


def test_the_episode_ends_when_the_collector_is_back(
    log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "30")
    # Long, or on a crowded machine the exporter gives up before it is answered 500.
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "20")
    collector = HttpCollector()
    collector.status = 500
    telemetry = started(OtlpSettings(enabled=True, endpoint=collector.endpoint))
    counter = Instruments(telemetry.meter).counter("openclaw.publish.success_total")
    counter.add(2)
    wait_until(lambda: "takes no metrics" in log.getvalue())
    collector.status = 200
    wait_until(lambda: "takes metrics again" in log.getvalue())
    telemetry.shutdown(timeout=30)
    collector.close()
    assert collector.series("openclaw.publish.success_total") == {(): 2}
    assert "500" in log.getvalue().splitlines()[0]


def test_a_collector_that_never_answers_does_not_hold_shutdown_up() -> None:
    import socket  # noqa: PLC0415 - this test only

    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        telemetry = started(OtlpSettings(enabled=True, endpoint=endpoint, timeout=300))
        Instruments(telemetry.meter).counter("openclaw.publish.success_total")
        began = time.monotonic()
        telemetry.shutdown(timeout=0.5)
        assert time.monotonic() - began < 60, "it waited for an answer"
