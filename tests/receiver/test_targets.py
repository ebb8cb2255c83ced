"""GET /openclaw/prometheus-sd: whom it tells, with which labels, and a real Prometheus that scrapes by it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from receiver.scene import problem, receiver_settings, running
from receiver.virtual import World, arrival, node_id

from openclaw_exporter.receiver.discovery.targets import Suffixes, target_of
from openclaw_exporter.receiver.settings import DiscoverySettings
from openclaw_exporter.telemetry.provider import Telemetry
from openclaw_exporter.telemetry.settings import PrometheusSettings, TelemetrySettings
from support.ports import free_port
from support.prometheus import PrometheusServer
from support.wait import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from openclaw_exporter.receiver.discovery.targets import Target
    from support.pki import Pki

PATH = "/openclaw/prometheus-sd"


def target(*tags: str, hostname: str = "n1.prod.example", suffixes: tuple[str, ...] = ("example",)) -> Any:
    world = World()
    payload = json.dumps({"hostname": hostname}).encode()
    world.arrive(arrival(node_id(1), 1, tags=tags, payload=payload))
    return target_of(world.registry.nodes[node_id(1)], Suffixes(suffixes))


@pytest.mark.parametrize(
    ("hostname", "suffixes", "allowed"),
    [
        ("n1.prod.example", (), False),
        ("n1.prod.example", ("example",), True),
        ("n1.prod.example", (".prod.example.",), True),
        ("N1.Prod.Example", ("PROD.example",), True),
        ("prod.example", ("prod.example",), True),
        ("evilprod.example", ("prod.example",), False),
        ("prod.example.attacker.test", ("prod.example",), False),
        ("169.254.169.254", ("example", "prod.example"), False),
        ("localhost", ("example",), False),
    ],
)
def test_only_host_names_below_a_configured_suffix_are_told(
    hostname: str, suffixes: tuple[str, ...], *, allowed: bool
) -> None:
    found = target("metrics:9464", hostname=hostname, suffixes=suffixes)
    assert (found is not None) == allowed
    if allowed:
        assert found.targets == [f"{hostname}:9464"]


@pytest.mark.parametrize(
    "tag",
    ["metrics", "metrics:", "metrics:0", "metrics:65536", "metrics:+1", "metrics:9464/x", "metrics:\u0663"],
)
def test_a_tag_that_is_no_port_tells_nothing(tag: str) -> None:
    assert target(tag) is None
    assert target(tag, "metrics:80").targets == ["n1.prod.example:80"]


def test_tags_become_meta_labels_alone() -> None:
    found: Target = target(
        "metrics:9464", "region:eu", "gpu", "a-b:1", "a.b:2", "__address__:evil:1", "url:x:y"
    )
    assert found.labels == {
        "__meta_openclaw_node_id": node_id(1),
        "__meta_openclaw_hostname": "n1.prod.example",
        "__meta_openclaw_state": "up",
        "__meta_openclaw_version": "1",
        "__meta_openclaw_tag_metrics": "9464",
        "__meta_openclaw_tag_region": "eu",
        "__meta_openclaw_tag_gpu": "true",
        "__meta_openclaw_tag_a_b": "1,2",
        "__meta_openclaw_tag___address__": "evil:1",
        "__meta_openclaw_tag_url": "x:y",
    }


@given(tags=st.lists(st.text(min_size=1, max_size=40), max_size=8))
def test_whatever_a_tag_is_the_label_is_a_label(tags: list[str]) -> None:
    found = target("metrics:1", *tags)
    for name in found.labels:
        assert re.fullmatch(r"__meta_openclaw_(node_id|hostname|state|version|tag_[a-zA-Z0-9_]*)", name)


def test_a_real_prometheus_finds_nodes_and_scrapes_them(pki: Pki, tmp_path: Path) -> None:
    """Discovery over mutual TLS, with a reader's certificate; what it finds is a real exporter."""
    discovery = DiscoverySettings(host_suffixes=("localhost",))
    exporter = TelemetrySettings(prometheus=PrometheusSettings(enabled=True, port=free_port()))
    telemetry = Telemetry.start(exporter, service="openclaw-exporter", node_id="sd-test")
    try:
        with running(pki, receiver_settings(pki, tmp_path, discovery=discovery)) as scene:
            port = exporter.prometheus.port
            told, silent, foreign = scene.node(), scene.node(), scene.node()
            tags = [f"metrics:{port}", "region:eu-1", "swarm:blue"]
            told.beat(hostname="localhost", tags=tags)
            silent.beat(hostname="localhost", tags=["region:eu-1"])
            foreign.beat(hostname="169.254.169.254", tags=tags)
            reader = scene.reader()
            (only,) = reader.get(PATH).json()
            assert only["targets"] == [f"localhost:{port}"]
            assert only["labels"]["__meta_openclaw_node_id"] == told.node_id
            assert reader.get(PATH, params={"tag": "swarm:red"}).json() == []
            assert problem(reader.get(f"{PATH}?state=up")) == (400, "invalid-query")
            assert problem(told.client.get(PATH)) == (403, "role-not-allowed")
            files = pki.reader("prometheus")
            config = f"""
global: {{scrape_interval: 1s}}
scrape_configs:
  - job_name: openclaw
    http_sd_configs:
      - url: {scene.url}{PATH}?tag=swarm:blue
        refresh_interval: 1s
        tls_config: {{ca_file: {pki.ca}, cert_file: {files.certificate}, key_file: {files.key}}}
    relabel_configs:
      - {{source_labels: [__meta_openclaw_tag_region], target_label: region}}
      - {{source_labels: [__meta_openclaw_node_id], target_label: node_id}}
"""
            with PrometheusServer(tmp_path / "prometheus", config) as prometheus:
                found = wait_until(lambda: prometheus.series("up == 1"), what="a scrape")
            assert [(labels["region"], labels["node_id"]) for labels in found] == [("eu-1", told.node_id)]
            assert found[0]["instance"] == f"localhost:{port}"
    finally:
        telemetry.shutdown()
