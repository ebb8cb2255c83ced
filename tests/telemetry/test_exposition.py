"""What a scrape of /metrics reads, on real exposition text and over real HTTP."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
import urllib.request
from typing import TYPE_CHECKING

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from openclaw_exporter.errors import UserError
from openclaw_exporter.telemetry import metrics_server
from openclaw_exporter.telemetry.catalogue import CATALOGUE, prometheus_name
from openclaw_exporter.telemetry.instruments import Instruments
from openclaw_exporter.telemetry.provider import Telemetry
from openclaw_exporter.telemetry.settings import PrometheusSettings, TelemetrySettings
from support.ports import free_port
from support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

NODE = "0b1e8a5e-6f43-4f0c-9a55-1f1a1f6d3c11"
RESOURCE = {
    "host.name": "node-1",
    "deployment.environment.name": "test",
    "cloud.region": "us-east-1",
    "openclaw.tag.swarm": "blue",
}


def started(*, enabled: bool = False, port: int = 0) -> Telemetry:
    settings = TelemetrySettings(prometheus=PrometheusSettings(enabled=enabled, port=port))
    return Telemetry.start(settings, service="openclaw-exporter", node_id=NODE, resource=RESOURCE)


def samples(text: bytes) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Return the samples of an exposition by name, as Prometheus' own parser reads them."""
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def use_every_instrument(telemetry: Telemetry) -> None:
    instruments = Instruments(telemetry.meter)
    for name, instrument in CATALOGUE.items():
        attributes = dict.fromkeys(instrument.attributes, "x")
        if instrument.kind == "histogram":
            instruments.histogram(name).record(0.3, attributes)
        elif instrument.kind == "counter":
            instruments.counter(name).add(1, attributes)
        else:
            instruments.observe(name, lambda attributes=attributes: [(1.5, attributes)])  # type: ignore[misc]


def test_every_name_is_the_catalogues() -> None:
    telemetry = started()
    use_every_instrument(telemetry)
    text = telemetry.exposition()
    telemetry.shutdown()
    expected = {"target_info"}
    for instrument in CATALOGUE.values():
        name = prometheus_name(instrument)
        parts = ("_bucket", "_sum", "_count") if instrument.kind == "histogram" else ("",)
        expected |= {name + part for part in parts}
    assert set(samples(text)) == expected


def test_types_and_bounds() -> None:
    telemetry = started()
    use_every_instrument(telemetry)
    text = telemetry.exposition().decode()
    telemetry.shutdown()
    assert "# TYPE openclaw_publish_success_total counter" in text
    assert "# TYPE openclaw_node_capacity gauge" in text
    assert "# TYPE openclaw_latency_seconds histogram" in text
    bounds = {row[0]["le"] for row in samples(text.encode())["openclaw_latency_seconds_bucket"]}
    assert bounds == {
        *("0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1.5", "2.5", "5.5", "10.5", "+Inf"),
    }


def test_four_resource_attributes_are_labels_and_the_others_stand_in_target_info() -> None:
    telemetry = started()
    Instruments(telemetry.meter).observe("openclaw.node.uptime", lambda: [(5.0, {})])
    found = samples(telemetry.exposition())
    telemetry.shutdown()
    assert found["openclaw_node_uptime_seconds"] == [
        (
            {
                "service_instance_id": NODE,
                "host_name": "node-1",
                "deployment_environment_name": "test",
                "cloud_region": "us-east-1",
            },
            5.0,
        )
    ]
    ((labels, _),) = found["target_info"]
    assert labels["service_name"] == "openclaw-exporter"
    assert labels["openclaw_tag_swarm"] == "blue"
    assert labels["service_version"]
    assert "service_namespace" not in labels


