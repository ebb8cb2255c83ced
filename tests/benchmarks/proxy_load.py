"""The load of a proxy that ends TLS: heartbeats of very many nodes over kept connections (RFC 9440).

A connection has one request under way, as proxies do it, and a node is always on the same one. What is sent
differs in the node's credentials and id and is put together from bytes that are there already; of an answer
its first and last bytes are looked at, and of one in each batch everything.
"""

from __future__ import annotations

import json
import select
import socket
import ssl
import time
from array import array
from collections import Counter, deque
from typing import TYPE_CHECKING, NamedTuple

from million_fleet import ID_SIZE

from openclaw_exporter.wire.timestamps import format_ms, parse_ms

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from million_fleet import Fleet

    from support.pki import Pki

CONNECTIONS = 512
BATCH = 32
"""Heartbeats that are sent one after the other, and whose answers are then read so."""

PATIENCE = 60.0
"""Seconds without an answer after which the receiver counts as gone."""

FIRST_BEAT = 1_000_000_000
"""All numbers of a sequence, and so all heads, are equally long."""

_READ = 2048
_HEAD = b"POST /openclaw/availability HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
_MIDDLE = b"OpenClaw-Interval: %d\r\nOpenClaw-Sequence: %d.%d\r\nContent-Length: %d\r\n\r\n%b"
_BEFORE_ID = (
    b'{"capacity":{"available_slots":5,"workers":24},"hostname":"chimera-01.prod","last_heartbeat":"%b",'
    b'"node_id":"'
)
_AFTER_ID = (
    b'","queue_depth":{"planner":3,"worker":120},"tags":["region:us-east-1","gpu:true","env:prod",'
    b'"swarm:blue"],"uptime_seconds":86400,"version":"1.2.0"}'
)
_OK = b"HTTP/1.1 200 OK\r\n"
_RECORDED = b'\r\n\r\n{"result":"recorded",'
_DUPLICATE = b'\r\n\r\n{"result":"duplicate",'


class LostError(Exception):
    """The receiver has gone."""


class Batch(NamedTuple):
    """Heartbeats that were sent together.

    Attributes:
        first: The number of the first node.
        count: How many nodes, one after the other.
        sent_ms: What the heartbeats say of their time.
        beat: The number of their sequence.
        due: When the first was due, monotonic clock.
        gap: Seconds from one to the next.
    """

    first: int
    count: int
    sent_ms: int
    beat: int
    due: float
    gap: float


class _Group:
    """The connections that one batch goes over."""

    def __init__(self, connections: list[ssl.SSLSocket]) -> None:
        self.connections = connections
        self.writes = [connection.write for connection in connections]
        self.batch: Batch | None = None
        self._poll = select.poll()

    def is_answered(self, seconds: float) -> bool:
        """Wait for the last answer of the batch for so long; return whether it is there, or the end."""
        assert self.batch is not None
        return self._is_readable(self.connections[self.batch.count - 1], seconds)

    def answers(self, count: int) -> Iterator[bytes]:
        """Read the answers to so many requests, one after the other; one is empty where the connection ended.

        Raises:
            LostError: One did not come in time, or its connection broke.
        """
        for connection in self.connections[:count]:
            while True:
                try:
                    answer = connection.read(_READ)
                except ssl.SSLWantReadError:
                    if not self._is_readable(connection, PATIENCE):
                        raise LostError from None
                except OSError as error:
                    raise LostError from error
                else:
                    break
            yield answer

    def _is_readable(self, connection: ssl.SSLSocket, seconds: float) -> bool:
        self._poll.register(connection, select.POLLIN)
        readable = bool(self._poll.poll(seconds * 1000))
        self._poll.unregister(connection)
        return readable


