"""Very many nodes in one process, each with a TLS connection of its own, as cheap as OpenSSL lets them be.

A node does what the contract asks of a publisher: it keeps its connection, beats at the interval that it was
answered, obeys `Retry-After`, gives up after ten seconds, and backs off with full jitter where it hears
nothing. Keys and certificates are read before the clock runs: real nodes have CPUs of their own for that.
"""

from __future__ import annotations

import base64
import heapq
import json
import random
import select
import socket
import ssl
import time
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from million_fleet import Fleet
from proxy_load import request_of

from openclaw_exporter.client.pacing import BeatSchedule, backoff_delay, parse_retry_after

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE = 10.0
"""Seconds that a node waits for anything, as the publisher does."""

_READ = 4096
_PORTS = 20_000
"""Connections from one source address; the kernel has some more."""

_BIND_ADDRESS_NO_PORT = 24
"""`IP_BIND_ADDRESS_NO_PORT` (ip(7)): the port is chosen by the whole connection."""

_LOOKS = 0.2


@dataclass
class Outcome:
    """What one process of nodes saw.

    Attributes:
        entered: Seconds after the start at which each node was in for the first time.
        latencies: Seconds from connecting to the answer, of those that were let in.
        waits: The `Retry-After` of each answer 503.
        failures: What else became of attempts, by kind.
        beats: Heartbeats that were recorded after the first of each node.
        late: Of those, the seconds from being due to being answered.
        intervals: What was answered as interval, seconds.
        outside: Nodes that never came in.
    """

    entered: array[float] = field(default_factory=lambda: array("d"))
    latencies: array[float] = field(default_factory=lambda: array("d"))
    waits: Counter[int] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    beats: int = 0
    late: array[float] = field(default_factory=lambda: array("d"))
    intervals: Counter[int] = field(default_factory=Counter)
    outside: int = 0


class Node:
    """One node, whose connection may be closed, opening, idle or waiting for an answer."""

    __slots__ = (
        "begun",
        "context",
        "failed",
        "is_asking",
        "is_in",
        "number",
        "plain",
        "schedule",
        "timer",
        "tls",
    )

    def __init__(self, number: int, context: ssl.SSLContext) -> None:
        self.number = number
        self.context = context
        self.schedule = BeatSchedule(0.0, 1.0, 0.0)
        self.plain: socket.socket | None = None
        self.tls: ssl.SSLSocket | None = None
        self.is_asking = False
        self.is_in = False
        self.failed = 0
        self.begun = 0.0
        self.timer = 0


