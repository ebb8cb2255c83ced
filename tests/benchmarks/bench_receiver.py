"""What a heartbeat costs the receiver, beside nginx, etcd and Pushgateway in the same run.

    python tests/benchmarks/bench_receiver.py [--seconds N] [--rounds N] [--curve N,N…] [--only receiver]

Server CPU a request over the whole process tree, medians of the rounds. All servers have the same
certificates and ask for the client's; a thousand nodes keep a connection each (etcd: one gRPC stream, its
cheapest way); 128 requests are under way at once; the server has one core, the load the other. The receiver
verifies tokens and answers after its commit; nginx answers 204 and does nothing; Pushgateway and etcd keep
what they are told in memory; two bare Python servers (`bare_server.py`) show what the runtime alone takes.
Then the receiver alone, by the number of nodes that it knows: heartbeats of nodes drawn at random from all of
them, over plain HTTP (`insecure_dev`), where any connection may bring any. Peers that are not installed are
left out (Debian: nginx, etcd-server, prometheus-pushgateway).
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent))

import psutil
from interpreter import announce
from receiver_load import (
    IN_FLIGHT,
    LOAD_CORE,
    RENEW_EVERY,
    Beats,
    Client,
    Round,
    drive,
    measured,
    own_cpu_seconds,
)
from receiver_peers import BARE, ETCD, NGINX, PUSHGATEWAY, Peers, is_installed

from support.pki import Pki

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NODES = 1000
GOALS = {NGINX: 2.5, ETCD: 0.6, PUSHGATEWAY: 0.45}
PLAIN_GOAL, RENEWING_GOAL = 60, 85
CURVE = (1_000, 10_000, 100_000)
FLAT = 0.2
PUSHED = b"""# TYPE capacity gauge
capacity{resource="workers"} 24
capacity{resource="available_slots"} %d
# TYPE queue_depth gauge
queue_depth{topic="planner"} 3
queue_depth{topic="worker"} 120
# TYPE uptime_seconds gauge
uptime_seconds 86400
"""


class Bench:
    """The rounds of one run.

    Args:
        directory: For the servers' files.
        seconds: The length of a round.
        rounds: How many of each.
    """

    def __init__(self, directory: Path, seconds: float, rounds: int) -> None:
        (directory / "pki").mkdir()
        self.pki = Pki(directory / "pki")
        self.peers = Peers(directory, self.pki)
        self.seconds = seconds
        self.rounds = rounds
        self.node_ids = [str(uuid4()) for _ in range(NODES)]

    @contextmanager
    def clients(self, port: int) -> Iterator[list[Client]]:
        """Connect every node."""
        clients = [Client(self.pki, node_id, port) for node_id in self.node_ids]
        try:
            yield clients
        finally:
            for client in clients:
                client.close()

    def run(
        self, name: str, pid: int, load: Callable[[], int], warm: Callable[[], int] | None = None
    ) -> float:
        """Run the rounds of one server and print its line; return CPU µs a request."""
        (warm or load)()
        return report(name, [measured(pid, load) for _ in range(self.rounds)])

    def nginx(self) -> float:
        """Measure nginx."""
        with self.peers.nginx() as (pid, port), self.clients(port) as clients:
            beats = [Beats(self.pki, None, node, first_ms=now_ms()) for node in self.node_ids]
            return self.run(
                "nginx, 204",
                pid,
                lambda: drive(clients, lambda i: beats[i].next(), self.seconds, is_no_content),
            )

    def pushgateway(self) -> float:
        """Measure Pushgateway."""
        heads = [
            f"PUT /metrics/job/chimera/instance/{node} HTTP/1.1\r\nHost: localhost\r\n".encode()
            for node in self.node_ids
        ]
        body = [PUSHED % slots for slots in range(24)]
        whole = [b"Content-Length: %d\r\n\r\n%b" % (len(text), text) for text in body]
        with self.peers.pushgateway() as (pid, port), self.clients(port) as clients:
            return self.run(
                "Pushgateway, PUT",
                pid,
                lambda: drive(clients, lambda i: heads[i] + whole[i % 24], self.seconds, is_accepted),
            )

    def etcd(self) -> float:
        """Measure etcd."""
        from receiver_grpc import Leases  # noqa: PLC0415 - gRPC is loaded for nothing else

        with self.peers.etcd() as (pid, port), Leases(self.pki, port, NODES, IN_FLIGHT) as leases:
            return self.run("etcd, lease keep-alive", pid, lambda: leases.drive(self.seconds))

    def bare(self, kind: str) -> float:
        """Measure a bare Python server."""
        with self.peers.bare(kind) as (pid, port), self.clients(port) as clients:
            beats = [
                Beats(self.pki, client, node, first_ms=now_ms())
                for client, node in zip(clients, self.node_ids, strict=True)
            ]
            load = partial(drive, clients, lambda i: beats[i].next(), self.seconds, is_recorded)
            return self.run(f"bare Python, {kind}", pid, load)

    def receiver(self) -> tuple[float, float]:
        """Measure the receiver, with tokens that stay and with one renewal in eight."""
        with self.peers.receiver() as (pid, port):
            before = psutil.Process(pid).memory_info().rss
            with self.clients(port) as clients:
                return self._receiver(pid, clients, before)

    def _receiver(self, pid: int, clients: list[Client], before: int) -> tuple[float, float]:
        beats = [
            Beats(self.pki, client, node, first_ms=now_ms())
            for client, node in zip(clients, self.node_ids, strict=True)
        ]
        load = partial(drive, clients, lambda i: beats[i].next(), self.seconds, is_recorded)
        load()
        memory = (psutil.Process(pid).memory_info().rss - before) / len(clients) / 1024
        print(f"  one connection with its node: {memory:.1f} KiB resident")
        plain = self.run(
            "receiver, token verified",
            pid,
            lambda: drive(clients, lambda i: beats[i].next(), self.seconds, is_recorded),
        )
        return plain, self._renewing(pid, clients, beats)

    def _renewing(self, pid: int, clients: list[Client], beats: list[Beats]) -> float:
        sent = [number % RENEW_EVERY for number in range(NODES)]

        def next_request(i: int) -> bytes:
            sent[i] += 1
            if sent[i] % RENEW_EVERY == 0:
                beats[i].renew()
            return beats[i].next()

        def one() -> Round:
            for node in beats:
                # More than a round can use; what it leaves is not used again, for it grows old.
                node.tokens.clear()
                node.mint(max(2, round(self.seconds * 20_000 / NODES / RENEW_EVERY)))
            return measured(pid, lambda: drive(clients, next_request, self.seconds, is_recorded))

        return report(f"receiver, 1 in {RENEW_EVERY} renewed", [one() for _ in range(self.rounds)])

    def workers(self, count: int) -> float:
        """Measure the receiver with worker processes, over its whole process tree."""
        with self.peers.receiver(extra=f"workers = {count}") as (pid, port), self.clients(port) as clients:
            beats = [
                Beats(self.pki, client, node, first_ms=now_ms())
                for client, node in zip(clients, self.node_ids, strict=True)
            ]
            load = partial(drive, clients, lambda i: beats[i].next(), self.seconds, is_recorded)
            load()
            rounds = []
            shares = []
            for _ in range(self.rounds):
                before = own_cpu_seconds(pid)
                rounds.append(measured(pid, load))
                shares.append((own_cpu_seconds(pid) - before) / rounds[-1].requests * 1e6)
            name = f"receiver, {count} workers, token verified"
            figure = report(name, rounds)
            registry = statistics.median(shares)
            print(f"  of these the registry's process {registry:.1f} µs, a worker {figure - registry:.1f} µs")
            return figure

    def curve(self, known: int) -> float:
        """Measure the receiver by the number of nodes that it knows."""
        with self.peers.receiver(insecure=True, extra="max_interval = 170") as (pid, port):
            clients = [Client(self.pki, None, port) for _ in range(IN_FLIGHT)]
            ids = [str(UUID(int=random.getrandbits(128))) for _ in range(known)]
            first = now_ms()
            moment = [first]
            heads = Beats(self.pki, None, str(UUID(int=0)), first_ms=first, host=f"127.0.0.1:{port}")
            order = iter(ids)
            zero = str(UUID(int=0)).encode()

            def request(node: str) -> bytes:
                moment[0] += 1
                return heads.next().replace(zero, node.encode())

            registered = 0
            while registered < known:
                group = [node for _, node in zip(clients, order, strict=False)]
                for client, node in zip(clients, group, strict=False):
                    client.socket.sendall(request(node))
                for client in clients[: len(group)]:
                    assert is_recorded(client.answer())
                registered += len(group)
            return self.run(
                f"{known:>9,} known nodes".replace(",", " "),
                pid,
                lambda: drive(clients, lambda _: request(random.choice(ids)), self.seconds, is_recorded),
            )


def now_ms() -> int:
    """Return Unix milliseconds."""
    return time.time_ns() // 1_000_000


def is_no_content(answer: bytes) -> bool:
    """Whether it is nginx's answer."""
    return answer.startswith(b"HTTP/1.1 204")


