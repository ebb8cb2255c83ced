"""A light load for anything that answers a request over mutual TLS, and what a server's processes use.

The requests are written before the clock runs wherever they can be, go out over kept connections, `IN_FLIGHT`
at once, and every answer is read whole and checked. The generator has a core of its own.
"""

from __future__ import annotations

import os
import socket
import ssl
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import psutil

from openclaw_exporter.wire.certificates import thumbprint
from openclaw_exporter.wire.timestamps import format_ms
from openclaw_exporter.wire.tokens import Minter, SigningKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.pki import Pki

IN_FLIGHT = 128
SERVER_CORE, LOAD_CORE = 0, 1
RENEW_EVERY = 8
_READ = 16_384
_TICK = os.sysconf("SC_CLK_TCK")


class WrongAnswerError(Exception):
    """A server answered what it should not have."""


class Round(NamedTuple):
    """What one round of load cost the server.

    Attributes:
        requests: How many were answered.
        seconds: How long it took.
        cpu: CPU seconds of the server's whole process tree.
    """

    requests: int
    seconds: float
    cpu: float

    @property
    def microseconds(self) -> float:
        """CPU a request."""
        return self.cpu / self.requests * 1e6


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process, its living children and those it has reaped (proc(5), `stat`)."""
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sum(_ticks(process.pid) for process in processes) / _TICK


def own_cpu_seconds(pid: int) -> float:
    """Return the CPU time of one process alone."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / _TICK


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15]))


class Client:
    """One connection that is kept.

    Args:
        pki: Whose authority signed the server's certificate.
        node_id: The node whose certificate it shows; None: plain TCP.
        port: The server's.
    """

    def __init__(self, pki: Pki, node_id: str | None, port: int) -> None:
        plain = socket.create_connection(("127.0.0.1", port), timeout=30)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket: socket.socket = plain
        self.thumbprint = ""
        if node_id is not None:
            files = pki.node(node_id)
            context = ssl.create_default_context(cafile=str(pki.ca))
            context.load_cert_chain(files.certificate, files.key)
            self.thumbprint = thumbprint(ssl.PEM_cert_to_DER_cert(files.certificate.read_text()))
            self.socket = context.wrap_socket(plain, server_hostname="localhost")

    def answer(self) -> bytes:
        """Read one whole answer.

        Raises:
            WrongAnswerError: The connection ended, or the answer has no length.
        """
        answer = self.socket.recv(_READ)
        while (missing := _missing(answer)) > 0:
            piece = self.socket.recv(_READ)
            if not piece:
                break
            answer += piece
        if not answer or missing:
            raise WrongAnswerError(repr(answer[:300]))
        return answer

    def close(self) -> None:
        """Close it."""
        self.socket.close()


def _missing(answer: bytes) -> int:
    head, end, body = answer.partition(b"\r\n\r\n")
    if not end:
        return 1
    _, found, rest = head.lower().partition(b"\r\ncontent-length:")
    if not found:
        # 204 has no body.
        return 0
    return int(rest.split(b"\r\n", 1)[0]) - len(body)


class Beats:
    """The heartbeats of one node, each as the bytes of a whole request.

    Args:
        pki: Signs the tokens.
        client: The connection whose certificate binds them.
        node_id: The node.
        renewing: Whether every eighth beat brings a new token, minted beforehand.
        first_ms: The time of the first beat, Unix milliseconds.
    """

    def __init__(
        self, pki: Pki, client: Client | None, node_id: str, *, first_ms: int, host: str = "localhost"
    ) -> None:
        self._subject = (client.thumbprint if client else "", node_id)
        self._pki = pki
        self._sent_ms = first_ms
        self._epoch = first_ms
        self._number = 0
        self._host = host
        self._body = (
            f'{{"capacity":{{"available_slots":%d,"workers":24}},"hostname":"chimera-01.prod","last_heartbeat":'
            f'"%s","node_id":"{node_id}","queue_depth":{{"planner":3,"worker":120}},"tags":["region:us-east-1",'
            f'"gpu:true","env:prod","swarm:blue"],"uptime_seconds":86400,"version":"1.2.0"}}'
        )
        self.tokens: list[str] = []
        self.renew()

    def mint(self, count: int) -> None:
        """Make tokens ahead."""
        key = SigningKey.load(self._pki.token_key.read_bytes(), kid=self._pki.key_id)
        minter = Minter(key, issuer=self._pki.issuer, audience=self._pki.audience)
        thumb, node_id = self._subject
        now = time.time()
        self.tokens += [minter.mint(node_id, thumbprint=thumb, now=now).text for _ in range(count)]

    def renew(self) -> None:
        """Use the next token from now on."""
        if not self.tokens:
            self.mint(1)
        self._head = (
            f"POST /openclaw/availability HTTP/1.1\r\nHost: {self._host}\r\n"
            f"Authorization: Bearer {self.tokens.pop()}\r\nContent-Type: application/json\r\n"
            "User-Agent: openclaw-exporter/0.1\r\nOpenClaw-Interval: 60\r\n"
        )

    def next(self) -> bytes:
        """Return the next beat."""
        # Never a whole second: all bodies of a node are equally long.
        self._sent_ms += 1 if (self._sent_ms + 1) % 1000 else 2
        body = self._body % (self._number % 24, format_ms(self._sent_ms))
        order = f"OpenClaw-Sequence: {self._epoch}.{self._number}\r\n"
        self._number += 1
        return f"{self._head}{order}Content-Length: {len(body)}\r\n\r\n{body}".encode()


def exchange(clients: list[Client], requests: list[bytes], is_right: Callable[[bytes], bool]) -> None:
    """Send a request over each connection, then read all answers.

    Raises:
        WrongAnswerError: An answer is not the right one.
    """
    for client, request in zip(clients, requests, strict=True):
        client.socket.sendall(request)
    for client in clients:
        answer = client.answer()
        if not is_right(answer):
            raise WrongAnswerError(repr(answer[:600]))


def drive(
    clients: list[Client],
    next_request: Callable[[int], bytes],
    seconds: float,
    is_right: Callable[[bytes], bool],
) -> int:
    """Publish over all connections by turns for some seconds; return how many requests were answered.

    Args:
        clients: The connections.
        next_request: Makes the next request of a connection by its number.
        seconds: How long.
        is_right: Judges an answer.
    """
    count = 0
    end = time.monotonic() + seconds
    groups = [
        range(start, min(start + IN_FLIGHT, len(clients))) for start in range(0, len(clients), IN_FLIGHT)
    ]
    for group in _forever(groups):
        exchange([clients[i] for i in group], [next_request(i) for i in group], is_right)
        count += len(group)
        if time.monotonic() >= end:
            return count
    return count


def _forever(groups: list[range]) -> Iterator[range]:
    while True:
        yield from groups


def measured(pid: int, load: Callable[[], int]) -> Round:
    """Run some load and return what it cost the server."""
    cpu, started = cpu_seconds(pid), time.monotonic()
    requests = load()
    return Round(requests, time.monotonic() - started, cpu_seconds(pid) - cpu)
