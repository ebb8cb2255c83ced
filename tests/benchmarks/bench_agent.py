"""What an agent costs a node, beside node_exporter and netdata in the same run.

    python tests/benchmarks/bench_agent.py [SECONDS]

Prints, for a whole agent with the system, chimera and gpu plugins at a 10 s interval: resident memory, CPU a
minute, and the time from start to the first heartbeat that a receiver has stored. CPU and memory are those of
the whole process tree; each program is scraped every 10 s. The agent runs from bytecode, as pip installs it,
for which it is started once before anything is measured. Peers that are not installed are left out (Debian:
prometheus-node-exporter, netdata-core with netdata-plugins-bash, redis-server).
"""

from __future__ import annotations

import contextlib
import getpass
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

sys.path.insert(0, str(Path(__file__).parent.parent))

import psutil
from interpreter import announce

from support.command import Command, ReceiverCommand, openclaw_tables
from support.nodes import mutual_tls_client
from support.pki import Pki
from support.ports import free_port
from support.redis import RedisServer
from support.wait import wait_until

ROUNDS = 3
STARTS = 5
SCRAPE_SECONDS = 10.0
_SCHEDULED = 2  # CPUCLOCK_SCHED: with the process's number, a clock for clock_gettime(2)


class Cost(NamedTuple):
    """What one program took in one window."""

    memory: float
    cpu_a_minute: float


def tree(process: psutil.Process) -> list[psutil.Process]:
    """Return a process with all of its children."""
    return [process, *process.children(recursive=True)]


def cpu(process: psutil.Process) -> float:
    """Return CPU seconds of a tree, those of ended children included.

    The kernel's clock of each process counts nanoseconds; in the ticks of /proc a program that takes 30 ms a
    minute is two or three. Children that have ended are known in ticks only.
    """
    ended = process.cpu_times()
    running = sum(time.clock_gettime(~one.pid << 3 | _SCHEDULED) for one in tree(process))
    return running + ended.children_user + ended.children_system


def scrape(url: str) -> int:
    """Read a page; return its length, 0 where nobody answers."""
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as page:  # noqa: S310 - loopback
        return len(page.read())
    return 0


def measure(programs: dict[str, tuple[psutil.Process, str]], seconds: float) -> dict[str, Cost]:
    """Scrape every program for a while and return what each took meanwhile."""
    before = {name: cpu(process) for name, (process, _) in programs.items()}
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        for _, url in programs.values():
            scrape(url)
        time.sleep(min(SCRAPE_SECONDS, max(0.0, began + seconds - time.monotonic())))
    elapsed = time.monotonic() - began
    return {
        name: Cost(
            sum(one.memory_info().rss for one in tree(process)) / 2**20,
            (cpu(process) - before[name]) * 60 / elapsed,
        )
        for name, (process, _) in programs.items()
    }


def agent_toml(
    directory: Path, pki: Pki, node_id: str, receiver: ReceiverCommand, redis: str, port: int
) -> Path:
    """Write the configuration of an agent with the three bundled plugins."""
    config = directory / f"agent-{node_id}.toml"
    config.write_text(
        f"""
[log]
level = "warning"
{openclaw_tables(pki, node_id, receiver.url, directory / node_id)}
[telemetry.prometheus]
port = {port}
[plugins.chimera]
url = "{redis}"
workers = 8
queues = {{worker = ["task_queue"], planner = ["planner:queue"], judge = ["review_queue"]}}
"""
    )
    return config


def agent_command(config: Path, directory: Path) -> Command:
    """Return the command of an agent that keeps bytecode, in a place of its own."""
    bytecode = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(directory / "bytecode")}
    return Command(("agent", "--config", str(config)), directory / "agent.log", bytecode)


