"""OTLP over mutual TLS into a real Collector, and that one which hangs costs an agent nothing but metrics."""

from __future__ import annotations

import signal
import socket
from typing import TYPE_CHECKING
from uuid import uuid4

import httpx
import pytest

from openclaw_exporter.telemetry.instruments import Instruments
from openclaw_exporter.telemetry.provider import Telemetry
from openclaw_exporter.telemetry.settings import OtlpSettings, PrometheusSettings, TelemetrySettings
from support.collector import CollectorServer
from support.command import Command, ReceiverCommand, openclaw_tables, samples
from support.metric_paths import example
from support.nodes import mutual_tls_client
from support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.pki import Pki


@pytest.fixture(scope="module")
def tls_collector(tmp_path_factory: pytest.TempPathFactory, pki: Pki) -> Iterator[CollectorServer]:
    """A Collector that wants a client certificate on both of its ports."""
    server = pki.server(name="collector")
    config = example("collector/scraped.yaml", {})
    for port in (4317, 4318):
        config = config.replace(
            f"        endpoint: 127.0.0.1:{port}\n",
            f"""        endpoint: 127.0.0.1:{port}
        tls:
          cert_file: {server.certificate}
          key_file: {server.key}
          client_ca_file: {pki.ca}
""",
        )
    with CollectorServer(tmp_path_factory.mktemp("collector"), config) as collector:
        yield collector


def exposed(collector: CollectorServer) -> str:
    """Return what the Collector shows to Prometheus."""
    return httpx.get(f"http://{collector.exposition}/metrics", trust_env=False, timeout=30).text


def push(collector: CollectorServer, protocol: str, node_id: str, *, timeout: float = 20) -> None:
    """Export one counter, and end."""
    endpoint = collector.grpc if protocol == "grpc" else collector.http
    otlp = OtlpSettings(
        enabled=True,
        endpoint=endpoint.replace("http://", "https://"),
        protocol=protocol,  # type: ignore[arg-type]
        timeout=timeout,
    )
    settings = TelemetrySettings(otlp=otlp, prometheus=PrometheusSettings(enabled=False))
    telemetry = Telemetry.start(settings, service="openclaw-exporter", node_id=node_id)
    Instruments(telemetry.meter).counter("openclaw.publish.success_total").add(3)
    telemetry.shutdown(timeout=30)


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_client_certificate_by_the_standard_variables(
    tls_collector: CollectorServer, protocol: str, pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = pki.reader("pusher")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(pki.ca))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", str(files.certificate))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_CLIENT_KEY", str(files.key))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    push(tls_collector, protocol, node := str(uuid4()))
    wait_until(lambda: node in exposed(tls_collector), what="the node's metrics")


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_without_one_nothing_arrives_and_the_log_says_why(
    tls_collector: CollectorServer,
    protocol: str,
    pki: Pki,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(pki.ca))
    push(tls_collector, protocol, node := str(uuid4()), timeout=2)
    assert node not in exposed(tls_collector)
    assert "takes no metrics" in caplog.text


def test_a_collector_that_hangs_holds_no_heartbeat_up_and_gets_metrics_when_it_goes_on(
    tmp_path: Path, pki: Pki
) -> None:
    """It is stopped (SIGSTOP), as a frozen machine is: connections are accepted, and nobody answers."""
    node_id = str(uuid4())
    receiver = ReceiverCommand(tmp_path, pki, extra="min_interval = 1")
    config = tmp_path / "agent.toml"
    api = mutual_tls_client(pki.ca, pki.reader("otlp"), base_url=f"{receiver.url}/openclaw/nodes/")
    collector = CollectorServer(tmp_path / "collector", example("collector/scraped.yaml", {"150s": "3s"}))
    config.write_text(
        f"""{openclaw_tables(pki, node_id, receiver.url, tmp_path / "state", interval=1)}
[telemetry.prometheus]
port = 0
[telemetry.otlp]
enabled = true
endpoint = "{collector.http}"
interval = 1
timeout = 60
"""
    )
    agent = Command(("agent", "--config", str(config)), tmp_path / "agent.log")

    def beats() -> int:
        answer = api.get(f"{node_id}/history")
        return len(answer.json()["history"]) if answer.status_code == httpx.codes.OK else 0

    def exported() -> float:
        prefix = "openclaw_publish_success_total{"
        found = samples(exposed(collector))
        return max((value for series, value in found.items() if series.startswith(prefix)), default=0)

    with collector:
        assert collector.process is not None
        try:
            receiver.start()
            receiver.ready()
            agent.start()
            wait_until(lambda: node_id in exposed(collector), what="the first export")
            collector.process.send_signal(signal.SIGSTOP)
            known = beats()
            # One export waits for its answer all the while: it may take a minute.
            wait_until(lambda: beats() >= known + 6, what="heartbeats meanwhile")
            collector.process.send_signal(signal.SIGCONT)
            wait_until(lambda: exported() >= known + 6, what="what was counted meanwhile")
        finally:
            collector.process.send_signal(signal.SIGCONT)
            agent.stop()
            receiver.stop()
            api.close()


def test_a_collector_that_is_away_at_the_start_is_no_reason_not_to_start(tmp_path: Path, pki: Pki) -> None:
    node_id = str(uuid4())
    receiver = ReceiverCommand(tmp_path, pki, extra="min_interval = 1")
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        gone = nobody.getsockname()[1]
    config = tmp_path / "agent.toml"
    config.write_text(
        f"""{openclaw_tables(pki, node_id, receiver.url, tmp_path / "state", interval=1)}
[telemetry.prometheus]
port = 0
[telemetry.otlp]
interval = 1
"""
    )
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{gone}"}
    agent = Command(("agent", "--config", str(config)), tmp_path / "agent.log", environment)
    api = mutual_tls_client(pki.ca, pki.reader("away"), base_url=f"{receiver.url}/openclaw/nodes/")
    try:
        receiver.start()
        receiver.ready()
        agent.start()
        wait_until(lambda: api.get(node_id).status_code == httpx.codes.OK, what="a heartbeat")
        wait_until(lambda: "takes no metrics" in agent.text(), what="a line in the log")
    finally:
        agent.stop()
        receiver.stop()
        api.close()
    assert agent.text().count("takes no metrics") == 1
