"""`openclaw.insecure_dev`: plain HTTP to this machine, without certificate and token."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from openclaw_exporter.client import (
    ClientSettings,
    Outcome,
    Publisher,
    Report,
    TlsSettings,
    TokenSettings,
    check,
    load_settings_from_env,
    resolve_node_id,
)
from openclaw_exporter.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

NODE = "7f1c9a52-5e0b-4d7c-9f53-0d6a1f1f8f11"
OPEN = ClientSettings(insecure_dev=True, endpoint="http://127.0.0.1:8443", node_id=NODE, state_dir=None)


def report() -> Report:
    return Report(version="1.0", capacity={"workers": 4, "available_slots": 2})


class PlainReceiver(HTTPServer):
    """Answers every heartbeat with `status`, over plain HTTP, and keeps its header fields."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = 200
        self.seen: list[dict[str, str]] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: PlainReceiver

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append({name.lower(): value for name, value in self.headers.items()})
        if self.server.status:
            self.send_response(self.server.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def receiver() -> Iterator[PlainReceiver]:
    with PlainReceiver() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_heartbeat_goes_out_with_no_credential_and_none_is_measured(receiver: PlainReceiver) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    settings = replace(OPEN, endpoint=receiver.endpoint)
    publisher = Publisher(settings, report, meter=provider.get_meter("test"))
    publisher.tick()
    assert publisher.last_result is not None
    assert (publisher.last_result.outcome, publisher.node_id) == (Outcome.ACCEPTED, NODE)
    (fields,) = receiver.seen
    assert "authorization" not in fields
    assert fields["host"] == receiver.endpoint.removeprefix("http://")
    metrics = reader.get_metrics_data()
    publisher.stop(draining=False)
    provider.shutdown()
    names = {
        metric.name
        for resource in (metrics.resource_metrics if metrics else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.data.data_points
    }
    assert "openclaw.publish.success_total" in names
    assert not {name for name in names if name.startswith("openclaw.credential")}


@pytest.mark.parametrize("status", [401, 0], ids=["401", "no answer"])
def test_no_failure_is_blamed_on_credentials_that_are_not_there(
    receiver: PlainReceiver, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.status = status
    publisher = Publisher(replace(OPEN, endpoint=receiver.endpoint), report)
    publisher.tick()
    publisher.stop(draining=False)
    assert publisher.stats.failure > 0
    assert "certificate has expired" not in caplog.text
    assert "refuses the certificate" not in caplog.text


def test_files_that_are_configured_are_not_looked_at(receiver: PlainReceiver) -> None:
    nowhere = Path("/nowhere/file.pem")
    settings = replace(
        OPEN,
        endpoint=receiver.endpoint,
        tls=TlsSettings(ca=nowhere, certificate=nowhere),
        token=TokenSettings(profile="external", file=nowhere),
    )
    assert resolve_node_id(settings) == NODE
    publisher = Publisher(settings, report)
    publisher.tick()
    publisher.stop(draining=False)
    assert len(receiver.seen) == 1


def test_it_says_so_at_every_start(caplog: pytest.LogCaptureFixture) -> None:
    for number in (1, 2):
        Publisher(OPEN, report).stop(draining=False)
        said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert len([text for text in said if "openclaw.insecure_dev is on" in text]) == number


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "[::1]", "localhost"])
def test_a_loopback_endpoint_needs_nothing_else(host: str) -> None:
    assert check(replace(OPEN, endpoint=f"http://{host}:8443")) == ()


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "https://127.0.0.1:8443",
        "http://0.0.0.0:8443",
        "http://receiver:8443",
        "http://localhost.example.org:8443",
        "http://localhost@receiver:8443",
        "http://user@localhost:8443",
        "http://[::2]:8443",
        "http://127.0.0.1:8443/?to=receiver",
    ],
)
def test_no_other_endpoint_will_do(endpoint: str) -> None:
    settings = replace(OPEN, endpoint=endpoint)
    (problem,) = check(settings)
    assert problem.key == "openclaw.endpoint"
    assert "openclaw.insecure_dev" in str(problem)
    with pytest.raises(ConfigError):
        Publisher(settings, report)


def test_a_proxy_will_not_do() -> None:
    (problem,) = check(replace(OPEN, proxy="http://127.0.0.1:3128"))
    assert problem.key == "openclaw.proxy"


def test_without_it_plain_http_is_refused_on_loopback_too() -> None:
    keys = {problem.key for problem in check(replace(OPEN, insecure_dev=False))}
    assert keys >= {"openclaw.endpoint", "openclaw.tls.ca", "openclaw.tls.certificate", "openclaw.token.key"}


def test_an_embedded_publisher_has_the_variable() -> None:
    environ = {"OPENCLAW_INSECURE_DEV": "true", "OPENCLAW_ENDPOINT": "http://localhost:8443"}
    assert load_settings_from_env(environ).insecure_dev
    with pytest.raises(ConfigError, match="OPENCLAW_ENDPOINT"):
        load_settings_from_env(environ | {"OPENCLAW_ENDPOINT": "http://receiver:8443"})
