"""The three paths on which metrics reach Prometheus, each with its own receiver, agents and Prometheus.

Prometheus and Collector run with the files of `examples/observability/`, with free ports and short intervals.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal
from uuid import uuid4

from support import queues
from support.collector import CollectorServer
from support.command import Command, ReceiverCommand, openclaw_tables
from support.ports import free_port
from support.prometheus import PrometheusServer
from support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.pki import Pki

PathName = Literal["scrape", "otlp", "collector"]
PATHS: Final[tuple[PathName, ...]] = ("scrape", "otlp", "collector")
EXAMPLES: Final = Path(__file__).parents[2] / "examples" / "observability"

INTERVAL: Final = 1
"""Seconds between two scrapes, two exports and two heartbeats, in all that is started here."""

_AGENT: Final = """
[node]
version = "1.2.3"
region = "test-1"
environment = "staging"
tags = ["swarm:blue"]
[collection]
interval = {interval}
deadline = 0.9
[plugins.chimera]
url = "{redis}"
workers = 8
[plugins.chimera.queues]
worker = ["{list}"]
planner = ["{sorted}"]
judge = ["{stream}"]
"""


def example(name: str, replacements: dict[str, str]) -> str:
    """Return the text of an example with each left side, which it must have, replaced by its right side."""
    text = (EXAMPLES / name).read_text()
    for old, new in replacements.items():
        assert old in text, f"{name} has no {old!r}"
        text = text.replace(old, new)
    return text


@dataclass(slots=True)
class AgentProcess:
    """One agent and what the rest must know of it.

    Attributes:
        node_id: Its node.
        command: Its process.
        address: What serves its `/metrics`, as `HOST:PORT`; also where another path is tested.
    """

    node_id: str
    command: Command
    address: str


class MetricPath:
    """One path from agents and a receiver to a Prometheus of its own.

    Args:
        name: `scrape`: Prometheus reads `/metrics`. `otlp`: all push to Prometheus. `collector`: all push to
            a Collector, which Prometheus scrapes; the first agent by gRPC, the others and the receiver by
            HTTP.
        directory: For all files.
        pki: Certificates.
        redis: URL of the Redis that has the queues.
        agents: How many to start.
        rules: The text of a rule file that Prometheus loads.
    """

    def __init__(
        self, name: PathName, directory: Path, pki: Pki, redis: str, *, agents: int = 2, rules: str = ""
    ) -> None:
        self.name = name
        self.directory = directory
        self._pki = pki
        self._redis = redis
        self.collector = self._make_collector() if name == "collector" else None
        self._ports = [free_port() for _ in range(agents)]
        receiver = directory / "receiver"
        receiver.mkdir(parents=True)
        self.receiver = ReceiverCommand(receiver, pki, extra="min_interval = 1")
        self.prometheus = self._make_prometheus(rules)
        with (receiver / "receiver.toml").open("a") as config:
            config.write(self._telemetry(grpc=False))
        self.agents = [self._make_agent(number) for number in range(agents)]

    def start(self) -> None:
        """Start everything and wait until every agent's metrics have arrived."""
        if self.collector is not None:
            self.collector.start()
        self.prometheus.start()
        self.receiver.start()
        self.receiver.ready()
        for agent in self.agents:
            agent.command.start()
        wait_until(self._complete, what=f"metrics of every process on path {self.name}")

    def stop(self) -> None:
        """Stop everything that runs."""
        for command in (*(agent.command for agent in self.agents), self.receiver):
            if command.process is not None and command.process.poll() is None:
                command.stop()
        self.prometheus.stop()
        if self.collector is not None:
            self.collector.stop()

    def _complete(self) -> bool:
        found = {
            labels["service_instance_id"]
            for name in ("openclaw_publish_success_total", "openclaw_registry_loop_lag_seconds")
            for labels in self.prometheus.series(f"{name} >= 0")
        }
        return len(found) == len(self.agents) + 1

    def _make_collector(self) -> CollectorServer:
        config = example("collector/scraped.yaml", {"150s": f"{5 * INTERVAL}s"})
        return CollectorServer(self.directory / "collector", config)

    def _make_prometheus(self, rules: str) -> PrometheusServer:
        folder = self.directory / "prometheus"
        (folder / "rules").mkdir(parents=True)
        if rules:
            (folder / "rules" / "rules.yml").write_text(rules)
        replacements = {"evaluation_interval: 30s": f"evaluation_interval: {INTERVAL}s"}
        if self.name != "otlp":
            replacements["scrape_interval: 30s"] = f"scrape_interval: {INTERVAL}s"
        if self.name == "scrape":
            targets = ", ".join(f'"127.0.0.1:{port}"' for port in self._ports)
            replacements['"127.0.0.1:9464"'] = targets
            replacements["127.0.0.1:9465"] = f"127.0.0.1:{self.receiver.admin_port}"
        if self.collector is not None:
            replacements["127.0.0.1:8889"] = self.collector.exposition
        return PrometheusServer(folder, example(f"prometheus/{self.name}.yml", replacements))

    def _make_agent(self, number: int) -> AgentProcess:
        folder = self.directory / f"agent-{number}"
        folder.mkdir()
        node_id = str(uuid4())
        tables = openclaw_tables(self._pki, node_id, self.receiver.url, folder / "state", interval=INTERVAL)
        own = _AGENT.format(
            interval=INTERVAL,
            redis=self._redis,
            list=queues.LIST,
            sorted="tenant:*:queue:task",
            stream=queues.STREAM,
        )
        port = self._ports[number]
        config = folder / "agent.toml"
        config.write_text(
            f"{tables}{own}[telemetry.prometheus]\nport = {port}\n{self._telemetry(grpc=number == 0)}"
        )
        command = Command(("agent", "--config", str(config)), folder / "agent.log")
        return AgentProcess(node_id, command, f"127.0.0.1:{port}")

    def _telemetry(self, *, grpc: bool) -> str:
        if self.name == "scrape":
            return ""
        endpoint, protocol = self.prometheus.otlp, "http/protobuf"
        if self.collector is not None:
            endpoint = self.collector.grpc if grpc else self.collector.http
            protocol = "grpc" if grpc else protocol
        return f"""
[telemetry.otlp]
enabled = true
endpoint = "{endpoint}"
protocol = "{protocol}"
interval = {INTERVAL}
timeout = {INTERVAL}
"""


@contextlib.contextmanager
def metric_paths(
    directory: Path, pki: Pki, redis: str, *, agents: int = 2, rules: str = ""
) -> Iterator[dict[PathName, MetricPath]]:
    """Start all three paths over one Redis; stop them at the end."""
    paths: dict[PathName, MetricPath] = {}
    with contextlib.ExitStack() as ending:
        for name in PATHS:
            path = MetricPath(name, directory / name, pki, redis, agents=agents, rules=rules)
            ending.callback(path.stop)
            paths[name] = path
        for path in paths.values():
            path.start()
        yield paths