def first_heartbeats(directory: Path, pki: Pki, receiver: ReceiverCommand, redis: str) -> list[float]:
    """Start agents one by one; return the seconds from each start to its stored first heartbeat."""
    seconds = []
    with mutual_tls_client(pki.ca, pki.reader(), base_url=f"{receiver.url}/openclaw/nodes/") as api:
        for _ in range(STARTS + 1):
            node_id = str(uuid4())
            config = agent_toml(directory, pki, node_id, receiver, redis, free_port())
            agent = agent_command(config, directory)
            started = time.monotonic()
            agent.start()

            def stored(node: str = node_id) -> bool:
                return api.get(node).status_code == 200

            wait_until(stored, timeout=30, what="first heartbeat")
            seconds.append(time.monotonic() - started)
            agent.stop()
    return seconds[1:]  # the first one compiles


def peers(directory: Path) -> dict[str, tuple[subprocess.Popen[bytes], str]]:
    """Start the peers that are installed."""
    found: dict[str, tuple[subprocess.Popen[bytes], str]] = {}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    exporter = shutil.which("prometheus-node-exporter")
    if exporter:
        port = free_port()
        process = subprocess.Popen((exporter, f"--web.listen-address=127.0.0.1:{port}"), **quiet)  # type: ignore[call-overload]
        found["node_exporter"] = process, f"http://127.0.0.1:{port}/metrics"
    netdata = shutil.which("netdata")
    if netdata:
        port = free_port()
        for name in ("cache", "lib", "log"):
            (directory / name).mkdir()
        config = directory / "netdata.conf"
        config.write_text(
            f"""
[directories]
  cache = {directory}/cache
  lib = {directory}/lib
  log = {directory}/log
[web]
  bind to = 127.0.0.1:{port}
[statsd]
  enabled = no
"""
        )
        process = subprocess.Popen((netdata, "-D", "-u", getpass.getuser(), "-c", str(config)), **quiet)  # type: ignore[call-overload]
        found["netdata"] = process, f"http://127.0.0.1:{port}/api/v1/allmetrics?format=prometheus"
    return found


def print_agent(directory: Path, redis: str, seconds: float) -> None:
    """Print the whole agent beside its peers."""
    pki = Pki(directory)
    receiver = ReceiverCommand(directory, pki)
    receiver.start()
    receiver.ready()
    running: list[subprocess.Popen[bytes]] = []
    port, node_id = free_port(), str(uuid4())
    config = agent_toml(directory, pki, node_id, receiver, redis, port)
    agent = agent_command(config, directory)
    try:
        starts = first_heartbeats(directory, pki, receiver, redis)
        agent.start()
        assert agent.process is not None
        programs = {"agent": (psutil.Process(agent.process.pid), f"http://127.0.0.1:{port}/metrics")}
        for name, (process, url) in peers(directory).items():
            running.append(process)
            programs[name] = psutil.Process(process.pid), url
        for _, url in programs.values():
            wait_until(lambda url=url: scrape(url), timeout=60, what=url)
        time.sleep(10)
        rounds = [measure(programs, seconds) for _ in range(ROUNDS)]
    finally:
        for process in running:
            process.terminate()
            process.wait()
        for command in (agent, receiver):
            if command.process is not None:
                command.stop()
    windows = f"medians of {ROUNDS} windows of {seconds:.0f} s"
    print(f"\n{'program':16}{'resident MiB':>14}{'CPU s a minute':>16}   {windows}")
    medians = {
        name: Cost(*(statistics.median(cost[name][part] for cost in rounds) for part in (0, 1)))
        for name in programs
    }
    for name, cost in medians.items():
        ratios = (
            ""
            if name == "agent"
            else f"   agent / {name}: CPU {medians['agent'].cpu_a_minute / cost.cpu_a_minute:.2f}"
        )
        print(f"{name:16}{cost.memory:14.1f}{cost.cpu_a_minute:16.3f}{ratios}")
    print(
        f"\nstart to first stored heartbeat: median {statistics.median(starts):.2f} s "
        f"of {len(starts)} ({min(starts):.2f} … {max(starts):.2f})"
    )


def main() -> None:
    """Measure and print."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        server = RedisServer(directory)
        server.start()
        try:
            print_agent(directory, server.url, seconds)
        finally:
            server.stop()


if __name__ == "__main__":
    announce()
    main()
