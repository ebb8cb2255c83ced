"""examples/observability: every file is read by the program that it is for, and what it promises is tried."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from openclaw_exporter.telemetry.instruments import Instruments
from openclaw_exporter.telemetry.provider import Telemetry
from openclaw_exporter.telemetry.settings import OtlpSettings, PrometheusSettings, TelemetrySettings
from support.collector import CollectorServer
from support.command import Command, ReceiverCommand, openclaw_tables
from support.metric_paths import EXAMPLES, example
from support.ports import free_port
from support.prometheus import PrometheusServer
from support.skip import binary, built
from support.wait import wait_until

if TYPE_CHECKING:
    from support.pki import Pki

ALERTMANAGER = EXAMPLES / "alertmanager" / "alertmanager.yml"


def named(folder: str) -> list[Path]:
    """Return the configurations in one folder of the examples."""
    return sorted((EXAMPLES / folder).glob("*.y*ml"))


def check(*command: str | Path) -> str:
    """Run a program that must agree; return what it says."""
    done = subprocess.run(tuple(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_file_is_checked_here() -> None:
    known = {*named("prometheus"), *named("collector"), ALERTMANAGER, EXAMPLES / "README.md"}
    assert {path for path in EXAMPLES.rglob("*") if path.is_file()} == known


@pytest.mark.parametrize("config", named("prometheus"), ids=lambda path: path.name)
def test_prometheus_takes_its_configuration(config: Path) -> None:
    check(built("promtool"), "check", "config", "--lint-fatal", config)


@pytest.mark.parametrize("config", named("collector"), ids=lambda path: path.name)
def test_the_collector_takes_its_configuration(config: Path) -> None:
    check(built("otelcol"), "validate", "--config", config)


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        (("alertname=MassExpiry", "severity=critical"), "on-call"),
        (
            ("alertname=GpuUnhealthy", "severity=critical", "deployment_environment_name=production"),
            "on-call",
        ),
        (("alertname=GpuUnhealthy", "severity=critical", "deployment_environment_name=staging"), "morning"),
        (("alertname=NodesExpired", "severity=warning"), "morning"),
    ],
)
def test_alerts_go_to_whom_they_should(labels: tuple[str, ...], receiver: str) -> None:
    amtool = binary("amtool", "prometheus-alertmanager")
    check(amtool, "check-config", ALERTMANAGER)
    routed = check(amtool, "config", "routes", "test", f"--config.file={ALERTMANAGER}", *labels)
    assert routed.split() == [receiver]


def test_prometheus_finds_the_agents_by_the_receiver(tmp_path: Path, pki: Pki) -> None:
    node_id, port = str(uuid4()), free_port()
    receiver = ReceiverCommand(tmp_path, pki, extra="min_interval = 1")
    with Path(receiver.arguments[-1]).open("a") as config:
        config.write('[receiver.discovery]\nhost_suffixes = ["localhost"]\n')
    agent_config = tmp_path / "agent.toml"
    agent_config.write_text(
        f"""{openclaw_tables(pki, node_id, receiver.url, tmp_path / "state", interval=1)}
[node]
hostname = "localhost"
region = "test-1"
tags = ["metrics:{port}", "swarm:blue"]
[telemetry.prometheus]
port = {port}
"""
    )
    agent = Command(("agent", "--config", str(agent_config)), tmp_path / "agent.log")
    reader = pki.reader("prometheus")
    text = example(
        "prometheus/discovery.yml",
        {
            "scrape_interval: 30s": "scrape_interval: 1s",
            "refresh_interval: 60s": "refresh_interval: 1s",
            "https://localhost:8443": receiver.url,
            "tls/ca.pem": str(pki.ca),
            "tls/reader.pem": str(reader.certificate),
            "tls/reader.key": str(reader.key),
            "127.0.0.1:9465": f"127.0.0.1:{receiver.admin_port}",
        },
    )
    with ExitStack() as ending:
        ending.callback(receiver.stop)
        receiver.start()
        receiver.ready()
        prometheus = ending.enter_context(PrometheusServer(tmp_path / "prometheus", text))
        ending.callback(agent.stop)
        agent.start()
        found = wait_until(
            lambda: prometheus.series("openclaw_node_uptime_seconds"), what="the agent's metrics"
        )
        wait_until(lambda: prometheus.series("openclaw_registry_node_count"), what="the receiver's metrics")
    (labels,) = found
    assert labels["service_instance_id"] == node_id
    assert labels["job"] == "openclaw-exporter"
    assert labels["instance"] == f"localhost:{port}"
    assert labels["swarm"] == "blue"
    assert labels["cloud_region"] == "test-1"


def push(endpoint: str, node_id: str) -> None:
    """Export one counter, and end."""
    otlp = OtlpSettings(enabled=True, endpoint=endpoint, timeout=20)
    settings = TelemetrySettings(otlp=otlp, prometheus=PrometheusSettings(enabled=False))
    telemetry = Telemetry.start(settings, service="openclaw-exporter", node_id=node_id)
    Instruments(telemetry.meter).counter("openclaw.publish.success_total").add(3)
    telemetry.shutdown(timeout=30)


def test_what_prometheus_missed_waits_on_the_collectors_disk(tmp_path: Path) -> None:
    """Prometheus is away, and then the Collector is killed; both come back, and so do the metrics."""
    prometheus = PrometheusServer(tmp_path / "prometheus", example("prometheus/otlp.yml", {}))
    queue = tmp_path / "queue"
    text = example(
        "collector/forwarded.yaml",
        {
            "http://127.0.0.1:9090": prometheus.url,
            "/var/lib/otelcol/queue": str(queue),
            "max_interval: 30s": "max_interval: 2s",
        },
    )
    collector = CollectorServer(tmp_path / "collector", text)
    with collector:
        push(collector.http, node_id := str(uuid4()))
        assert collector.process is not None
        collector.process.kill()
        collector.process.wait()
        assert any(queue.iterdir())
    with prometheus, collector:
        wait_until(
            lambda: prometheus.query(
                f'last_over_time(openclaw_publish_success_total{{service_instance_id="{node_id}"}}[10m])'
            ),
            what="what waited on the disk",
        )
