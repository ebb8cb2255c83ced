"""A million known nodes at 60 s on one machine, brought by a proxy over a few kept connections (RFC 9440).

    python tests/benchmarks/bench_million.py [--nodes N] [--rate N] [--seconds N] [--workers N] [--keep DIR]

The load generator is on the same machine. It shows a proxy's certificate, sends each node's own certificate
and token, at the given rate by a fixed timetable: a latency counts from the moment at which the request was
due, so that a generator that waits for answers hides nothing. Then the receiver's process is killed (-9)
under the same load: how long until it is ready, is what was acknowledged there, does anybody expire?

First every node registers, as fast as it goes: that costs a chain and a token verification each.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from array import array
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent))

import httpx
import million_fleet
import psutil
from million_fleet import Fleet, node_id
from receiver_load import own_cpu_seconds

from openclaw_exporter.wire.timestamps import format_ms
from support.command import samples
from support.pki import Pki
from support.ports import free_port
from support.tls_proxies import TRUSTED

if TYPE_CHECKING:
    from collections.abc import Iterator

CONNECTIONS = 256
GROUPS = 4
_READ = 65_536
_FAR_BEHIND = 10.0
_HEAD = b"POST /openclaw/availability HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
# To register everybody may take longer than a node may be silent; none is to expire for that.
_WHILE_REGISTERING, _INTERVAL = b"OpenClaw-Interval: 120\r\n", b"OpenClaw-Interval: 60\r\n"
_TAIL = b"OpenClaw-Sequence: %d.%d\r\nContent-Length: %d\r\n\r\n%b"
_BODY = (
    b'{"capacity":{"available_slots":5,"workers":24},"hostname":"chimera-01.prod","last_heartbeat":"%b",'
    b'"node_id":"%b","queue_depth":{"planner":3,"worker":120},"tags":["region:us-east-1","gpu:true",'
    b'"env:prod","swarm:blue"],"uptime_seconds":86400,"version":"1.2.0"}'
)
_RECORDED = b'{"result":"recorded"'
_DUPLICATE = b'{"result":"duplicate"'


class Sent(NamedTuple):
    """One request under way, or answered: what it needs to be sent again."""

    number: int
    sent_ms: int
    beat: int
    due: float


class LostError(Exception):
    """The receiver has gone."""


class Generator:
    """Publishes for a fleet over a few connections.

    Args:
        fleet: The nodes.
        pki: Whose authority signed the receiver's certificate.
        port: The receiver's.
    """

    def __init__(self, fleet: Fleet, pki: Pki, port: int) -> None:
        self.fleet = fleet
        self._pki = pki
        self._port = port
        self.epoch = int(time.time() * 1000)
        self.beat = 0
        self._interval = _WHILE_REGISTERING
        self.latencies = array("d")
        self.answered = 0
        self.other: dict[bytes, int] = {}
        self.recent: list[Sent] = []
        self.latest = 0.0
        self._groups: list[list[ssl.SSLSocket]] = []
        self._under_way: list[list[Sent]] = [[] for _ in range(GROUPS)]

    def connect(self) -> None:
        """Open the proxy's connections."""
        files = self._pki.proxy()
        context = ssl.create_default_context(cafile=str(self._pki.ca))
        context.load_cert_chain(files.certificate, files.key)
        self._under_way = [[] for _ in range(GROUPS)]
        self._groups = [
            [self._connection(context) for _ in range(CONNECTIONS // GROUPS)] for _ in range(GROUPS)
        ]

    def _connection(self, context: ssl.SSLContext) -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", self._port), timeout=60)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return context.wrap_socket(plain, server_hostname="localhost")

    def close(self) -> None:
        """Close them."""
        for group in self._groups:
            for connection in group:
                connection.close()

    def register(self) -> None:
        """Publish every node once, as fast as it goes."""
        self.run(range(self.fleet.count), 0.0)
        self._interval = _INTERVAL

    def run(self, numbers: Iterator[int] | range, rate: float, *, until: float = float("inf")) -> None:
        """Publish one node after the other.

        Args:
            numbers: Theirs.
            rate: Heartbeats a second; 0: as fast as answers come.
            until: When to stop, of the monotonic clock.

        Raises:
            LostError: The receiver has gone.
        """
        turn, size = 0, CONNECTIONS // GROUPS
        started = time.monotonic()
        done = 0
        waiting = iter(numbers)
        while True:
            group = [number for _, number in zip(range(size), waiting, strict=False)]
            due = started + done / rate if rate else time.monotonic()
            done += len(group)
            if not group or max(due, time.monotonic() - _FAR_BEHIND) > until:
                break
            self._collect(turn)
            pause = due + (len(group) - 1) / rate - time.monotonic() if rate else 0.0
            if pause > 0:
                time.sleep(pause)
            else:
                self.latest = max(self.latest, -pause)
            self._send(turn, group, due, 1 / rate if rate else 0.0)
            turn = (turn + 1) % GROUPS
        for group_number in range(GROUPS):
            self._collect((turn + group_number) % GROUPS)

    def again(self, sent: list[Sent]) -> int:
        """Send heartbeats once more; return how many of them the receiver knew."""
        known = 0
        for start in range(0, len(sent), CONNECTIONS // GROUPS):
            part = sent[start : start + CONNECTIONS // GROUPS]
            connections = self._groups[0]
            for one, connection in zip(part, connections, strict=False):
                connection.sendall(self._request(one.number, one.sent_ms, one.beat))
            for _, connection in zip(part, connections, strict=False):
                known += _body(connection).startswith(_DUPLICATE)
        return known

    def _send(self, turn: int, group: list[int], due: float, gap: float) -> None:
        under_way = self._under_way[turn]
        sent_ms = int(time.time() * 1000)
        # Never a whole second: all bodies are equally long.
        sent_ms += not sent_ms % 1000
        self.beat += 1
        beat = self.beat
        moment = format_ms(sent_ms).encode()
        try:
            for connection, number in zip(self._groups[turn], group, strict=False):
                body = _BODY % (moment, node_id(number))
                tail = _TAIL % (self.epoch, beat, len(body), body)
                connection.sendall(_HEAD + self._interval + self.fleet.fields(number) + tail)
                under_way.append(Sent(number, sent_ms, beat, due))
                due += gap
        except OSError as error:
            raise LostError from error

    def _request(self, number: int, sent_ms: int, beat: int) -> bytes:
        body = _BODY % (format_ms(sent_ms).encode(), node_id(number))
        return _HEAD + _INTERVAL + self.fleet.fields(number) + _TAIL % (self.epoch, beat, len(body), body)

    def _collect(self, turn: int) -> None:
        """Read the answers of a group."""
        under_way, self._under_way[turn] = self._under_way[turn], []
        note = self.latencies.append
        try:
            for connection, sent in zip(self._groups[turn], under_way, strict=False):
                body = _body(connection)
                note(time.monotonic() - sent.due)
                if body.startswith(_RECORDED):
                    self.answered += 1
                    self.recent.append(sent)
                else:
                    self.other[body[:120]] = self.other.get(body[:120], 0) + 1
        except OSError as error:
            raise LostError from error
        if len(self.recent) > 100_000:
            del self.recent[:50_000]


def _body(connection: ssl.SSLSocket) -> bytes:
    answer = connection.recv(_READ)
    _, end, body = answer.partition(b"\r\n\r\n")
    if not end:
        raise ConnectionResetError
    return body


def request_of(number: int, credentials: bytes) -> bytes:
    """Return a node's heartbeat of this moment, in an order of its own."""
    sent_ms = int(time.time() * 1000)
    body = _BODY % (format_ms(sent_ms + (not sent_ms % 1000)).encode(), node_id(number))
    return _HEAD + _INTERVAL + credentials + _TAIL % (sent_ms, 0, len(body), body)


class Receiver:
    """The receiver under test, with its workers.

    Args:
        directory: For its files.
        pki: Its authority.
        workers: How many.
        nodes: How many it is to remember.
    """

    def __init__(self, directory: Path, pki: Pki, workers: int, nodes: int) -> None:
        self.port, self.admin_port = free_port(), free_port()
        server = pki.server()
        self._log = directory / "receiver.log"
        self._path = directory / f"receiver-{workers}.toml"
        self._path.write_text(f"""
[receiver]
port = {self.port}
workers = {workers}
[receiver.tls]
ca = "{pki.ca}"
certificate = "{server.certificate}"
key = "{server.key}"
trust_domain = "{pki.trust_domain}"
[receiver.proxy]
names = ["{TRUSTED.names[0]}"]
remembered = {nodes + 1}
[receiver.tokens]
jwks = "{pki.jwks}"
algorithms = ["ES256"]
[[receiver.tokens.issuers]]
issuer = "{pki.issuer}"
audience = "{pki.audience}"
profile = "external"
[receiver.store]
url = "sqlite:///{directory}/registry-{workers}.sqlite"
[receiver.admin]
port = {self.admin_port}
""")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Start it; return the seconds until it was ready."""
        started = time.monotonic()
        with self._log.open("ab") as log:
            command = (sys.executable, "-m", "openclaw_exporter", "receiver", "--config", str(self._path))
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        while True:
            assert self.process.poll() is None, self._log.read_text()[-2000:]
            try:
                if self._get("/readyz").status_code == httpx.codes.OK:
                    return time.monotonic() - started
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

    def total(self, name: str) -> float:
        """Return the sum of a metric's series."""
        return sum(
            value for key, value in samples(self._get("/metrics").text).items() if key.startswith(name)
        )

    def _get(self, path: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.admin_port}{path}", trust_env=False, timeout=30)


class Usage:
    """What each process uses between two moments."""

    def __init__(self, receiver: Receiver) -> None:
        self._pids = [*receiver.pids(), os.getpid()]
        self._before = [own_cpu_seconds(pid) for pid in self._pids]
        self._started = time.monotonic()

    def report(self, requests: int) -> None:
        """Print it."""
        seconds = time.monotonic() - self._started
        names = ["registry", *(f"worker {n}" for n in range(1, len(self._pids) - 1)), "generator"]
        if len(names) == 2:
            names[0] = "receiver"
        for name, pid, before in zip(names, self._pids, self._before, strict=True):
            cpu = own_cpu_seconds(pid) - before
            memory = psutil.Process(pid).memory_info()
            print(
                f"  {name:10} {cpu / seconds:5.0%} of a core, {cpu / requests * 1e6:6.1f} µs a heartbeat, "
                f"{(memory.rss - memory.shared) / 2**20:7.0f} MiB"
            )


def percentiles(latencies: array[float]) -> str:
    """Return the percentiles in words."""
    ordered = sorted(latencies)
    parts = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999))
    shown = [f"{name} {ordered[int(share * (len(ordered) - 1))] * 1000:.1f}" for name, share in parts]
    return ", ".join([*shown, f"most {ordered[-1] * 1000:.1f} ms"])


def steady(generator: Generator, receiver: Receiver, rate: float, seconds: float) -> None:
    """Run at a rate for some time, and report."""
    generator.latencies, generator.other, generator.answered = array("d"), {}, 0
    generator.latest = 0.0
    usage, started = Usage(receiver), time.monotonic()
    generator.run(_round_and_round(generator.fleet.count), rate, until=started + seconds)
    took = time.monotonic() - started
    print(
        f"at {rate:.0f} a second for {seconds:.0f} s: {generator.answered} recorded = "
        f"{generator.answered / took:.0f} a second, others {generator.other or 0}; "
        f"the generator was at most {generator.latest * 1000:.0f} ms behind its timetable"
    )
    print(f"  from due to answered: {percentiles(generator.latencies)}")
    usage.report(generator.answered)
    print(f"  expired {receiver.total('openclaw_registry_node_expired_total'):.0f}")


_place = [0]


def _round_and_round(count: int) -> Iterator[int]:
    while True:
        yield _place[0]
        _place[0] = (_place[0] + 1) % count


def killed(generator: Generator, receiver: Receiver, rate: float, seconds: float) -> None:
    """Kill the receiver under load; report."""
    generator.other, generator.latencies = {}, array("d")
    pid = os.fork()
    if pid == 0:
        time.sleep(min(10.0, seconds / 4))
        os.kill(receiver.pids()[0], signal.SIGKILL)
        os._exit(0)
    try:
        generator.run(_round_and_round(generator.fleet.count), rate, until=time.monotonic() + seconds)
    except LostError:
        pass
    else:
        message = "the receiver was not killed"
        raise AssertionError(message)
    finally:
        os.waitpid(pid, 0)
    receiver.kill()
    acknowledged = generator.recent[-20_000:]
    generator.close()
    ready = receiver.start()
    generator.connect()
    known = generator.again(acknowledged)
    # Those that had nothing to do meanwhile have been closed.
    generator.close()
    generator.connect()
    print(
        f"kill -9 at {rate:.0f} a second: ready again after {ready:.1f} s; of the last {len(acknowledged)} "
        f"acknowledged {len(acknowledged) - known} lost"
    )
    steady(generator, receiver, rate, seconds)


@contextmanager
def place(keep: str) -> Iterator[Path]:
    """Yield a directory; a temporary one where none is named."""
    if keep:
        Path(keep).mkdir(parents=True, exist_ok=True)
        yield Path(keep)
    else:
        with tempfile.TemporaryDirectory() as directory:
            yield Path(directory)


def main() -> None:
    """Run what the arguments ask for."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--nodes", type=int, default=1_000_000)
    arguments.add_argument("--rate", type=float, default=16_700)
    arguments.add_argument("--seconds", type=float, default=300)
    arguments.add_argument("--workers", type=int, default=2)
    arguments.add_argument("--keep", default="", help="a directory for the fleet's file")
    chosen = arguments.parse_args()
    with place(chosen.keep) as directory:
        pki = Pki(directory)
        million_fleet.make(pki, directory / "fleet", chosen.nodes)
        receiver = Receiver(directory, pki, chosen.workers, chosen.nodes)
        print(f"{chosen.nodes} nodes, {CONNECTIONS} connections of a proxy, {chosen.workers} workers")
        print(f"ready after {receiver.start():.1f} s, without nodes")
        generator = Generator(Fleet(directory / "fleet"), pki, receiver.port)
        generator.connect()
        try:
            usage, started = Usage(receiver), time.monotonic()
            generator.register()
            took = time.monotonic() - started
            print(f"registered in {took:.0f} s = {generator.answered / took:.0f} a second; {generator.other}")
            usage.report(generator.answered)
            steady(generator, receiver, chosen.rate, chosen.seconds)
            killed(generator, receiver, chosen.rate, min(chosen.seconds, 200))
        finally:
            receiver.stop()


if __name__ == "__main__":
    main()