def test_standard_resource_attributes_are_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "OTEL_RESOURCE_ATTRIBUTES", "cloud.region=elsewhere,k8s.pod.name=pod-7,host.name=other"
    )
    telemetry = Telemetry.start(
        TelemetrySettings(
            prometheus=PrometheusSettings(enabled=False), resource_attributes={"team": "observability"}
        ),
        service="openclaw-receiver",
        node_id=NODE,
        resource={"cloud.region": "us-east-1"},
    )
    Instruments(telemetry.meter).gauge("openclaw.registry.loop.lag").set(0.25)
    found = samples(telemetry.exposition())
    telemetry.shutdown()
    ((labels, _),) = found["target_info"]
    assert labels["k8s_pod_name"] == "pod-7"
    assert labels["team"] == "observability"
    assert labels["cloud_region"] == "us-east-1"
    assert labels["host_name"] == "other"
    assert labels["service_name"] == "openclaw-receiver"


def test_several_live_in_one_process_and_share_nothing() -> None:
    first, second = started(), started()
    Instruments(first.meter).counter("openclaw.publish.success_total").add(5)
    Instruments(second.meter).counter("openclaw.publish.success_total").add(7)
    values = [
        samples(telemetry.exposition())["openclaw_publish_success_total"][0][1]
        for telemetry in (first, second)
    ]
    first.shutdown()
    second.shutdown()
    assert values == [5.0, 7.0]


def test_a_series_whose_source_is_gone_is_not_scraped() -> None:
    telemetry = started()
    rows = [(3.0, {"messaging.destination.name": "task_queue"})]
    Instruments(telemetry.meter).observe("openclaw.node.queue.depth", lambda: rows)
    before = samples(telemetry.exposition())
    rows.clear()
    after = samples(telemetry.exposition())
    telemetry.shutdown()
    assert before["openclaw_node_queue_depth"][0][1] == 3.0
    assert "openclaw_node_queue_depth" not in after


def test_served_over_http_on_a_free_port_and_gone_after_shutdown() -> None:
    telemetry = started(enabled=True)
    Instruments(telemetry.meter).counter("openclaw.publish.success_total").add(1)
    url = f"http://127.0.0.1:{telemetry.prometheus_port}/metrics"
    with urllib.request.urlopen(url, timeout=60) as answer:
        found = samples(answer.read())
    assert found["openclaw_publish_success_total"][0][1] == 1.0
    telemetry.shutdown()
    telemetry.shutdown()
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(url, timeout=60)


@pytest.fixture
def server() -> Iterator[str]:
    """A server of one counter; its base URL."""
    telemetry = started(enabled=True)
    Instruments(telemetry.meter).counter("openclaw.publish.success_total").add(1)
    yield f"http://127.0.0.1:{telemetry.prometheus_port}"
    telemetry.shutdown()


def test_an_answer_is_compressed_for_who_asks(server: str) -> None:
    plain = httpx.get(
        f"{server}/metrics", headers={"Accept-Encoding": "identity"}, trust_env=False, timeout=60
    )
    zipped = httpx.get(
        f"{server}/metrics?x=1", headers={"Accept-Encoding": "gzip"}, trust_env=False, timeout=60
    )
    assert plain.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "content-encoding" not in plain.headers
    assert zipped.headers["content-encoding"] == "gzip"
    assert int(zipped.headers["content-length"]) < int(plain.headers["content-length"])
    assert zipped.text == plain.text
    assert "openclaw_publish_success_total" in plain.text


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        ("GZip", "gzip"),
        ("br, gzip;q=0.5", "gzip"),
        ("gzip; q=1.0", "gzip"),
        ("gzip;q=0", None),
        ("gzip;q=0.000, br", None),
        ("notgzip", None),
    ],
)
def test_an_answer_is_compressed_as_the_client_weighs_it(
    server: str, accepted: str, encoding: str | None
) -> None:
    answer = httpx.get(
        f"{server}/metrics", headers={"Accept-Encoding": accepted}, trust_env=False, timeout=60
    )
    assert answer.headers.get("content-encoding") == encoding
    assert "openclaw_publish_success_total" in answer.text


def test_other_paths_and_methods(server: str) -> None:
    assert httpx.get(server, trust_env=False, timeout=60).status_code == httpx.codes.NOT_FOUND
    refused = httpx.post(f"{server}/metrics", trust_env=False, timeout=60)
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
    head = httpx.head(f"{server}/metrics", trust_env=False, timeout=60)
    assert head.status_code == httpx.codes.OK
    assert int(head.headers["content-length"]) > 0
    assert head.content == b""


