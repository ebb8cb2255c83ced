"""A receiver behind a proxy with a great many nodes, in processes of its own, and what those use."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from itertools import zip_longest
from typing import TYPE_CHECKING

import httpx
import psutil
from receiver_load import own_cpu_seconds

from support.command import samples, trust_tables
from support.ports import free_port
from support.tls_proxies import TRUSTED

if TYPE_CHECKING:
    from pathlib import Path

    from support.pki import Pki

LONGEST = 900
"""Seconds of the longest interval, which nodes have until all are registered: none is to expire for that."""


class Receiver:
    """The receiver under test, with its workers.

    Args:
        directory: For its files.
        pki: Its authority.
        workers: How many.
        nodes: How many it is to remember.
        target_rate: The rate to which it is to stretch intervals; 0: none.
        longest: The longest interval, seconds.
        limits: Lines of the table `[receiver.limits]`.
    """

    def __init__(
        self,
        directory: Path,
        pki: Pki,
        workers: int,
        nodes: int,
        *,
        target_rate: float = 0.0,
        longest: int = LONGEST,
        limits: str = "",
    ) -> None:
        self.port, self.admin_port = free_port(), free_port()
        self.registry = directory / f"registry-{workers}.sqlite"
        self._log = directory / "receiver.log"
        self._path = directory / f"receiver-{workers}.toml"
        self._path.write_text(f"""
[receiver]
port = {self.port}
workers = {workers}
max_interval = {longest}
target_rate = {target_rate:.1f}
[receiver.proxy]
names = ["{TRUSTED.names[0]}"]
remembered = {nodes + 1}
{trust_tables(pki, pki.server())}profile = "external"
[receiver.store]
url = "sqlite:///{self.registry}"
[receiver.limits]
keep_alive = {longest + 60}
{limits}
[receiver.admin]
port = {self.admin_port}
""")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> str:
        """Start it; return in words how long it took until it was ready."""
        started = time.monotonic()
        with self._log.open("ab") as log:
            command = (sys.executable, "-m", "openclaw_exporter", "receiver", "--config", str(self._path))
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        while True:
            assert self.process.poll() is None, self._log.read_text()[-2000:]
            try:
                if self._get("/readyz").status_code == httpx.codes.OK:
                    cpu = sum(own_cpu_seconds(pid) for pid in self.pids())
                    return f"{time.monotonic() - started:.1f} s, {cpu:.1f} s of CPU"
            except httpx.TransportError:
                time.sleep(0.02)

    def kill(self) -> None:
        """Kill the process that holds the registry; its workers end with it."""
        assert self.process is not None
        workers = self.workers()
        self.process.kill()
        self.process.wait()
        psutil.wait_procs(workers, timeout=30)

    def stop(self) -> None:
        """End it."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)

    def workers(self) -> list[psutil.Process]:
        """Return its workers."""
        assert self.process is not None
        return psutil.Process(self.process.pid).children()

    def pids(self) -> list[int]:
        """Return its processes, the one with the registry first."""
        assert self.process is not None
        return [self.process.pid, *(worker.pid for worker in self.workers())]

    def memory(self) -> list[int]:
        """Return what each of its processes has for itself, bytes."""
        infos = [psutil.Process(pid).memory_info() for pid in self.pids()]
        return [info.rss - info.shared for info in infos]

    def total(self, name: str) -> float:
        """Return the sum of a metric's series."""
        return sum(
            value for key, value in samples(self._get("/metrics").text).items() if key.startswith(name)
        )

    def states(self) -> dict[str, int]:
        """Return how many nodes it counts, by state."""
        counted: dict[str, int] = {}
        for key, value in samples(self._get("/metrics").text).items():
            if key.startswith("openclaw_registry_node_count{"):
                state = key.partition('openclaw_node_state="')[2].partition('"')[0]
                counted[state] = counted.get(state, 0) + int(value)
        return counted

    def _get(self, path: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.admin_port}{path}", trust_env=False, timeout=60)


class Usage:
    """What each process uses between two moments.

    Args:
        receiver: The receiver.
        load: The processes that are not the receiver's, by name.
    """

    def __init__(self, receiver: Receiver, load: dict[str, int] | None = None) -> None:
        self._receiver = receiver
        own = receiver.pids()
        load = load or {"generator": os.getpid()}
        self._names = ["registry", *(f"worker {n}" for n in range(1, len(own))), *load]
        self._own = len(own)
        self._pids = [*own, *load.values()]
        self._before = [own_cpu_seconds(pid) for pid in self._pids]
        self._machine = psutil.cpu_times()
        self._started = time.monotonic()

    def report(self, requests: int) -> None:
        """Print it."""
        seconds = time.monotonic() - self._started
        cpu = [own_cpu_seconds(pid) - was for pid, was in zip(self._pids, self._before, strict=True)]
        memory = [f", {size / 2**20:7.0f} MiB" for size in self._receiver.memory()]
        for name, used, held in zip_longest(self._names, cpu, memory, fillvalue=""):
            print(f"  {name:10} {used / seconds:5.0%} of a core, {_each(used, requests)}{held}")
        all_receiver = sum(cpu[: self._own])
        print(
            f"  receiver in all {all_receiver / seconds:5.0%}, {_each(all_receiver, requests)}; "
            f"all else on the machine took {self._others(sum(cpu)) / seconds:.0%} of a core"
        )

    def _others(self, ours: float) -> float:
        now, was = psutil.cpu_times(), self._machine
        idle = (now.idle + now.iowait) - (was.idle + was.iowait)
        total = sum(now[:8]) - sum(was[:8])
        return float(max(0.0, total - idle - ours))


def _each(seconds: float, requests: int) -> str:
    return f"{seconds / max(1, requests) * 1e6:6.1f} µs a heartbeat"
