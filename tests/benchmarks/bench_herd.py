"""A fleet that reconnects at once; the receiver has its default limits.

    python tests/benchmarks/bench_herd.py [--nodes N] [--workers N] [--processes N] [--hold N] [--proxy]

The nodes are known and up; the receiver is killed and started again, and then all of them want in, each with
TLS of its own: they do what the contract asks, keep their connections, and beat on once they are in. The run
goes on for a while after that, for nobody may have expired. A connection takes memory on both sides, and a
process has so many descriptors only: a fleet that is larger than `limits.connections` needs proxies. With
`--proxy` a proxy that ends TLS brings all of them, as fast as it is answered.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import queue
import sys
import tempfile
import time
from array import array
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent))

import million_fleet
import psutil
from bench_million import others, steady
from herd_nodes import Nodes, Outcome
from interpreter import announce
from million_fleet import Fleet
from million_receiver import LONGEST, Receiver, Usage
from proxy_load import PATIENCE, Generator, percentiles

from openclaw_exporter.cli.authority import private_key_pem
from openclaw_exporter.receiver.descriptors import allow_all, allowed
from support.pki import Pki

if TYPE_CHECKING:
    from multiprocessing.queues import Queue

INTERVAL = 60
_SPARE_DESCRIPTORS = 200
_LOOK = 0.5


class Herd:
    """The nodes' processes.

    Args:
        directory: The certificates' and the fleet's.
        port: The receiver's.
        nodes: How many.
        processes: In how many processes.
        seconds: How long they are to beat.
    """

    def __init__(self, directory: Path, port: int, nodes: int, processes: int, seconds: float) -> None:
        self._nodes = nodes
        self._results: Queue[Outcome | None] = multiprocessing.Queue()
        self._go, self._end = multiprocessing.Event(), multiprocessing.Event()
        share = -(-nodes // processes)
        self._parts = [
            multiprocessing.Process(
                target=self._part,
                args=(directory, port, range(first, min(first + share, nodes)), number, seconds),
                daemon=True,
            )
            for number, first in enumerate(range(0, nodes, share))
        ]
        for part in self._parts:
            part.start()
        waiting = len(self._parts)
        while waiting:
            with contextlib.suppress(queue.Empty):
                self._result()
                waiting -= 1

    def _part(self, directory: Path, port: int, numbers: range, place: int, seconds: float) -> None:
        """Be one process of nodes."""
        nodes = Nodes(directory, port, numbers, place, INTERVAL)
        self._results.put(None)
        self._go.wait()
        self._results.put(nodes.run(seconds))
        # Until its CPU has been read.
        self._end.wait()

    def _result(self) -> Outcome | None:
        """Return what the next process has to say.

        Raises:
            queue.Empty: None has, for a moment.
            SystemExit: One has failed.
        """
        try:
            return self._results.get(timeout=_LOOK)
        except queue.Empty:
            for number, part in enumerate(self._parts, 1):
                if part.exitcode is not None:
                    message = f"nodes {number}: the process ended with {part.exitcode}"
                    raise SystemExit(message) from None
            raise

    def run(self, receiver: Receiver) -> None:
        """Let everybody come at once; report."""
        usage = Usage(receiver, {f"nodes {number}": _pid(part) for number, part in enumerate(self._parts, 1)})
        self._go.set()
        outcomes: list[Outcome] = []
        most = clients = 0
        while len(outcomes) < len(self._parts):
            most = max(most, sum(receiver.memory()))
            clients = max(clients, sum(psutil.Process(_pid(p)).memory_info().rss for p in self._parts))
            with contextlib.suppress(queue.Empty):
                outcome = self._result()
                assert outcome is not None
                outcomes.append(outcome)
        report(outcomes, self._nodes)
        print(f"  memory at most: the receiver {most / 2**20:.0f} MiB, the nodes {clients / 2**20:.0f} MiB")
        usage.report(sum(len(one.entered) + one.beats for one in outcomes))
        self._end.set()
        for part in self._parts:
            part.join()


def _pid(process: multiprocessing.Process) -> int:
    assert process.pid is not None
    return process.pid


def report(outcomes: list[Outcome], nodes: int) -> None:
    """Print what the nodes saw."""
    entered = sorted(second for one in outcomes for second in one.entered)
    print(f"{len(entered)} of {nodes} came in; {sum(one.outside for one in outcomes)} never did")
    if entered:
        marks = (0.5, 0.9, 0.99, 1.0)
        print("  " + ", ".join(f"{m:.0%} after {entered[int(m * (len(entered) - 1))]:.0f} s" for m in marks))
    latencies = array("d", (second for one in outcomes for second in one.latencies))
    print(f"  of those let in, from connecting to answered: {percentiles(latencies)}")
    waits = sum((one.waits for one in outcomes), Counter[int]())
    asked = f", Retry-After {min(waits)} to {max(waits)} s" if waits else ""
    failures = sum((one.failures for one in outcomes), Counter[str]())
    print(f"  answered 503 {waits.total()} times{asked}; no answer: {dict(failures) or 'none'}")
    late = array("d", (second for one in outcomes for second in one.late))
    intervals = sum((one.intervals for one in outcomes), Counter[int]())
    told = f", at intervals of {min(intervals)} to {max(intervals)} s" if intervals else ""
    print(f"  {len(late)} beats after the first{told}")
    if late:
        print(f"  from due to answered: {percentiles(late)}")


def herd_of_proxy(generator: Generator, receiver: Receiver, chosen: argparse.Namespace) -> None:
    """Let a proxy bring everybody; report."""
    generator.forget()
    generator.connect()
    usage, started = Usage(receiver), time.monotonic()
    generator.register()
    took = time.monotonic() - started
    print(f"{generator.recorded} of {chosen.nodes} are in after {took:.0f} s, others {others(generator)}")
    usage.report(generator.recorded)
    steady(generator, receiver, chosen.nodes / INTERVAL, chosen.seconds)


def main() -> None:
    """Run what the arguments ask for."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--nodes", type=int, default=10_000)
    arguments.add_argument("--workers", type=int, default=1)
    arguments.add_argument("--processes", type=int, default=2)
    arguments.add_argument("--seconds", type=float, default=300, help="after the receiver's return")
    arguments.add_argument("--target-rate", type=float, default=0.0, help="the receiver's")
    arguments.add_argument("--proxy", action="store_true")
    chosen = arguments.parse_args()
    announce()
    allow_all()
    if not chosen.proxy and chosen.nodes / chosen.processes > allowed() - _SPARE_DESCRIPTORS:
        arguments.error(f"a process may have {allowed()} descriptors: take more --processes, or --proxy")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        pki = Pki(directory)
        key = million_fleet.make(pki, directory / "fleet", chosen.nodes)
        (directory / "clients.key").write_bytes(private_key_pem(key))
        receiver = Receiver(
            directory,
            pki,
            chosen.workers,
            chosen.nodes,
            target_rate=chosen.target_rate,
            limits=f"header_timeout = {PATIENCE}" if chosen.proxy else "",
        )
        nodes = None
        if not chosen.proxy:
            nodes = Herd(directory, receiver.port, chosen.nodes, chosen.processes, chosen.seconds)
        receiver.start()
        generator = Generator(Fleet(directory / "fleet"), pki, receiver.port)
        try:
            generator.connect()
            for generator.interval in (LONGEST, INTERVAL):
                generator.register()
            print(f"{generator.fleet.count} nodes are up; the receiver is killed and started again")
            generator.close()
            receiver.kill()
            print(f"ready after {receiver.start()}", flush=True)
            if nodes is None:
                herd_of_proxy(generator, receiver, chosen)
            else:
                nodes.run(receiver)
            print(f"  expired {receiver.total('openclaw_registry_node_expired_total'):.0f}", end="; ")
            print(f"nodes by state {receiver.states()}")
            for metric in ("heartbeat_refused", "heartbeat_received"):
                print(f"  {metric}: {receiver.total(f'openclaw_registry_{metric}_total'):.0f}")
        finally:
            receiver.stop()


if __name__ == "__main__":
    main()
