"""A fleet that reconnects at once, each node with TLS of its own; the receiver has its default limits.

    python tests/benchmarks/bench_herd.py [--nodes N] [--workers N] [--processes N] [--at-once N]

The nodes are known and up; the receiver is killed and started again, and then all of them want in. A machine
has room for so many sockets and so much TLS only: `--at-once` connections are under way at a time in each
process of clients, from source addresses of their own, and who is in closes its connection and is heard no
more: a run that takes longer than two intervals sees them expire. A node does what the contract asks: it
obeys `Retry-After`, and backs off with full jitter where it hears nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import multiprocessing
import os
import random
import ssl
import sys
import tempfile
import time
from array import array
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent))

import million_fleet
import psutil
import uvloop
from bench_million import Generator, Receiver, percentiles, request_of
from million_fleet import Fleet

from openclaw_exporter.cli.authority import private_key_pem
from support.pki import Pki

if TYPE_CHECKING:
    from multiprocessing.queues import Queue

PATIENCE = 10.0
"""Seconds that a client waits for anything, as the publisher does."""

BASE, CAP = 1.0, 30.0
"""Of the backoff, seconds."""


class Outcome(NamedTuple):
    """What one process of clients saw.

    Attributes:
        entered: Seconds after the start at which each node was in.
        latencies: Seconds from connecting to the answer, of those that were let in.
        turned_away: Answers 503.
        waits: The `Retry-After` of those.
        failures: Connections that ended without an answer, by kind.
    """

    entered: array[float]
    latencies: array[float]
    turned_away: int
    waits: array[float]
    failures: dict[str, int]


class Clients:
    """Some of the nodes, in one process.

    Args:
        directory: The certificates' and the fleet's.
        port: The receiver's.
        numbers: Theirs.
        address: The source address.
        at_once: Connections under way at a time.
        until: When to give up, of the monotonic clock.
    """

    def __init__(
        self, directory: Path, port: int, numbers: range, address: str, at_once: int, until: float
    ) -> None:
        self._fleet = Fleet(directory / "fleet")
        self._directory = directory
        self._port = port
        self._numbers = numbers
        self._address = address
        self._free = asyncio.Semaphore(at_once)
        self._until = until
        self._started = time.monotonic()
        self.outcome = Outcome(array("d"), array("d"), 0, array("d"), {})
        self._turned_away = 0

    async def run(self) -> Outcome:
        """Bring all of them in."""
        await asyncio.gather(*(self._node(number) for number in self._numbers))
        return self.outcome._replace(turned_away=self._turned_away)

    async def _node(self, number: int) -> None:
        failed = 0
        while time.monotonic() < self._until:
            async with self._free:
                started = time.monotonic()
                wait = await self._attempt(number)
            if wait is None:
                self.outcome.entered.append(time.monotonic() - self._started)
                self.outcome.latencies.append(time.monotonic() - started)
                return
            if wait:
                self._turned_away += 1
                self.outcome.waits.append(wait)
                failed = 0
                await asyncio.sleep(wait)
            else:
                failed += 1
                await asyncio.sleep(random.uniform(0, min(CAP, BASE * 2**failed)))

    async def _attempt(self, number: int) -> float | None:
        """Publish once; return None: it is in, 0: it heard nothing, else after how long it may come back."""
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._exchange(number)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError) as error:
            kind = type(error).__name__
            self.outcome.failures[kind] = self.outcome.failures.get(kind, 0) + 1
            return 0.0

    async def _exchange(self, number: int) -> float | None:
        certificate, authorization = self._fleet.fields(number).split(b"\r\n")[:2]
        context = self._context(number, certificate)
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self._port, ssl=context, server_hostname="localhost", local_addr=(self._address, 0)
        )
        try:
            writer.write(request_of(number, authorization + b"\r\n"))
            head = await reader.readuntil(b"\r\n\r\n")
            status = int(head.split(b" ", 2)[1])
            if status == 200:
                return None
            if status != 503:
                message = f"{status}"
                raise ValueError(message)
            fields = head.lower().split(b"\r\n")
            return float(next(one for one in fields if one.startswith(b"retry-after:")).split(b":")[1])
        finally:
            writer.transport.abort()

    def _context(self, number: int, field: bytes) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self._directory / "ca.pem")
        der = base64.b64decode(field.split(b":")[2])
        path = self._directory / f"client-{os.getpid()}-{number % 64}.pem"
        path.write_text(ssl.DER_cert_to_PEM_cert(der))
        context.load_cert_chain(path, self._directory / "clients.key")
        return context


def clients(
    results: Queue[Outcome],
    directory: Path,
    port: int,
    numbers: range,
    place: int,
    at_once: int,
    until: float,
) -> None:
    """Be one process of clients."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:

        async def main() -> Outcome:
            # Who gives up in the middle of a handshake is counted; uvloop says so once more.
            asyncio.get_running_loop().set_exception_handler(lambda *_: None)
            return await Clients(directory, port, numbers, f"127.0.1.{place + 1}", at_once, until).run()

        results.put(runner.run(main()))


