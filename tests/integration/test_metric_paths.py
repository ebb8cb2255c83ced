"""The same series and node labels on all three paths, with a real Prometheus 3 and a real Collector."""

from __future__ import annotations

from collections import defaultdict
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import pytest

from openclaw_exporter.telemetry.catalogue import CATALOGUE, prometheus_name
from openclaw_exporter.telemetry.instruments import Instruments
from openclaw_exporter.telemetry.provider import Telemetry
from openclaw_exporter.telemetry.settings import OtlpSettings, PrometheusSettings, TelemetrySettings
from support import queues
from support.collector import CollectorServer
from support.metric_paths import PATHS, example, metric_paths
from support.ports import free_port
from support.prometheus import PrometheusServer
from support.redis import RedisServer
from support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.metric_paths import MetricPath, PathName
    from support.pki import Pki
    from support.prometheus import Labels

# Of the resource that a process's metrics are about; Prometheus and Collector choose its labels themselves.
RESOURCE: Final = {"target_info"}
# What tells a target apart on each path: an address on a scrape, else the instance's id.
TARGET: Final = {"job", "instance"}
EXPECTED_NODE: Final = {
    "host_name",
    "deployment_environment_name",
    "cloud_region",
    "service_instance_id",
}
# A gauge whose unit is 1: Prometheus and the Collector add `_ratio`, our own exposition does not.
GPU_UTILIZATION: Final = {"hw_gpu_utilization", "hw_gpu_utilization_ratio"}

# A value that each path has to escape, and values that are no text.
TRICKY: Final = 'C:\\temp "ü" {a=b}\nnext'
TYPED: Final[dict[str, bool | int]] = {
    "openclaw.retryable": True,
    "openclaw.node.gpu": False,
    "http.response.status_code": 503,
    "cpu.logical_number": 0,
}

Shapes = dict[str, set[frozenset[str]]]


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory, pki: Pki) -> Iterator[dict[PathName, MetricPath]]:
    """All three, running, with messages in every queue."""
    directory = tmp_path_factory.mktemp("paths")
    redis = RedisServer(directory)
    redis.start()
    try:
        queues.run(redis.url, "fill", 7, 5, 9)
        with metric_paths(directory, pki, redis.url) as running:
            yield running
    finally:
        redis.stop()


def shapes(prometheus: PrometheusServer) -> Shapes:
    """Return the sets of label names that the series of each name have, and of a histogram its bounds."""
    found: Shapes = defaultdict(set)
    for labels in prometheus.series('{service_instance_id!=""}'):
        name = labels["__name__"]
        if name not in RESOURCE:
            found[name].add(frozenset(labels.keys() - TARGET))
            if "le" in labels:
                found[name].add(frozenset({f"le={labels['le']}"}))
    return dict(found)


def differences(one: Shapes, other: Shapes) -> dict[str, object]:
    """Return what only one of the two has."""
    return {
        name: (one.get(name), other.get(name))
        for name in one.keys() | other.keys()
        if one.get(name) != other.get(name)
    }


def test_agents_and_receivers_have_the_same_series_on_all_paths(paths: dict[PathName, MetricPath]) -> None:
    def same() -> bool:
        scraped, *others = (shapes(paths[name].prometheus) for name in PATHS)
        found.clear()
        found.extend(differences(scraped, other) for other in others)
        return not any(found)

    found: list[dict[str, object]] = []
    try:
        wait_until(same)
    except AssertionError:
        assert found == [{}, {}]
    expected = {
        "openclaw_node_queue_depth",
        "openclaw_registry_node_count",
        "system_cpu_time_seconds_total",
        "openclaw_latency_seconds_bucket",
        "openclaw_registry_heartbeat_interval_seconds_bucket",
    }
    wait_until(lambda: expected <= paths["scrape"].prometheus.names(), what=f"{expected} in Prometheus")


@pytest.mark.parametrize("path", PATHS)
def test_every_series_of_an_agent_names_its_node(paths: dict[PathName, MetricPath], path: PathName) -> None:
    prometheus = paths[path].prometheus
    for agent in paths[path].agents:
        series = prometheus.series(f'{{service_instance_id="{agent.node_id}"}}')
        assert len(series) > 50
        for labels in series:
            if labels["__name__"] in RESOURCE:
                continue
            assert labels.keys() >= EXPECTED_NODE
            assert labels["job"] == "openclaw-exporter"
            assert labels["deployment_environment_name"] == "staging"
            assert labels["cloud_region"] == "test-1"
    topics = {"worker": 7, "planner": 5, "judge": 9}
    expected = {
        (agent.node_id, topic): depth for agent in paths[path].agents for topic, depth in topics.items()
    }

    def depths() -> dict[tuple[str, str], float]:
        return {
            (labels["service_instance_id"], labels["messaging_destination_name"]): value
            for labels, value in prometheus.query("openclaw_node_queue_depth")
        }

    # A collection that was late on a crowded machine takes the topics away until the next.
    wait_until(lambda: depths() == expected, what=f"{expected} in Prometheus")


