"""What the receiver counts of itself and of the registry, and within which limits."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from receiver.scene import problem, receiver_settings, running
from receiver.test_store import beat
from receiver.virtual import World, node_id

from openclaw_exporter.receiver.answers import problem_answer
from openclaw_exporter.receiver.census import take_census
from openclaw_exporter.receiver.census_series import MAX_PLACES
from openclaw_exporter.receiver.folding import MAX_VALUES
from openclaw_exporter.receiver.metrics import ReceiverMetrics
from openclaw_exporter.receiver.process import observe_process
from openclaw_exporter.receiver.pulse import Pulse
from openclaw_exporter.receiver.refusals import RefusedError, SheddingError
from openclaw_exporter.receiver.store.embedded import EmbeddedStore
from openclaw_exporter.telemetry.instruments import Instruments
from openclaw_exporter.telemetry.provider import Telemetry
from openclaw_exporter.telemetry.settings import PrometheusSettings, TelemetrySettings
from openclaw_exporter.wire.problems import CASES
from support.wait import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from receiver.scene import Running

    from support.pki import Pki


def test_events_of_many_places_are_counted_within_the_limits() -> None:
    metrics = ReceiverMetrics(NoOpMeterProvider().get_meter("test"), "sqlite")
    world = World()
    for number in range(400):
        tags = (f"region:r{number}", f"env:e{number % 40}")
        world.arrive(beat(1, node_id(number), tags=tags))
        metrics.happened("registered", world.registry.nodes[node_id(number)])
    series = list(metrics._event_series("registered"))
    assert len(series) <= MAX_PLACES
    assert sum(value for value, _ in series) == 400
    for key in ("openclaw.node.region", "openclaw.node.environment"):
        assert len({attributes[key] for _, attributes in series}) <= MAX_VALUES + 1
    metrics.close()


def test_a_fleet_of_ten_thousand_is_fewer_than_fifteen_hundred_series() -> None:
    world = World()
    settings = TelemetrySettings(prometheus=PrometheusSettings(enabled=False))
    telemetry = Telemetry.start(settings, service="openclaw-receiver", node_id="receiver-1")
    metrics = ReceiverMetrics(telemetry.meter, "sqlite")
    for number in range(10_000):
        tags = (
            f"region:region-{number % 200}",
            f"env:env-{number % 30}",
            f"swarm:swarm-{number % 77}",
            f"gpu:{'true' if number % 3 else 'false'}",
        )
        world.arrive(beat(1, node_id(number), tags=tags, version=f"1.{number % 500}"))
    states = list(world.registry.nodes.values())
    metrics.watch(lambda: take_census(states, world.registry.listening.latest))
    for state in states:
        for event in ("registered", "expired", "returned", "forgotten"):
            metrics.happened(event, state)  # type: ignore[arg-type]
        metrics.heard(30.0, 10)
    for operation in ("commit", "read", "purge"):
        metrics.timed(operation, 0.01)
    for slug, case in CASES.items():
        metrics.refused(slug, case.status)
        metrics.answered(
            "POST", "/openclaw/availability", problem_answer(RefusedError(slug, "x")), 0.1, "https"
        )
    text = telemetry.exposition().decode()
    metrics.close()
    telemetry.shutdown()
    series = [line for line in text.splitlines() if not line.startswith("#")]
    print(f"\n{len(series)} series")
    assert 500 < len(series) < 1500
    counts = [line for line in series if line.startswith("openclaw_registry_node_count{")]
    assert sum(float(line.rpartition(" ")[2]) for line in counts) == 10_000
    for name in ("registered", "expired", "returned", "forgotten"):
        rows = [line for line in series if line.startswith(f"openclaw_registry_node_{name}_total{{")]
        assert sum(float(line.rpartition(" ")[2]) for line in rows) == 10_000


def test_a_topic_counts_once_for_each_swarm() -> None:
    world = World()
    swarms = ("swarm:blue", "swarm:blue", "swarm:red", None, None)
    for number, swarm in enumerate(swarms):
        tags = tuple(filter(None, ("region:eu" if number % 2 else "region:us", swarm)))
        world.arrive(beat(1, node_id(number), tags=tags))
    census = take_census(world.registry.nodes.values(), world.registry.listening.latest)
    # One entry waits in the planner's queue of each swarm; nodes without a swarm are one.
    assert sum(census.queues.values()) == 3
    assert (
        sum(
            census.capacity[resource, region] for resource, region in census.capacity if resource == "workers"
        )
        == 20
    )


def test_silence_beyond_the_limit_is_told_of_the_rest(pki: Pki, tmp_path: Path) -> None:
    with running(pki, receiver_settings(pki, tmp_path)) as scene:
        for number in range(MAX_VALUES + 3):
            scene.node().beat(tags=[f"region:r{number}"])
        prefix = "openclaw_registry_node_silence_seconds"

        def silences() -> dict[str, float]:
            found = {name: value for name, value in scene.samples().items() if name.startswith(prefix)}
            return found if len(found) == MAX_VALUES + 1 else {}

        samples = wait_until(silences, what="a new census")
        assert 0 <= samples[f'{prefix}{{openclaw_node_region="other"}}'] <= max(samples.values())


@pytest.mark.parametrize("route", ["hot", "application"])
@pytest.mark.parametrize(
    ("fault", "expected"),
    [(RuntimeError("canary-3f00"), (500, "internal-error")), (SheddingError(), (503, "shedding"))],
)
def test_what_fails_inside_is_answered_and_counted(
    scene: Running, monkeypatch: pytest.MonkeyPatch, fault: Exception, expected: tuple[int, str], route: str
) -> None:
    def failing(*_: Any) -> None:
        raise fault

    monkeypatch.setattr(EmbeddedStore, "submit", failing)
    answer = scene.node().beat({"Connection": "close"} if route == "application" else {})
    assert problem(answer) == expected
    assert "canary" not in answer.text
    assert ("retry-after" in answer.headers) == (expected[0] == 503)
    refused = 'openclaw_registry_heartbeat_refused_total{error_type="%s",http_response_status_code="%s"}'
    assert scene.samples()[refused % (expected[1], expected[0])] >= 1


def test_the_receivers_own_process_is_measured(scene: Running, tmp_path: Path) -> None:
    samples = scene.samples()
    assert samples["process_memory_usage_bytes"] > 2**20
    assert samples["process_unix_file_descriptor_count"] > 3
    assert samples['process_cpu_time_seconds_total{cpu_mode="user"}'] > 0
    assert samples["process_uptime_seconds"] > 0


def test_what_proc_does_not_tell_is_not_exported(tmp_path: Path) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    observe_process(Instruments(provider.get_meter("test")), tmp_path / "away")
    collected = reader.get_metrics_data()
    provider.shutdown()
    assert collected is not None
    names = {metric.name for metric in collected.resource_metrics[0].scope_metrics[0].metrics}
    assert names == {"process.cpu.time", "process.uptime"}


def test_the_cpu_time_of_all_processes_does_not_go_back_when_one_ends_between_two_readings(
    tmp_path: Path,
) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    stat = tmp_path / "77" / "stat"
    stat.parent.mkdir()
    stat.write_text("77 (python) S " + " ".join(["0"] * 10) + " 500000 300000 0 0\n")
    observe_process(Instruments(provider.get_meter("test")), tmp_path / "self", children=lambda: [77])

    def used() -> dict[object, float]:
        collected = reader.get_metrics_data()
        assert collected is not None
        metrics = collected.resource_metrics[0].scope_metrics[0].metrics
        (cpu,) = [metric for metric in metrics if metric.name == "process.cpu.time"]
        return {point.attributes["cpu.mode"]: point.value for point in cpu.data.data_points}

    before = used()
    assert before["user"] > 1000
    stat.unlink()
    after = used()
    provider.shutdown()
    assert after["user"] >= before["user"]
    assert after["system"] >= before["system"]


def test_a_pulse_goes_on_when_what_it_drives_fails(caplog: pytest.LogCaptureFixture) -> None:
    beats: list[int] = []
    third = asyncio.Event()

    def tick() -> None:
        beats.append(len(beats))
        if len(beats) == 3:
            third.set()
        raise ValueError

    pulse = Pulse(tick, lambda: None)

    async def main() -> None:
        running = asyncio.create_task(pulse.run())
        await third.wait()
        assert not pulse.stalled
        assert pulse.lag >= 0
        running.cancel()

    asyncio.run(main())
    assert "a pulse failed" in caplog.text