def herd(directory: Path, receiver: Receiver, chosen: argparse.Namespace) -> None:
    """Let everybody come at once; report."""
    results: Queue[Outcome] = multiprocessing.Queue()
    share = -(-chosen.nodes // chosen.processes)
    until = time.monotonic() + chosen.seconds
    parts = [
        multiprocessing.Process(
            target=clients,
            args=(
                results,
                directory,
                receiver.port,
                range(first, min(first + share, chosen.nodes)),
                place,
                chosen.at_once,
                until,
            ),
        )
        for place, first in enumerate(range(0, chosen.nodes, share))
    ]
    started = time.monotonic()
    for part in parts:
        part.start()
    outcomes, most = [], 0
    while len(outcomes) < len(parts):
        most = max(most, sum(psutil.Process(pid).memory_info().rss for pid in receiver.pids()))
        while not results.empty():
            outcomes.append(results.get())
        time.sleep(0.5)
    for part in parts:
        part.join()
    entered = array("d", sorted(second for one in outcomes for second in one.entered))
    latencies = array("d", (second for one in outcomes for second in one.latencies))
    waits = sorted(wait for one in outcomes for wait in one.waits)
    failures: dict[str, int] = {}
    for one in outcomes:
        for kind, count in one.failures.items():
            failures[kind] = failures.get(kind, 0) + count
    print(f"{len(entered)} of {chosen.nodes} are in after {time.monotonic() - started:.0f} s")
    marks = (0.5, 0.9, 0.99, 1.0)
    print("  " + ", ".join(f"{m:.0%} after {entered[int(m * (len(entered) - 1))]:.0f} s" for m in marks))
    print(f"  of those let in, from connecting to answered: {percentiles(latencies)}")
    asked = f", Retry-After {waits[0]:.0f} to {waits[-1]:.0f} s" if waits else ""
    print(f"  turned away {sum(one.turned_away for one in outcomes)}{asked}; no answer: {failures or 'none'}")
    print(f"  the receiver's memory at most {most / 2**20:.0f} MiB")


def main() -> None:
    """Run what the arguments ask for."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--nodes", type=int, default=100_000)
    arguments.add_argument("--workers", type=int, default=1)
    arguments.add_argument("--processes", type=int, default=2)
    arguments.add_argument("--at-once", type=int, default=1000)
    arguments.add_argument("--seconds", type=float, default=900)
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        pki = Pki(directory)
        key = million_fleet.make(pki, directory / "fleet", chosen.nodes)
        (directory / "clients.key").write_bytes(private_key_pem(key))
        receiver = Receiver(directory, pki, chosen.workers, chosen.nodes)
        receiver.start()
        generator = Generator(Fleet(directory / "fleet"), pki, receiver.port)
        generator.connect()
        generator.register()
        print(f"{generator.answered} nodes are known; the receiver is killed and started again")
        generator.close()
        receiver.kill()
        receiver.start()
        try:
            herd(directory, receiver, chosen)
            print(f"  expired: {receiver.total('openclaw_registry_node_expired_total'):.0f}")
            for metric in ("heartbeat_refused", "heartbeat_received"):
                print(f"  {metric}: {receiver.total(f'openclaw_registry_{metric}_total'):.0f}")
        finally:
            receiver.stop()


if __name__ == "__main__":
    main()
