"""The whole agent: real collectors, a real HTTPS receiver, real scrapes and exports."""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import time
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from agent.factory import BUNDLED_OFF
from client.stub import Answer
from prometheus_client.parser import text_string_to_metric_families
from telemetry.otlp_collectors import HttpCollector

from openclaw_exporter.agent.settings import (
    AgentConfig,
    CollectionSettings,
    NodeSettings,
    PressureSettings,
    Threshold,
)
from openclaw_exporter.client import ClientSettings
from openclaw_exporter.errors import ConfigError, UserError
from openclaw_exporter.telemetry.settings import OtlpSettings, PrometheusSettings, TelemetrySettings
from support.ports import free_port
from support.wait import wait_until

if TYPE_CHECKING:
    import io
    from collections.abc import Callable

    from agent.factory import Factory
    from client.stub import StubReceiver

    from openclaw_exporter.agent.agent import Agent
    from openclaw_exporter.agent.snapshot import CollectorState

    Start = Callable[..., Agent]

NODE = NodeSettings(version="2.4.1", region="us-east-1", environment="test", tags=("swarm:blue", "canary"))


def beats(receiver: StubReceiver) -> list[dict[str, Any]]:
    return [json.loads(body) for body in receiver.bodies()]


def scraped(agent: Agent) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Return the samples of an exposition, by name and by the attributes that are not the resource's."""
    resource = {"service_instance_id", "host_name", "deployment_environment_name", "cloud_region"}
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(agent.telemetry.exposition().decode()):
        for sample in family.samples:
            labels = tuple(sorted(item for item in sample.labels.items() if item[0] not in resource))
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def state(agent: Agent, plugin: str) -> CollectorState:
    return next(state for state in agent.board.read().collectors if state.plugin == plugin)


WHOLE = """
    yield Capacity("workers", 8)
    yield Capacity("available_slots", 6)
    yield Capacity("gpus", 2)
    yield QueueDepth("task_queue", 150, 12.5)
    yield QueueDepth("review_queue", 0)
    yield Uptime(1234.5)
    yield Tag("gpu", "true")
    yield Measurement("app.cache.hits", 41.0, "{hit}", "counter", {"app.tier": "hot"})
    yield Measurement("system.memory.limit", 1024.0, "By", "updowncounter")
"""


def test_heartbeat_prometheus_and_otlp_say_the_same_of_one_snapshot(
    factory: Factory, start: Start, receiver: StubReceiver
) -> None:
    factory.one("whole", WHOLE)
    collector = HttpCollector()
    telemetry = TelemetrySettings(
        otlp=OtlpSettings(enabled=True, endpoint=collector.endpoint),
        prometheus=PrometheusSettings(port=0),
    )
    pressure = PressureSettings(topics={"task_queue": Threshold(soft=100, hard=200)})
    agent = start(node=NODE, telemetry=telemetry, pressure=pressure)
    (beat, *_) = wait_until(lambda: beats(receiver))
    metrics = scraped(agent)
    agent.stop()
    collector.close()

    assert beat["capacity"] == {"workers": 8, "available_slots": 3, "gpus": 2}
    assert beat["queue_depth"] == {"task_queue": 150, "review_queue": 0}
    assert beat["uptime_seconds"] == 1234
    assert beat["tags"] == ["region:us-east-1", "env:test", "swarm:blue", "canary", "gpu:true"]
    assert (beat["version"], beat["hostname"]) == ("2.4.1", "chimera-01.test")
    assert beat["node_id"] == agent.node_id

    def by(attribute: str, values: dict[str, Any]) -> dict[tuple[tuple[str, str], ...], Any]:
        return {((attribute, key),): value for key, value in values.items()}

    assert metrics["openclaw_node_capacity"] == by("openclaw_resource", beat["capacity"])
    assert metrics["openclaw_node_queue_depth"] == by("messaging_destination_name", beat["queue_depth"])
    assert metrics["openclaw_node_queue_oldest_message_age_seconds"] == by(
        "messaging_destination_name", {"task_queue": 12.5}
    )
    assert metrics["openclaw_node_slots_withheld"] == {(): 3}
    assert metrics["openclaw_node_uptime_seconds"] == {(): 1234.5}
    assert metrics["app_cache_hits_total"] == {(("app_tier", "hot"),): 41.0}
    assert metrics["system_memory_limit_bytes"] == {(): 1024.0}

    assert collector.series("openclaw.node.capacity") == by("openclaw.resource", beat["capacity"])
    assert collector.series("openclaw.node.queue.depth") == by(
        "messaging.destination.name", beat["queue_depth"]
    )
    assert collector.series("openclaw.node.slots.withheld") == {(): 3}
    assert collector.series("app.cache.hits") == {(("app.tier", "hot"),): 41.0}
    resource = collector.resource()
    assert resource["service.instance.id"] == agent.node_id
    assert resource["cloud.region"] == "us-east-1"
    assert resource["deployment.environment.name"] == "test"
    assert resource["openclaw.tag.swarm"] == "blue"
    assert resource["openclaw.tag.canary"] == "true"
    assert resource["host.name"] == "chimera-01.test"