class Nodes:
    """Some of the nodes, in one process.

    Args:
        directory: The certificates' and the fleet's.
        port: The receiver's.
        numbers: Theirs.
        place: The number of the process.
        interval: What they say of their interval, seconds.
    """

    def __init__(self, directory: Path, port: int, numbers: range, place: int, interval: int) -> None:
        self._fleet = Fleet(directory / "fleet")
        self._directory = directory
        self._port = port
        self._place = place
        self._interval = interval
        self._nodes = [Node(number, self._context(number)) for number in numbers]
        self._by_descriptor: dict[int, Node] = {}
        self._poll = select.epoll()
        self._timers: list[tuple[float, int, Node]] = []
        self._count = 0
        self._random = random.Random()
        self._started = 0.0
        self.outcome = Outcome()

    def run(self, seconds: float) -> Outcome:
        """Come at once, and beat for so long."""
        self._started = time.monotonic()
        until = self._started + seconds
        for node in self._nodes:
            node.schedule = BeatSchedule(self._started, self._interval, self._random.random())
            self._at(self._started, node)
        while (now := time.monotonic()) < until:
            self._pass_time(now)
            left = self._timers[0][0] - time.monotonic() if self._timers else _LOOKS
            for descriptor, _ in self._poll.poll(max(0.0, min(left, _LOOKS)), 256):
                self._attend(self._by_descriptor[descriptor])
        self.outcome.outside = sum(not node.is_in for node in self._nodes)
        return self.outcome

    def _at(self, moment: float, node: Node) -> None:
        """Let a node act at a moment, and at no other that was set before."""
        self._count += 1
        node.timer = self._count
        heapq.heappush(self._timers, (moment, self._count, node))

    def _pass_time(self, now: float) -> None:
        # Not all of a herd before anybody's answer is read.
        for _ in range(256):
            if not self._timers or self._timers[0][0] > now:
                return
            _, timer, node = heapq.heappop(self._timers)
            if timer != node.timer:
                continue
            if node.is_asking:
                self._fail(node, "TimeoutError")
                continue
            node.is_asking = True
            node.begun = now
            self._at(now + PATIENCE, node)
            try:
                if node.tls is None:
                    self._connect(node)
                else:
                    self._ask(node)
            except OSError as error:
                self._fail(node, type(error).__name__)

    def _connect(self, node: Node) -> None:
        plain = node.plain = socket.socket()
        plain.setblocking(False)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
        plain.bind((f"127.0.{1 + self._place}.{1 + node.number // _PORTS}", 0))
        plain.connect_ex(("127.0.0.1", self._port))
        self._by_descriptor[plain.fileno()] = node
        self._poll.register(plain, select.EPOLLOUT)

    def _attend(self, node: Node) -> None:
        """Go on with a node whose connection is ready."""
        try:
            if node.tls is None:
                self._begin_tls(node)
            if self._is_open(node):
                self._read(node)
        except ssl.SSLWantReadError:
            self._poll.modify(node.tls, select.EPOLLIN)  # type: ignore[arg-type] # it has one by now
        except ssl.SSLWantWriteError:
            self._poll.modify(node.tls, select.EPOLLOUT)  # type: ignore[arg-type] # as above
        except OSError as error:
            self._fail(node, type(error).__name__)

    def _begin_tls(self, node: Node) -> None:
        assert node.plain is not None
        if error := node.plain.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(error, "connect")
        node.tls = node.context.wrap_socket(
            node.plain, server_hostname="localhost", do_handshake_on_connect=False, suppress_ragged_eofs=True
        )

    def _is_open(self, node: Node) -> bool:
        """Go on with the handshake, and ask after it; return whether it was done before."""
        assert node.tls is not None
        if node.plain is None:
            return True
        node.tls.do_handshake()
        node.plain = None
        self._ask(node)
        self._poll.modify(node.tls, select.EPOLLIN)
        return False

    def _ask(self, node: Node) -> None:
        assert node.tls is not None
        node.tls.send(request_of(node.number, self._fleet, interval=self._interval))

    def _read(self, node: Node) -> None:
        assert node.tls is not None
        answer = node.tls.recv(_READ)
        head, found, body = answer.partition(b"\r\n\r\n")
        if not found:
            raise ConnectionResetError
        status = int(head[9:12])
        if status == 200:
            self._enter(node, json.loads(body))
        elif status == 503:
            lines = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
            wait = parse_retry_after(lines[b"retry-after"].decode(), time.time())
            self.outcome.waits[round(wait)] += 1
            node.failed = 0
            self._close(node)
            self._at(time.monotonic() + wait, node)
        else:
            self._fail(node, str(status))

    def _enter(self, node: Node, content: dict[str, object]) -> None:
        """Note that a node is in, and when it beats next."""
        now, outcome = time.monotonic(), self.outcome
        assert content["result"] == "recorded", content
        if not node.is_in:
            outcome.entered.append(now - self._started)
            outcome.latencies.append(now - node.begun)
            node.is_in = True
        else:
            outcome.beats += 1
            outcome.late.append(now - node.schedule.next)
        interval = content["interval_seconds"]
        assert isinstance(interval, int)
        outcome.intervals[interval] += 1
        node.failed, node.is_asking = 0, False
        node.schedule.change_interval(interval, now)
        node.schedule.advance(now)
        self._at(node.schedule.next, node)

    def _fail(self, node: Node, kind: str) -> None:
        self.outcome.failures[kind] += 1
        self._close(node)
        self._at(time.monotonic() + backoff_delay(node.failed, node.schedule.interval, self._random), node)
        node.failed += 1

    def _close(self, node: Node) -> None:
        connection = node.tls or node.plain
        if connection is not None:
            descriptor = connection.fileno()
            if self._by_descriptor.pop(descriptor, None) is not None:
                self._poll.unregister(descriptor)
            connection.close()
        node.tls = node.plain = None
        node.is_asking = False

    def _context(self, number: int) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self._directory / "ca.pem")
        der = base64.b64decode(self._fleet.parts(number)[0].split(b":")[2])
        path = self._directory / f"client-{self._place}.pem"
        path.write_text(ssl.DER_cert_to_PEM_cert(der))
        context.load_cert_chain(path, self._directory / "clients.key")
        return context
