"""The rules of names and units, over the whole table."""

from __future__ import annotations

import re
from typing import Any

import pytest
from opentelemetry.semconv._incubating.metrics import hw_metrics, process_metrics, system_metrics

from openclaw_exporter.telemetry.catalogue import CATALOGUE, Instrument, prometheus_name

EVERY = pytest.mark.parametrize("instrument", CATALOGUE.values(), ids=CATALOGUE.keys())
SOURCE_NAMES = {
    "openclaw.publish.success_total",
    "openclaw.publish.failure_total",
    "openclaw.latency_seconds",
}
WORDS_OF_UNITS = {
    "seconds", "milliseconds", "bytes", "celsius", "watts", "joules", "percent", "total", "ratio", "hertz",
}  # fmt: skip
STATES = {"openclaw.collector.healthy", "openclaw.registry.expiry.held"}
BY_CONVENTION = {"hw.gpu.utilization"}

AGENT = [
    "openclaw.publish.success_total",
    "openclaw.publish.failure_total",
    "openclaw.latency_seconds",
    "openclaw.publish.clock_skew",
    "openclaw.buffer.usage",
    "openclaw.buffer.limit",
    "openclaw.buffer.dropped",
    "openclaw.credential.not_before",
    "openclaw.credential.not_after",
    "openclaw.node.capacity",
    "openclaw.node.slots.withheld",
    "openclaw.node.queue.depth",
    "openclaw.node.queue.oldest_message.age",
    "openclaw.node.uptime",
    "openclaw.collector.healthy",
    "openclaw.collector.duration",
    "openclaw.collector.errors",
    "openclaw.collector.last_success.timestamp",
    "openclaw.collector.series",
    "openclaw.collector.cpu.time",
    "openclaw.collector.memory.usage",
    "system.cpu.time",
    "system.cpu.logical.count",
    "system.cpu.load_average.1m",
    "system.memory.usage",
    "system.memory.limit",
    "system.paging.usage",
    "system.filesystem.usage",
    "system.filesystem.limit",
    "system.disk.io",
    "system.network.io",
    "system.network.errors",
    "process.cpu.time",
    "process.memory.usage",
    "process.unix.file_descriptor.count",
    "process.uptime",
    "hw.gpu.utilization",
    "hw.gpu.memory.usage",
    "hw.gpu.memory.limit",
    "hw.temperature",
    "hw.power",
    "hw.energy",
    "hw.errors",
]
RECEIVER = [
    "openclaw.registry.node.count",
    "openclaw.registry.node.version.count",
    "openclaw.registry.node.registered",
    "openclaw.registry.node.expired",
    "openclaw.registry.node.returned",
    "openclaw.registry.node.forgotten",
    "openclaw.registry.heartbeat.received",
    "openclaw.registry.heartbeat.refused",
    "openclaw.registry.heartbeat.interval",
    "openclaw.registry.heartbeat.skew",
    "openclaw.registry.capacity",
    "openclaw.registry.queue.depth",
    "openclaw.registry.node.silence",
    "openclaw.registry.expiry.held",
    "openclaw.registry.store.duration",
    "openclaw.registry.loop.lag",
    "http.server.request.duration",
]


FURTHER = {
    "openclaw.publish.last_success.timestamp",
    "openclaw.collector.series.limit",
    "system.cpu.load_average.5m",
    "system.cpu.load_average.15m",
    "cgroup.cpu.limit",
    "cgroup.cpu.throttled.time",
    "cgroup.pids.usage",
    "cgroup.pids.limit",
}
FURTHER_OF_RECEIVERS = {"openclaw.registry.store.conflict", "openclaw.registry.store.partition.away"}


@pytest.mark.parametrize(
    ("service", "names"), [("agent", AGENT), ("receiver", RECEIVER)], ids=["agent", "receiver"]
)
def test_every_row_of_the_page_is_there(service: str, names: list[str]) -> None:
    of_service = {name for name, instrument in CATALOGUE.items() if instrument.service == service}
    assert of_service == set(names) | (FURTHER if service == "agent" else FURTHER_OF_RECEIVERS)


