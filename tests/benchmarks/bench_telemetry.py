"""What metrics cost: an agent's scrape beside node_exporter's, an OTLP export, a receiver of 10 000 nodes.

    python tests/benchmarks/bench_telemetry.py [--rounds N] [--count N]

CPU milliseconds of the whole process, medians of the rounds; what the process takes by itself in the same
time is subtracted. Scrapes ask for what Prometheus asks for. OTLP goes to a real Collector where
`.ci/install-observability` has built one. The receiver's registry is filled in memory, with 500 versions and
200 regions; its `/metrics` is taken with a census that is new each time, and with one that is kept. A peer
that is not installed is left out (Debian: prometheus-node-exporter).
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))

import psutil
import pytest
from interpreter import announce
from receiver.test_store import beat
from receiver.virtual import World, node_id

from openclaw_exporter.receiver.census import take_census
from openclaw_exporter.receiver.metrics import ReceiverMetrics
from openclaw_exporter.telemetry.provider import Telemetry
from openclaw_exporter.telemetry.settings import PrometheusSettings, TelemetrySettings
from support.collector import CollectorServer
from support.command import Command
from support.metric_paths import example
from support.ports import free_port
from support.redis import RedisServer
from support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SCRAPE_GOAL, EXPORT_GOAL, RECEIVER_GOAL = 3.0, 5.0, 50.0
NODES, VERSIONS, REGIONS = 10_000, 500, 200
ASKED = {
    "Accept": "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
    "Accept-Encoding": "gzip",
}

# One agent in a process of its own; each line that it reads makes so many exports, each answered by a line.
_EXPORTING = """
import json, sys, time
from pathlib import Path
from openclaw_exporter.agent.agent import Agent
from openclaw_exporter.agent.settings import AgentConfig
from openclaw_exporter.client import ClientSettings
from openclaw_exporter.telemetry.settings import OtlpSettings, PrometheusSettings, TelemetrySettings
state, plugins, endpoint, protocol = sys.argv[1:]
otlp = OtlpSettings(enabled=True, endpoint=endpoint, protocol=protocol, interval=3600)
agent = Agent(AgentConfig(
    client=ClientSettings(enabled=False, state_dir=Path(state)),
    telemetry=TelemetrySettings(otlp=otlp, prometheus=PrometheusSettings(enabled=False)),
    plugins=json.loads(plugins),
))
agent.start()
print("ready", flush=True)
for line in sys.stdin:
    for _ in range(int(line)):
        agent.telemetry.export()
    print("done", flush=True)
agent.stop(draining=False)
"""


class Figure(NamedTuple):
    """One line of the table; milliseconds."""

    name: str
    milliseconds: float
    rounds: Sequence[float]
    goal: float | None


def show(figure: Figure) -> None:
    """Print one line of the table."""
    spread = f"{min(figure.rounds):.2f} … {max(figure.rounds):.2f}"
    goal = "" if figure.goal is None else f"goal {figure.goal:.0f}"
    print(f"{figure.name:<58} {figure.milliseconds:7.2f} ms   {spread:<16} {goal}")


def cpu(process: psutil.Process) -> float:
    """Return the CPU seconds of a process."""
    times = process.cpu_times()
    return times.user + times.system


def measure(
    name: str, pid: int, work: Callable[[], object], rounds: int, count: int, goal: float | None
) -> Figure:
    """Do the work `count` times a round and return what each time cost the process beyond its own work."""
    process = psutil.Process(pid)
    work()
    found = []
    for _ in range(rounds):
        before, began = cpu(process), time.monotonic()
        time.sleep(3)
        idle = (cpu(process) - before) / (time.monotonic() - began)
        before, began = cpu(process), time.monotonic()
        for _ in range(count):
            work()
        own = idle * (time.monotonic() - began)
        found.append((cpu(process) - before - own) / count * 1000)
    return Figure(name, statistics.median(found), found, goal)


def scraping(port: int) -> Callable[[], object]:
    """Return what scrapes a program once, as Prometheus does."""

    def scrape() -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/metrics", headers=ASKED)
        size = len(connection.getresponse().read())
        connection.close()
        return size

    return scrape


def answers(port: int) -> bool:
    """Tell whether a program can be scraped yet."""
    try:
        return bool(scraping(port)())
    except OSError:
        return False


def plugins(redis: str) -> dict[str, object]:
    """Return the tables of an agent beside a Chimera."""
    queues = {"worker": ["task_queue"], "planner": ["planner:queue"], "judge": ["review_queue"]}
    return {"chimera": {"url": redis, "workers": 8, "queues": queues}}


def scrapes(directory: Path, redis: str, rounds: int, count: int) -> None:
    """Scrape an agent and node_exporter."""
    with ExitStack() as ending:
        port = free_port()
        config = directory / "agent.toml"
        table = plugins(redis)["chimera"]
        assert isinstance(table, dict)
        queues = ", ".join(f"{topic} = {json.dumps(keys)}" for topic, keys in table["queues"].items())
        config.write_text(
            f"""