def test_the_collectors_own_metrics(factory: Factory, start: Start) -> None:
    factory.one("fine", "yield Uptime(1.0)")
    factory.one("broken", "raise OSError('no such device')")
    factory.one("apart", "yield Capacity('workers', 1)", "isolation = 'process'", deadline=5, interval=5)
    agent = start()
    wait_until(
        lambda: (
            state(agent, "apart").healthy and state(agent, "fine").healthy and state(agent, "broken").errors
        )
    )
    metrics = scraped(agent)

    def of(plugin: str, **more: str) -> tuple[tuple[str, str], ...]:
        labels = {"openclaw_plugin": plugin, "openclaw_collector": plugin, **more}
        return tuple(sorted(labels.items()))

    healthy = metrics["openclaw_collector_healthy"]
    assert healthy == {of("fine"): 1, of("broken"): 0, of("apart"): 1}
    assert metrics["openclaw_collector_series"] == {of("fine"): 1, of("broken"): 0, of("apart"): 1}
    assert metrics["openclaw_collector_series_limit"] == dict.fromkeys(healthy, 300)
    errors = metrics["openclaw_collector_errors_total"]
    assert errors[of("fine", error_type="deadline")] == 0
    assert errors[of("broken", error_type="OSError")] >= 1
    assert set(metrics["openclaw_collector_last_success_timestamp_seconds"]) == {of("fine"), of("apart")}
    assert set(metrics["openclaw_collector_cpu_time_seconds_total"]) == {of("apart")}
    assert metrics["openclaw_collector_memory_usage_bytes"][of("apart")] > 1_000_000
    assert set(metrics["openclaw_collector_duration_seconds_count"]) == set(healthy)


def test_a_source_that_is_gone_leaves_no_series_and_no_field(
    factory: Factory, start: Start, receiver: StubReceiver, tmp_path: Path
) -> None:
    switch = tmp_path / "away"
    factory.one(
        "queue",
        f"""
        if os.path.exists({str(switch)!r}):
            raise ConnectionError("redis is away")
        yield QueueDepth("task_queue", 7)
        yield Measurement("app.lag", 1.5, "s")
        """,
    )
    agent = start()
    wait_until(lambda: any(beat["queue_depth"] == {"task_queue": 7} for beat in beats(receiver)))
    assert "app_lag_seconds" in scraped(agent)
    switch.touch()
    wait_until(lambda: "openclaw_node_queue_depth" not in scraped(agent))
    assert "app_lag_seconds" not in scraped(agent)
    count = len(beats(receiver))
    wait_until(lambda: len(beats(receiver)) >= count + 2)
    assert beats(receiver)[-1]["queue_depth"] == {}
    switch.unlink()
    wait_until(lambda: beats(receiver)[-1]["queue_depth"] == {"task_queue": 7})


BAD = {
    "hang": "time.sleep(3600)",
    "flood": "while True: yield Measurement('bad.flood', 1.0, '', 'gauge', {'n': time.monotonic_ns()})",
    "garbage": "yield None; yield QueueDepth('\\n', -1); yield Capacity('workers', float('nan'))",
    "exit": "sys.exit(1)",
    "threads": "[threading.Thread(target=time.sleep, args=(1,), daemon=True).start() for _ in 'x' * 50]",
    "spin": "until = time.monotonic() + 6\nwhile time.monotonic() < until: pass",
    "segfault": "ctypes.string_at(0)",
}


