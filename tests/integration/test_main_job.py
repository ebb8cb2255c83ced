"""The main job on real parts: queues that other processes move, agent, receiver, both metric outputs."""

from __future__ import annotations

import itertools
import re
import statistics
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
import pytest

from openclaw_exporter.wire.timestamps import parse_ms
from support import queues
from support.command import Command, ReceiverCommand, openclaw_tables, samples
from support.nodes import mutual_tls_client
from support.otlp import OtlpCollector
from support.ports import free_port
from support.sse import Events
from support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.pki import Pki
    from support.redis import RedisServer


class Swarm:
    """One agent with its receiver and OTLP collector, beside a Redis."""

    def __init__(
        self, directory: Path, pki: Pki, redis: RedisServer, otlp: OtlpCollector, *, interval: int = 1
    ) -> None:
        self.node_id = str(uuid4())
        self.redis = redis
        self.otlp = otlp
        self.port = free_port()
        self.receiver = ReceiverCommand(directory, pki, extra="min_interval = 1")
        tables = openclaw_tables(pki, self.node_id, self.receiver.url, directory / "state", interval=interval)
        config = directory / "agent.toml"
        config.write_text(
            f"""
{tables}
[node]
version = "1.2.3"
region = "test-1"
[collection]
interval = 1
deadline = 0.9
[telemetry.prometheus]
port = {self.port}
[telemetry.otlp]
enabled = true
endpoint = "{otlp.url}"
interval = 1
timeout = 1
[plugins.chimera]
url = "{redis.url}"
workers = 8
socket_timeout = 0.5
[plugins.chimera.queues]
worker = ["{queues.LIST}"]
planner = ["tenant:*:queue:task"]
judge = ["{queues.STREAM}"]
"""
        )
        self.agent = Command(("agent", "--config", str(config)), directory / "agent.log")
        self.api = mutual_tls_client(
            pki.ca, pki.reader(self.node_id), base_url=f"{self.receiver.url}/openclaw/nodes/"
        )

    def start(self) -> None:
        """Start receiver and agent, and wait for the first heartbeat."""
        self.receiver.start()
        self.receiver.ready()
        self.agent.start()
        wait_until(lambda: self.api.get(self.node_id).status_code == httpx.codes.OK, what="first heartbeat")

    def stop(self) -> None:
        """Stop both."""
        self.api.close()
        for command in (self.agent, self.receiver):
            if command.process is not None and command.process.poll() is None:
                command.stop()

    def heartbeat(self) -> dict[str, Any]:
        """Return the last heartbeat that the registry has of the node."""
        stored: dict[str, Any] = self.api.get(self.node_id).json()["heartbeat"]
        return stored

    def prometheus(self) -> dict[str, float]:
        """Scrape the agent."""
        return samples(httpx.get(f"http://127.0.0.1:{self.port}/metrics", trust_env=False, timeout=60).text)

    def depths(self) -> list[dict[str, float]]:
        """Return topic → depth as the heartbeat, Prometheus and OTLP have it."""
        scraped, exported = {}, {}
        for name, value in self.prometheus().items():
            if name.startswith("openclaw_node_queue_depth{"):
                scraped[label(name, "messaging_destination_name")] = value
        for (name, attributes), value in self.otlp.last.items():
            if name == "openclaw.node.queue.depth":
                exported[dict(attributes)["messaging.destination.name"]] = value
        return [self.heartbeat()["queue_depth"], scraped, exported]

    def agree_on(self, **expected: int) -> None:
        """Wait until all three have these depths and no others."""
        wait_until(lambda: self.depths() == [expected] * 3, what=f"{expected}, not {self.depths()},")

    def healthy(self) -> dict[str, float]:
        """Return collector → health of the chimera plugin."""
        return {
            label(name, "openclaw_collector"): value
            for name, value in self.prometheus().items()
            if name.startswith("openclaw_collector_healthy{") and 'plugin="chimera"' in name
        }


@pytest.fixture
def swarm(
    tmp_path: Path, pki: Pki, redis_server: RedisServer, request: pytest.FixtureRequest
) -> Iterator[Swarm]:
    with OtlpCollector() as otlp:
        swarm = Swarm(tmp_path, pki, redis_server, otlp, interval=getattr(request, "param", 1))
        try:
            yield swarm
        finally:
            swarm.stop()