@EVERY
def test_units_are_base_units_or_one_annotation(instrument: Instrument) -> None:
    assert re.fullmatch(r"s|By|Cel|W|J|1|\{[a-z_]+\}|", instrument.unit)
    assert (instrument.unit == "") == (instrument.name in STATES)


@EVERY
def test_names_end_in_no_unit_and_no_total(instrument: Instrument) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)+", instrument.name)
    if instrument.name in SOURCE_NAMES:
        return
    last = re.split(r"[._]", instrument.name)[-1]
    assert last not in WORDS_OF_UNITS - {"ratio"}
    if instrument.name not in BY_CONVENTION:
        assert (last == "ratio") == (instrument.unit == "1")


@EVERY
def test_a_unit_word_stands_nowhere_else_in_a_name(instrument: Instrument) -> None:
    words = re.split(r"[._]", instrument.name)
    assert not WORDS_OF_UNITS & set(words[:-1])


@EVERY
def test_only_histograms_have_bounds_and_none_is_an_integer(instrument: Instrument) -> None:
    assert (instrument.kind == "histogram") == (instrument.bounds is not None)
    bounds = instrument.bounds or ()
    assert list(bounds) == sorted(set(bounds))
    assert not [bound for bound in bounds if float(bound).is_integer()]


@EVERY
def test_names_stay_out_of_the_gateways(instrument: Instrument) -> None:
    name = prometheus_name(instrument)
    assert instrument.name != "openclaw.queue.depth"
    taken = ("openclaw_worker_", "openclaw_queue_", "openclaw_session_", "openclaw_gateway_")
    assert not name.startswith(taken)


@EVERY
def test_attributes_are_dotted_and_never_name_a_node(instrument: Instrument) -> None:
    for attribute in instrument.attributes:
        assert re.fullmatch(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)*", attribute)
        assert attribute not in {"node_id", "openclaw.node.id", "service.instance.id"}
    assert len({attribute.replace(".", "_") for attribute in instrument.attributes}) == len(
        instrument.attributes
    )
    for zero in instrument.zeros:
        assert set(zero) <= set(instrument.attributes)


@EVERY
def test_descriptions_are_one_sentence_without_a_full_stop(instrument: Instrument) -> None:
    assert instrument.description
    assert not instrument.description.endswith(".")
    assert "\n" not in instrument.description


def test_prometheus_names_are_unique() -> None:
    names = [prometheus_name(instrument) for instrument in CATALOGUE.values()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("openclaw.publish.success_total", "openclaw_publish_success_total"),
        ("openclaw.latency_seconds", "openclaw_latency_seconds"),
        ("openclaw.collector.cpu.time", "openclaw_collector_cpu_time_seconds_total"),
        ("openclaw.collector.healthy", "openclaw_collector_healthy"),
        ("system.memory.usage", "system_memory_usage_bytes"),
        ("hw.temperature", "hw_temperature_celsius"),
        ("hw.gpu.utilization", "hw_gpu_utilization"),
        ("system.cpu.load_average.1m", "system_cpu_load_average_1m"),
    ],
)
def test_prometheus_names(name: str, expected: str) -> None:
    assert prometheus_name(CATALOGUE[name]) == expected


class _Recorder:
    """A meter that remembers what the semantic conventions' own functions ask of it."""

    def __init__(self) -> None:
        self.made: dict[str, tuple[str, str]] = {}

    def __getattr__(self, method: str) -> Any:
        kind = method.removeprefix("create_").removeprefix("observable_").replace("_", "")
        return lambda name, unit="", **_: self.made.update({name: (kind, unit)})


def test_host_metrics_are_those_of_the_semantic_conventions() -> None:
    recorder = _Recorder()
    for module in (system_metrics, process_metrics, hw_metrics):
        for attribute, function in vars(module).items():
            if attribute.startswith("create_"):
                takes_callbacks = "callbacks" in function.__annotations__
                function(recorder, []) if takes_callbacks else function(recorder)
    assert len(recorder.made) > 50
    conventional = {
        name: (instrument.kind, instrument.unit)
        for name, instrument in CATALOGUE.items()
        if not name.startswith(("openclaw.", "system.cpu.load_average.", "http.", "cgroup."))
    }
    assert conventional == {name: recorder.made[name] for name in conventional}