def test_bad_collectors_delay_no_heartbeat_and_cost_no_other_its_data(
    factory: Factory, start: Start, receiver: StubReceiver
) -> None:
    for name, collect in BAD.items():
        isolation = "isolation = 'process'" if name == "segfault" else ""
        factory.one(name, collect, isolation)
    # What it says holds for longer than the test lasts: its own deadline is not what is tested.
    factory.one(
        "good", "yield Uptime(time.monotonic()); yield QueueDepth('tasks', 5)", "interval = deadline = 60"
    )
    agent = start(collection=CollectionSettings(interval=0.3, deadline=0.2, first_results=0.3))
    wait_until(lambda: any(beat["queue_depth"] for beat in beats(receiver)))
    count = len(receiver.seen)
    wait_until(lambda: len(receiver.seen) >= count + 5)
    # Every scheduled beat is there, one each second: most gaps are of that length, on a crowded machine too.
    arrived = [seen.at for seen in receiver.seen[count:]]
    assert statistics.median(later - earlier for earlier, later in itertools.pairwise(arrived)) < 1.5
    assert all(beat["queue_depth"] == {"tasks": 5} for beat in beats(receiver)[count:])
    assert state(agent, "good").healthy

    def errors(name: str) -> set[str]:
        return set(state(agent, name).errors)

    # A deadline of 0.2 s may be missed by any of them now and then.
    wait_until(lambda: errors("hang") == errors("spin") == {"deadline"})
    wait_until(lambda: errors("flood") >= {"flood"})
    wait_until(lambda: errors("garbage") >= {"type", "name", "range"})
    wait_until(lambda: errors("exit") >= {"SystemExit"})
    wait_until(lambda: errors("threads") >= {"type"})  # it returns None
    wait_until(lambda: errors("segfault") & {"exited", "deadline"})


def test_the_first_heartbeat_waits_no_longer_than_configured(
    factory: Factory, start: Start, receiver: StubReceiver
) -> None:
    factory.one("slow", "time.sleep(3600)")
    factory.one("good", "yield Capacity('workers', 3)")
    start(collection=CollectionSettings(interval=10, deadline=5, first_results=5.0))
    (beat, *_) = wait_until(lambda: beats(receiver))
    assert beat["capacity"]["workers"] == 3


def test_switched_off_metrics_go_on_and_nothing_is_published(
    factory: Factory, start: Start, receiver: StubReceiver, config: AgentConfig, log: io.StringIO
) -> None:
    factory.one("good", "yield Uptime(1.0)")
    agent = start(
        client=replace(config.client, enabled=False),
        telemetry=TelemetrySettings(prometheus=PrometheusSettings(port=0)),
    )
    url = f"http://127.0.0.1:{agent.telemetry.prometheus_port}/metrics"
    with urllib.request.urlopen(url, timeout=60) as answer:
        assert b"openclaw_node_uptime_seconds" in answer.read()
    assert not agent.publisher.publishing
    agent.stop()
    assert receiver.seen == []
    assert "publishes nothing" in log.getvalue()


def test_outside_of_the_rollout_nothing_is_published(
    start: Start, receiver: StubReceiver, config: AgentConfig
) -> None:
    agent = start(client=replace(config.client, rollout_percent=0.0))
    assert not agent.publisher.publishing
    agent.stop()
    assert receiver.seen == []


def test_a_reload_that_leaves_the_node_out_of_the_rollout_says_that_it_leaves(
    start: Start, receiver: StubReceiver, config: AgentConfig
) -> None:
    agent = start()
    wait_until(lambda: receiver.seen)
    agent.reload(replace(agent.config, client=replace(config.client, rollout_percent=0.0)))
    assert not agent.publisher.publishing
    assert receiver.seen[-1].headers["openclaw-state"] == "draining"


def test_a_node_without_any_configuration_of_publishing_has_an_id_of_its_own(start: Start) -> None:
    agent = start(client=ClientSettings(enabled=False, state_dir=None))
    ((labels, _),) = scraped(agent)["target_info"].items()
    assert dict(labels)["service_name"] == "openclaw-exporter"
    assert len(agent.node_id) == 36


def test_the_end_says_so_with_the_last_state(factory: Factory, start: Start, receiver: StubReceiver) -> None:
    factory.one("good", "yield Capacity('workers', 3)")
    agent = start()
    wait_until(lambda: receiver.seen)
    agent.stop()
    last = receiver.seen[-1]
    assert last.headers["openclaw-state"] == "draining"
    assert json.loads(last.body)["capacity"]["workers"] == 3
    count = len(receiver.seen)
    agent.stop()
    assert len(receiver.seen) == count