def is_accepted(answer: bytes) -> bool:
    """Whether Pushgateway has taken it."""
    return answer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 202"))


def is_recorded(answer: bytes) -> bool:
    """Whether a heartbeat is stored, as a new one."""
    return answer.startswith(b"HTTP/1.1 200") and b'"result":"recorded"' in answer


def report(name: str, rounds: list[Round]) -> float:
    """Print one line of the table; return its CPU µs a request."""
    each = [one.microseconds for one in rounds]
    median = statistics.median(each)
    rate = statistics.median(one.requests / one.seconds for one in rounds)
    busy = statistics.median(one.cpu / one.seconds for one in rounds)
    spread = (max(each) - min(each)) / median
    print(
        f"  {name:32} {median:7.1f} µs  ±{spread / 2:4.0%}  {rate:8.0f} a second  {busy:4.0%} of a core",
        flush=True,
    )
    return median


def compare(bench: Bench, *, only: str) -> None:
    """Measure all servers and print the ratios."""
    print(
        f"{NODES} nodes, mutual TLS, connections kept, {IN_FLIGHT} under way, "
        f"{bench.rounds} rounds of {bench.seconds:g} s"
    )
    peers = {NGINX: bench.nginx, ETCD: bench.etcd, PUSHGATEWAY: bench.pushgateway}
    figures = {name: run() for name, run in peers.items() if only in ("", name) and is_installed(name)}
    floors = {f"bare Python, {kind}": bench.bare(kind) for kind in BARE if only in ("", "bare")}
    if only not in ("", "receiver"):
        return
    plain, renewing = bench.receiver()
    bench.workers(2)
    print(f"  goal: {plain:.1f} of {PLAIN_GOAL} µs, with renewals {renewing:.1f} of {RENEWING_GOAL} µs")
    for name, figure in figures.items():
        print(
            f"  receiver / {name:24} {plain / figure:.2f}, with renewals {renewing / figure:.2f}"
            f" (goal {GOALS[name]})"
        )
    for name, figure in floors.items():
        print(f"  receiver / {name:24} {plain / figure:.2f}, with renewals {renewing / figure:.2f}")


def main() -> None:
    """Run what the arguments ask for."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--seconds", type=float, default=4.0)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--curve", default=",".join(map(str, CURVE)), help="known nodes; 0: none")
    arguments.add_argument("--million", action="store_true", help="the curve goes on to 1 000 000 nodes")
    arguments.add_argument(
        "--only", default="", help="nginx, etcd, prometheus-pushgateway, bare, receiver or curve"
    )
    chosen = arguments.parse_args()
    os.sched_setaffinity(0, {LOAD_CORE})
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(Path(directory), chosen.seconds, chosen.rounds)
        if chosen.only != "curve":
            compare(bench, only=chosen.only)
        sizes = [int(size) for size in chosen.curve.split(",") if int(size)]
        if chosen.million:
            sizes.append(1_000_000)
        if sizes and chosen.only in ("", "curve"):
            print("by known nodes, drawn at random, plain HTTP")
            costs = [bench.curve(size) for size in sizes]
            print(f"  most / least: {max(costs) / min(costs):.2f} (goal {1 + FLAT})")


if __name__ == "__main__":
    announce()
    main()