class Generator:
    """Publishes for a fleet over a proxy's connections.

    Args:
        fleet: The nodes.
        pki: Whose authority signed the receiver's certificate.
        port: The receiver's.

    Attributes:
        interval: What nodes say of their interval, seconds.
        latencies: Seconds from the moment at which each request was due to that at which its answer was read.
        recorded: Answers that say so.
        other: Other answers, by status and the beginning of their body.
        intervals: The intervals that sampled answers named, seconds.
        latest: How far the generator was behind its timetable at worst, seconds.
        recent: The latest batches that were acknowledged.
    """

    def __init__(self, fleet: Fleet, pki: Pki, port: int) -> None:
        self.fleet = fleet
        self._pki = pki
        self._port = port
        self._epoch = int(time.time() * 1000)
        self._beat = FIRST_BEAT
        self._place = 0
        self.interval = 60
        self.recent: deque[Batch] = deque(maxlen=20_000 // BATCH)
        self._groups: list[_Group] = []
        self._waiting: deque[_Group] = deque()
        self.forget()

    def forget(self) -> None:
        """Count from nothing."""
        self.latencies = array("d")
        self.recorded = 0
        self.other: Counter[bytes] = Counter()
        self.intervals: Counter[int] = Counter()
        self.latest = 0.0

    def connect(self) -> None:
        """Open the proxy's connections."""
        files = self._pki.proxy()
        context = ssl.create_default_context(cafile=str(self._pki.ca))
        context.load_cert_chain(files.certificate, files.key)
        self._waiting.clear()
        self._groups = [
            _Group([self._connection(context) for _ in range(BATCH)]) for _ in range(CONNECTIONS // BATCH)
        ]

    def _connection(self, context: ssl.SSLContext) -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", self._port), timeout=PATIENCE)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = context.wrap_socket(plain, server_hostname="localhost")
        # With a time-out each write would cost a poll(2) as well, and without one a read has no end.
        connection.setblocking(False)
        return connection

    def close(self) -> None:
        """Close them."""
        for group in self._groups:
            for connection in group.connections:
                connection.close()

    def register(self) -> None:
        """Publish every node once, as fast as it goes."""
        self._place = 0
        while True:
            self._publish(self._next(), time.monotonic(), 0.0)
            if self._place == 0:
                break
        self._collect_all()

    def run(self, rate: float, seconds: float) -> int:
        """Publish one node after the other by a timetable; return how many were due.

        Raises:
            LostError: The receiver has gone.
        """
        gap, due = 1 / rate, time.monotonic()
        until = due + seconds
        while max(due, time.monotonic()) < until:
            nodes = self._next()
            # The last of a batch is sent when it is due, and the others as late as that.
            self._pause(due + (len(nodes) - 1) * gap)
            self._publish(nodes, due, gap)
            due += len(nodes) * gap
        self._collect_all()
        return round(rate * seconds)

    def _next(self) -> range:
        """Return the next nodes that have a group of connections in common."""
        first = self._place
        end = min(first + BATCH, self.fleet.count)
        self._place = end % self.fleet.count
        return range(first, end)

    def again(self, batches: Iterable[Batch]) -> tuple[int, int]:
        """Send heartbeats once more; return how many, and how many of them the receiver knew.

        Raises:
            LostError: The receiver has gone.
        """
        sent = known = 0
        for batch in batches:
            group = self._group(batch.first)
            self._send(group, batch)
            known += sum(_DUPLICATE in answer for answer in group.answers(batch.count))
            sent += batch.count
        return sent, known

    def _group(self, first: int) -> _Group:
        return self._groups[first // BATCH % len(self._groups)]

    def _pause(self, due: float) -> None:
        """Wait until a moment, and read meanwhile what has been answered."""
        while (left := due - time.monotonic()) > 0:
            if not self._waiting:
                time.sleep(left)
            elif self._waiting[0].is_answered(left):
                self._collect(self._waiting.popleft())
        self.latest = max(self.latest, -left)

    def _publish(self, nodes: range, due: float, gap: float) -> None:
        group = self._group(nodes.start)
        if group.batch is not None:
            self._waiting.remove(group)
            self._collect(group)
        sent_ms = int(time.time() * 1000)
        # Never a whole second: all bodies are equally long.
        sent_ms += not sent_ms % 1000
        self._beat += 1
        group.batch = Batch(nodes.start, len(nodes), sent_ms, self._beat, due, gap)
        self._send(group, group.batch)
        self._waiting.append(group)

    def _send(self, group: _Group, batch: Batch) -> None:
        before = _BEFORE_ID % format_ms(batch.sent_ms).encode()
        size = len(before) + ID_SIZE + len(_AFTER_ID)
        middle = _MIDDLE % (self.interval, self._epoch, batch.beat, size, before)
        join, data, places = b"".join, self.fleet.data, self.fleet.places
        number, start = batch.first, places[batch.first]
        try:
            for write in group.writes[: batch.count]:
                number += 1
                end = places[number]
                id_at = end - ID_SIZE
                write(join((_HEAD, data[start:id_at], middle, data[id_at:end], _AFTER_ID)))
                start = end
        except OSError as error:
            raise LostError from error

    def _collect_all(self) -> None:
        while self._waiting:
            self._collect(self._waiting.popleft())

    def _collect(self, group: _Group) -> None:
        """Read the answers to a batch."""
        if not group.is_answered(PATIENCE):
            raise LostError
        batch, group.batch = group.batch, None
        assert batch is not None
        due, gap, note, clock = batch.due, batch.gap, self.latencies.append, time.monotonic
        recorded, answer = 0, b""
        for answer in group.answers(batch.count):
            note(clock() - due)
            due += gap
            if _RECORDED in answer and answer.startswith(_OK) and answer.endswith(b"}"):
                recorded += 1
            else:
                self._note_other(answer)
        self.recorded += recorded
        if recorded == batch.count:
            self.recent.append(batch)
            self._verify(answer)

    def _note_other(self, answer: bytes) -> None:
        if not answer:
            raise LostError
        head, _, body = answer.partition(b"\r\n\r\n")
        self.other[head[9:12] + b" " + body[:80]] += 1

    def _verify(self, answer: bytes) -> None:
        """Look at the whole of an answer to a heartbeat that was recorded."""
        head, _, body = answer.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        assert int(fields[b"content-length"]) == len(body), answer
        assert fields[b"content-type"] == b"application/json", answer
        content = json.loads(body)
        assert content.keys() == {"result", "expires_at", "interval_seconds"}, answer
        assert parse_ms(content["expires_at"]) > time.time() * 1000, answer
        self.intervals[content["interval_seconds"]] += 1


def body_of(node_id: bytes, sent_ms: int) -> bytes:
    """Return the body of a heartbeat."""
    return _BEFORE_ID % format_ms(sent_ms).encode() + node_id + _AFTER_ID


def request_of(number: int, fleet: Fleet, *, interval: int) -> bytes:
    """Return a node's heartbeat of this moment for a connection of its own, in an order of its own."""
    sent_ms = int(time.time() * 1000)
    _, authorization, node_id = fleet.parts(number)
    body = body_of(node_id, sent_ms)
    return _HEAD + authorization + _MIDDLE % (interval, sent_ms, 0, len(body), body)


def percentiles(latencies: array[float]) -> str:
    """Return the percentiles in words."""
    if not latencies:
        return "none"
    ordered = sorted(latencies)
    parts = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999))
    shown = [f"{name} {ordered[int(share * (len(ordered) - 1))] * 1000:.1f}" for name, share in parts]
    return ", ".join([*shown, f"most {ordered[-1] * 1000:.1f} ms"])