def test_the_end_comes_in_time_whatever_hangs(
    factory: Factory, start: Start, receiver: StubReceiver, log: io.StringIO
) -> None:
    factory.one("hung", "time.sleep(3600)", deadline=60, interval=60)
    agent = start(collection=CollectionSettings(first_results=0.1))
    wait_until(lambda: receiver.seen)
    receiver.default = Answer(manner="hang")
    began = time.monotonic()
    agent.stop(timeout=2.0)
    assert time.monotonic() - began < 30, "it waited for what hangs"
    assert "collector hung/hung still runs and is left behind" in log.getvalue()


@pytest.mark.parametrize("key", ["certificate", "ca"])
def test_a_start_that_fails_names_the_file_and_leaves_nothing_running(
    config: AgentConfig, start: Start, key: str, tmp_path: Path
) -> None:
    missing = tmp_path / "missing.pem"
    client = replace(config.client, tls=replace(config.client.tls, **{key: missing}))
    with pytest.raises(UserError, match=r"missing\.pem"):
        start(client=client)
    start()  # the state directory and all ports are free again


def test_a_taken_port_is_a_mistake(start: Start) -> None:
    port = free_port()
    telemetry = TelemetrySettings(prometheus=PrometheusSettings(port=port))
    first = start(telemetry=telemetry, client=ClientSettings(enabled=False, state_dir=None))
    with pytest.raises(UserError, match=f"{port}"):
        start(telemetry=telemetry)
    first.stop()


def test_before_the_start_there_is_nothing_to_see(config: AgentConfig) -> None:
    from openclaw_exporter.agent.agent import Agent  # noqa: PLC0415 - one that is never started

    agent = Agent(config)
    assert agent.node_id == ""
    with pytest.raises(RuntimeError, match="not been started"):
        _ = agent.telemetry
    with pytest.raises(RuntimeError, match="not been started"):
        _ = agent.publisher
    agent.stop()


def test_reload_applies_what_changed(factory: Factory, start: Start, receiver: StubReceiver) -> None:
    body = """
    @dataclass(frozen=True)
    class Options:
        depth: int = 1

    class C:
        name = "queue"

        def __init__(self, options):
            self.options = options

        def collect(self):
            yield QueueDepth("tasks", self.options.depth)

    @hookimpl
    def openclaw_collectors(options: Options):
        return [C(options)]
    """
    factory.write("queue", body, footer="")
    factory.one("other", "yield Uptime(1.0)")
    agent = start()
    other = next(item for item in agent._collection.loaded if item.plugin == "other")
    publisher = agent.publisher
    wait_until(lambda: agent.view().queues)
    assert agent.view().queues["tasks"].depth == 1

    agent.reload(replace(agent.config, plugins={**BUNDLED_OFF, "queue": {"depth": 9}}, node=NODE))
    wait_until(lambda: agent.view().queues and agent.view().queues["tasks"].depth == 9)
    assert other in agent._collection.loaded
    assert agent.publisher is publisher
    wait_until(lambda: beats(receiver)[-1]["version"] == "2.4.1")

    agent.reload(replace(agent.config, plugins={**BUNDLED_OFF, "queue": {"enabled": False}}))
    assert agent.view().queues == {}


def test_a_plugin_that_needs_its_table_is_not_imported_without_one(factory: Factory, start: Start) -> None:
    body = """
    class C:
        name = "idle"

        def collect(self):
            yield Uptime(5.0)
    """
    factory.write("idle", body, on_request=True)
    module = factory.module("idle")
    agent = start()
    assert module not in sys.modules
    agent.reload(replace(agent.config, plugins={**BUNDLED_OFF, "idle": {}}))
    assert module in sys.modules
    wait_until(lambda: agent.view().uptime == 5.0)
    agent.reload(replace(agent.config, plugins=dict(BUNDLED_OFF)))
    wait_until(lambda: agent.view().uptime is None)
    assert agent._collection.loaded == ()