[openclaw]
enabled = false
state_dir = "{directory / "state"}"
[telemetry.prometheus]
port = {port}
[plugins.chimera]
url = "{redis}"
workers = 8
queues = {{{queues}}}
"""
        )
        agent = Command(("agent", "--config", str(config)), directory / "agent.log")
        agent.start()
        ending.callback(agent.kill)
        programs = {"agent: a scrape": (agent.process, port, SCRAPE_GOAL)}
        if shutil.which("prometheus-node-exporter"):
            peer = free_port()
            node = subprocess.Popen(
                ("prometheus-node-exporter", f"--web.listen-address=127.0.0.1:{peer}"),
                stderr=subprocess.DEVNULL,
            )
            ending.callback(node.kill)
            programs["node_exporter: a scrape"] = (node, peer, None)
        for name, (process, at, goal) in programs.items():
            assert process is not None
            wait_until(lambda at=at: answers(at), timeout=30, what=name)  # type: ignore[misc]
            time.sleep(2)  # the first collections are over
            show(measure(name, process.pid, scraping(at), rounds, count, goal))


def exports(directory: Path, redis: str, rounds: int, count: int) -> None:
    """Export an agent's metrics by OTLP, over HTTP and gRPC."""
    try:
        collector = CollectorServer(directory / "collector", example("collector/scraped.yaml", {}))
    except pytest.skip.Exception as missing:
        print(f"no OTLP: {missing}")
        return
    with collector:
        for protocol, endpoint in (("http/protobuf", collector.http), ("grpc", collector.grpc)):
            arguments = (str(directory / protocol[:4]), json.dumps(plugins(redis)), endpoint, protocol)
            with subprocess.Popen(
                (sys.executable, "-c", _EXPORTING, *arguments),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                bufsize=1,
            ) as child:
                assert child.stdin is not None
                assert child.stdout is not None
                assert child.stdout.readline() == "ready\n"
                time.sleep(2)

                def export(child: subprocess.Popen[str] = child) -> None:
                    assert child.stdin is not None
                    assert child.stdout is not None
                    child.stdin.write("1\n")
                    assert child.stdout.readline() == "done\n"

                show(
                    measure(
                        f"agent: an OTLP export by {protocol}", child.pid, export, rounds, count, EXPORT_GOAL
                    )
                )
                child.stdin.close()


def receiver(rounds: int) -> None:
    """Take `/metrics` of a registry of 10 000 nodes."""
    chosen = random.Random(1)
    world = World()
    for number in range(NODES):
        tags = (
            f"region:region-{chosen.randrange(REGIONS)}",
            f"env:{chosen.choice(('prod', 'staging', 'test'))}",
            f"swarm:swarm-{number % 100}",
            f"gpu:{chosen.choice(('true', 'false'))}",
        )
        world.arrive(beat(1, node_id(number), tags=tags, version=f"1.{chosen.randrange(VERSIONS)}"))
    states = list(world.registry.nodes.values())
    settings = TelemetrySettings(prometheus=PrometheusSettings(enabled=False))
    telemetry = Telemetry.start(settings, service="openclaw-receiver", node_id="bench")
    metrics = ReceiverMetrics(telemetry.meter, "sqlite")
    kept = take_census(states, world.registry.listening.latest)
    metrics.watch(lambda: kept)
    for state in states:
        metrics.happened("registered", state)
    series = sum(1 for line in telemetry.exposition().splitlines() if not line.startswith(b"#"))
    figures: list[tuple[str, Callable[[], object]]] = [
        ("with a new census", lambda: (take_census(states, 1.0), telemetry.exposition())),
        ("with the census of a moment ago", telemetry.exposition),
    ]
    for name, work in figures:
        found = []
        work()
        for _ in range(rounds):
            before = time.process_time()
            for _ in range(5):
                work()
            found.append((time.process_time() - before) / 5 * 1000)
        title = f"receiver, {NODES} nodes, {series} series: {name}"
        show(Figure(title, statistics.median(found), found, RECEIVER_GOAL))
    metrics.close()
    telemetry.shutdown()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=100, help="scrapes or exports in a round")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        redis = RedisServer(directory)
        redis.start()
        try:
            scrapes(directory, redis.url, options.rounds, options.count)
            exports(directory, redis.url, options.rounds, options.count)
        finally:
            redis.stop()
    receiver(options.rounds)


if __name__ == "__main__":
    announce()
    main()