def test_true_depths_reach_the_registry_and_both_outputs(swarm: Swarm) -> None:
    queues.run(swarm.redis.url, "fill", 7, 5, 9)
    swarm.start()
    swarm.agree_on(worker=7, planner=5, judge=9)
    queues.run(swarm.redis.url, "drain", 3, 1, 4)
    swarm.agree_on(worker=4, planner=4, judge=5)
    queues.run(swarm.redis.url, "drain", 4, 4, 5)
    swarm.agree_on(worker=0, planner=0, judge=0)
    queues.run(swarm.redis.url, "fill", 1, 0, 2)
    swarm.agree_on(worker=1, planner=0, judge=2)
    heartbeat = swarm.heartbeat()
    assert heartbeat["capacity"]["workers"] == 8
    assert heartbeat["version"] == "1.2.3"
    assert {"region:test-1", "gpu:false"} <= set(heartbeat["tags"])
    assert heartbeat["uptime_seconds"] > 0


def test_a_stopped_redis_is_unknown_and_not_zero_and_comes_back(swarm: Swarm) -> None:
    queues.run(swarm.redis.url, "fill", 2, 2, 2)
    swarm.start()
    swarm.agree_on(worker=2, planner=2, judge=2)
    swarm.redis.stop()
    swarm.agree_on()
    wait_until(lambda: swarm.healthy() == {"queues": 0, "workers": 1}, what="the queues' health alone")
    swarm.redis.start()
    queues.run(swarm.redis.url, "fill", 1, 1, 1)
    swarm.agree_on(worker=1, planner=1, judge=1)
    wait_until(lambda: swarm.healthy() == {"queues": 1, "workers": 1}, what="health")
    lines = swarm.agent.text().splitlines()
    named = [line for line in lines if "queues" in line and "warning" in line.lower()]
    assert len(named) == 1, "each cause is logged once"


@pytest.mark.parametrize("swarm", [8], indirect=True)  # so that it is not silent for too long before
def test_sigterm_tells_the_registry_that_the_node_is_draining(swarm: Swarm) -> None:
    swarm.start()
    assert swarm.api.get(swarm.node_id).json()["state"] == "up"
    with swarm.api.stream("GET", f"{swarm.receiver.url}/openclaw/events") as response:
        events = Events(response)
        assert swarm.agent.stop() == 0
        told = [(message.event, message.data["node"]["state"]) for message in events.take(2)]
    assert told == [("draining", "draining"), ("offline", "offline")]
    assert swarm.api.get(swarm.node_id).json()["state"] == "offline"
    assert not [n for n, v in swarm.receiver.metrics().items() if "node_expired_total" in n and v > 0]


@pytest.mark.slow
def test_a_redis_that_hangs_delays_no_heartbeat(swarm: Swarm) -> None:
    """Thirty beats with a Redis that answers, hangs (SIGSTOP) and is gone: each is there, and in its time."""
    swarm.start()
    swarm.agree_on(worker=0, planner=0, judge=0)
    first = len(beats(swarm))
    for act in (lambda: None, swarm.redis.freeze, swarm.redis.stop):
        act()
        known = len(beats(swarm))
        wait_until(lambda known=known: len(beats(swarm)) >= known + 10, what="ten beats")
    swarm.agent.stop()
    times = beats(swarm)[first:-1]
    # Beats keep one phase of the interval: the earliest in its second is the schedule.
    base = min(sent % 1000 for sent in rotated(times))
    late = [sent - base for sent in rotated(times)]
    lateness = [value % 1000 for value in late]
    median = statistics.median(lateness)
    print(f"\n{len(times)} beats, lateness in ms: median {median:.0f}, most {max(lateness)}")
    # Single beats wait for a crowded machine; the usual one says something of the agent.
    assert median <= 100
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert statistics.median(gaps) < 1200


def rotated(times: list[int]) -> list[int]:
    """Shift the times so that none sits at the turn of a second."""
    return [sent - times[0] + 500 for sent in times]


def beats(swarm: Swarm) -> list[int]:
    """Return the times of all heartbeats that the history has."""
    history = swarm.api.get(f"{swarm.node_id}/history").json()["history"]
    return sorted(parse_ms(entry["last_heartbeat"]) for entry in history)


def label(sample: str, name: str) -> str:
    """Return the value of a label of a sample as Prometheus writes it."""
    found = re.search(rf'[{{,]{name}="([^"]*)"', sample)
    assert found, sample
    return found[1]