def test_reload_keeps_what_ran_where_the_new_is_wrong(
    factory: Factory, start: Start, receiver: StubReceiver, log: io.StringIO
) -> None:
    factory.one("good", "yield Capacity('workers', 3)")
    agent = start()
    wait_until(lambda: agent.view().capacity["workers"] == 3)
    wrong = replace(
        agent.config,
        plugins={**BUNDLED_OFF, "good": {"nonsense": 1}, "ghost": {}},
        client=replace(agent.config.client, tls=replace(agent.config.client.tls, ca=Path("missing.pem"))),
    )
    agent.reload(wrong)
    assert "plugins.good.nonsense" in log.getvalue()
    assert "the collectors that run stay as they are" in log.getvalue()
    assert "plugins.ghost" in log.getvalue()
    assert "[openclaw] stays as it was" in log.getvalue()
    broken = {state.plugin: state.errors for state in agent.board.read().collectors if not state.name}
    assert broken == {"good": {"load": 1}, "ghost": {"load": 1}}
    count = len(receiver.seen)
    wait_until(lambda: len(receiver.seen) >= count + 2)
    assert beats(receiver)[-1]["capacity"]["workers"] == 3
    agent.reload(replace(agent.config, plugins=dict(BUNDLED_OFF)))
    assert [state.key for state in agent.board.read().collectors] == [("good", "good")]


def test_reload_of_the_publisher(start: Start, receiver: StubReceiver, config: AgentConfig) -> None:
    agent = start()
    wait_until(lambda: receiver.seen)
    assert receiver.seen[-1].headers["openclaw-interval"] == "1"
    success = "openclaw_publish_success_total"
    agent.reload(replace(agent.config, client=replace(config.client, interval=2)))
    wait_until(lambda: receiver.seen[-1].headers["openclaw-interval"] == "2")
    assert "draining" not in {seen.headers.get("openclaw-state") for seen in receiver.seen}
    wait_until(lambda: scraped(agent)[success][()] == len(receiver.seen))
    assert scraped(agent)["openclaw_buffer_limit"] == {(): config.client.buffer.max_heartbeats}

    agent.reload(replace(agent.config, client=replace(config.client, enabled=False)))
    assert receiver.seen[-1].headers["openclaw-state"] == "draining"
    assert not agent.publisher.publishing
    agent.reload(replace(agent.config, client=config.client))
    count = len(receiver.seen)
    wait_until(lambda: len(receiver.seen) > count)


def test_what_is_fixed_for_the_process_is_said(start: Start, log: io.StringIO, config: AgentConfig) -> None:
    agent = start()
    agent.reload(
        replace(
            config,
            node=replace(config.node, region="elsewhere"),
            telemetry=TelemetrySettings(resource_attributes={"a": "b"}),
            client=replace(config.client, node_id="0b1e8a5e-6f43-4f0c-9a55-1f1a1f6d3c11"),
        )
    )
    text = log.getvalue()
    assert "[telemetry] and the resource attributes of [node] take effect at the next start" in text
    assert "restart it to change that" in text
    assert agent.view().tags == ("region:elsewhere",)


def test_what_has_no_room_and_what_presses_is_logged_once(
    factory: Factory, start: Start, receiver: StubReceiver, log: io.StringIO, tmp_path: Path
) -> None:
    switch = tmp_path / "drained"
    factory.one(
        "many",
        f"""
        if os.path.exists({str(switch)!r}):
            return
        yield Capacity("workers", 4)
        for n in range(32):
            yield QueueDepth(f"q{{n}}", 100)
            yield Tag(f"t{{n}}", "x")
        """,
    )
    agent = start(node=NODE, pressure=PressureSettings(topics={"q0": Threshold(soft=1, hard=50)}))
    wait_until(lambda: len(receiver.seen) >= 3)
    for line in ("has no room for more than 32 tags", "slots are withheld because of topic q0"):
        wait_until(lambda line=line: line in log.getvalue())  # type: ignore[misc]
    text = log.getvalue()
    assert text.count("has no room for more than 32 tags") == 1
    assert text.count("4 slots are withheld because of topic q0") == 1
    switch.touch()
    wait_until(lambda: "no slots are withheld any more" in log.getvalue())
    wait_until(lambda: "everything has room in the heartbeat again" in log.getvalue())
    wait_until(lambda: agent.view().cut == ())


def test_settings_that_do_not_go_together_are_named(start: Start, config: AgentConfig) -> None:
    with pytest.raises(ConfigError, match=r"openclaw\.endpoint"):
        start(client=replace(config.client, endpoint=""))