@pytest.mark.parametrize("path", PATHS)
def test_the_resource_stands_in_target_info(paths: dict[PathName, MetricPath], path: PathName) -> None:
    def told() -> set[tuple[str, str | None]]:
        info = paths[path].prometheus.series("target_info")
        return {(labels["job"], labels.get("openclaw_tag_swarm")) for labels in info}

    expected = {("openclaw-exporter", "blue"), ("openclaw-receiver", None)}
    wait_until(lambda: told() == expected, what=f"{expected} in target_info")


def use_every_instrument(telemetry: Telemetry) -> None:
    """Give each instrument of the catalogue a series with all its attributes."""
    instruments = Instruments(telemetry.meter)
    for name, instrument in CATALOGUE.items():
        attributes: dict[str, str | bool | int] = dict.fromkeys(instrument.attributes, TRICKY)
        attributes |= {key: value for key, value in TYPED.items() if key in attributes}
        if instrument.kind == "histogram":
            instruments.histogram(name).record(0.3, attributes)
        else:
            instruments.observe(name, lambda attributes=attributes: [(1.5, attributes)])  # type: ignore[misc]


def catalogue_names() -> set[str]:
    """Return the names of all series that the catalogue's instruments have in Prometheus."""
    parts = {"histogram": ("_bucket", "_sum", "_count")}
    return {
        prometheus_name(instrument) + part
        for instrument in CATALOGUE.values()
        for part in parts.get(instrument.kind, ("",))
    }


def test_the_whole_catalogue_has_its_names_on_all_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTP and gRPC into the Collector, HTTP into Prometheus, a scrape: equal, but for GPU utilization."""
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "500")
    port = free_port()
    fast = {"scrape_interval: 30s": "scrape_interval: 1s"}
    with ExitStack() as ending:
        collector = ending.enter_context(
            CollectorServer(tmp_path / "collector", example("collector/scraped.yaml", {}))
        )
        pulled = ending.enter_context(
            PrometheusServer(
                tmp_path / "scrape",
                example("prometheus/scrape.yml", fast | {"127.0.0.1:9464": f"127.0.0.1:{port}"}),
            )
        )
        pushed = ending.enter_context(PrometheusServer(tmp_path / "otlp", example("prometheus/otlp.yml", {})))
        collected = ending.enter_context(
            PrometheusServer(
                tmp_path / "collector",
                example("prometheus/collector.yml", fast | {"127.0.0.1:8889": collector.exposition}),
            )
        )
        nodes = {
            "scraped": TelemetrySettings(prometheus=PrometheusSettings(port=port)),
            "pushed": pushing(pushed.otlp, "http/protobuf"),
            "by-http": pushing(collector.http, "http/protobuf"),
            "by-grpc": pushing(collector.grpc, "grpc"),
        }
        for node_id, settings in nodes.items():
            telemetry = Telemetry.start(settings, service="openclaw-exporter", node_id=node_id)
            ending.callback(telemetry.shutdown)
            use_every_instrument(telemetry)
        servers = {"scraped": pulled, "pushed": pushed, "by-http": collected, "by-grpc": collected}
        found = {}
        for node_id, server in servers.items():
            match = f'{{service_instance_id="{node_id}"}}'
            wait_until(
                lambda server=server, match=match: server.names(match) >= catalogue_names() - GPU_UTILIZATION,  # type: ignore[misc]
                what=f"the whole catalogue of {node_id}",
            )
            found[node_id] = label_sets(server.series(match))
            names = server.names(match) - RESOURCE
            assert names - GPU_UTILIZATION == catalogue_names() - GPU_UTILIZATION
            own = node_id == "scraped"
            assert names & GPU_UTILIZATION == {"hw_gpu_utilization" if own else "hw_gpu_utilization_ratio"}
        assert any(TRICKY in dict(labels).values() for labels in found["scraped"])
        assert found["scraped"] == found["pushed"] == found["by-http"] == found["by-grpc"]


def label_sets(series: list[Labels]) -> set[frozenset[tuple[str, str]]]:
    """Return names and labels, values and all, but for what tells the four nodes of the test apart."""
    apart = {"service_instance_id", *TARGET}
    return {
        frozenset(
            (name, value.removesuffix("_ratio") if name == "__name__" else value)
            for name, value in labels.items()
            if name not in apart
        )
        for labels in series
        if labels["__name__"] not in RESOURCE
    }


def pushing(endpoint: str, protocol: str) -> TelemetrySettings:
    """Return settings that push by the protocol and serve nothing."""
    otlp = OtlpSettings(enabled=True, endpoint=endpoint, protocol=protocol)  # type: ignore[arg-type]
    return TelemetrySettings(otlp=otlp, prometheus=PrometheusSettings(enabled=False))