def said(server: str, request: bytes) -> bytes:
    """Return all that the server answers to some bytes."""
    address = httpx.URL(server)
    with socket.create_connection((address.host, address.port or 0), timeout=60) as client:
        client.sendall(request)
        return b"".join(iter(lambda: client.recv(65_536), b""))


def test_an_older_client_is_answered(server: str) -> None:
    head, _, body = said(server, b"GET /metrics HTTP/1.0\r\n\r\n").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nConnection: close" in head
    assert samples(body)["openclaw_publish_success_total"][0][1] == 1.0


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET /metrics HTTP/1.1\r\n\r\n", b"400"),  # RFC 9112, 3.2: a request names its host
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\nx: " + b"y" * 20_000, b"431"),
    ],
)
def test_what_is_no_request_is_told_so(server: str, request_: bytes, status: bytes) -> None:
    assert said(server, request_).startswith(b"HTTP/1.1 " + status)


def test_a_request_that_comes_by_the_byte_has_a_deadline(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_server, "_SILENCE", 1.0)
    address = httpx.URL(server)
    with socket.create_connection((address.host, address.port or 0), timeout=60) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\nX: ")

        def is_over() -> bool:
            # Much faster than a silent client would be given up, and for much longer than one deadline.
            try:
                client.sendall(b"x")
            except OSError:
                return True
            time.sleep(0.05)
            return False

        wait_until(is_over, what="the end of the connection")


def test_clients_that_ask_nothing_are_not_a_thread_each(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_server, "_SILENCE", 2.0)
    address = httpx.URL(server)
    with contextlib.ExitStack() as idle:
        for _ in range(100):
            idle.enter_context(socket.create_connection((address.host, address.port or 0), timeout=60))
        # It comes last, and its turn comes all the same.
        assert httpx.get(f"{server}/metrics", trust_env=False, timeout=60).status_code == httpx.codes.OK
        scraped = sum(thread.name == "scrape" for thread in threading.enumerate())
    assert scraped <= metrics_server._AT_ONCE


def test_a_client_that_hangs_up_harms_nobody(server: str, capfd: pytest.CaptureFixture[str]) -> None:
    address = httpx.URL(server)
    for _ in range(20):
        with socket.create_connection((address.host, address.port or 0), timeout=60) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert httpx.get(f"{server}/metrics", trust_env=False, timeout=30).status_code == httpx.codes.OK
    assert "Traceback" not in "".join(capfd.readouterr())


def test_scrapes_at_the_same_time_each_read_everything_once() -> None:
    telemetry = started()
    use_every_instrument(telemetry)
    expected = {name: len(rows) for name, rows in samples(telemetry.exposition()).items()}
    wrong: list[dict[str, int]] = []

    def scrape() -> None:
        for _ in range(10):
            counts = {name: len(rows) for name, rows in samples(telemetry.exposition()).items()}
            if counts != expected:
                wrong.append(counts)

    threads = [threading.Thread(target=scrape) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    telemetry.shutdown()
    assert wrong == []


def test_a_taken_port_is_a_mistake_that_names_the_remedy() -> None:
    port = free_port()
    first = started(enabled=True, port=port)
    assert first.prometheus_port == port
    with pytest.raises(UserError, match=rf"127\.0\.0\.1:{port}.*telemetry\.prometheus\.port"):
        started(enabled=True, port=port)
    first.shutdown()
    again = started(enabled=True, port=port)
    again.shutdown()


def test_an_address_of_another_machine_is_named() -> None:
    settings = PrometheusSettings(enabled=True, host="192.0.2.1", port=free_port())
    with pytest.raises(UserError, match=r"set telemetry\.prometheus\.host to an address of this machine"):
        Telemetry.start(
            TelemetrySettings(prometheus=settings), service="openclaw-exporter", node_id=NODE, resource={}
        )
