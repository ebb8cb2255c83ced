"""HTTP by hand, over a real TLS connection."""

from __future__ import annotations

import socket
import ssl
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

    from receiver.scene import Node, Running

    from support.pki import Files, Pki

CLOSED = (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError, BrokenPipeError)

LONG_TAGS = [f"{number:02d}{'x' * 126}" for number in range(32)]
"""As much as a heartbeat may carry, so that events of it soon fill what lies between two ends."""


@contextmanager
def reading_nothing(scene: Running, pki: Pki) -> Iterator[None]:
    """Have a reader listen for `updated` events that reads none of them, and has little room for them."""
    files = pki.reader()
    context = ssl.create_default_context(cafile=str(pki.ca))
    context.load_cert_chain(files.certificate, files.key)
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plain.settimeout(60)
    plain.connect(("127.0.0.1", scene.port))
    with context.wrap_socket(plain, server_hostname="127.0.0.1") as stuck:
        stuck.sendall(b"GET /openclaw/events?event=updated HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert stuck.recv(12) == b"HTTP/1.1 200"
        yield


class Front(Protocol):
    """What one connects to: a receiver, or a proxy in front of it."""

    def tls(self, files: Files) -> ssl.SSLSocket:
        """Return a connection of the holder of a certificate."""
        ...


class RawAnswer(NamedTuple):
    """One answer, as it came."""

    status: int
    fields: dict[str, str]
    body: bytes


class Raw:
    """One connection on which a test writes bytes. A context manager."""

    def __init__(self, scene: Front, files: Files) -> None:
        self.socket = scene.tls(files)
        self._received = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.socket.sendall(piece)

    def answer(self) -> RawAnswer | None:
        """Return the next answer; None: the connection was closed instead."""
        while b"\r\n\r\n" not in self._received:
            if not self._receive():
                return None
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        first, *lines = head.decode("ascii").split("\r\n")
        fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        length = int(fields["content-length"])
        while len(self._received) < length and self._receive():
            pass
        body, self._received = self._received[:length], self._received[length:]
        return RawAnswer(int(first.split()[1]), fields, body)

    def is_closed(self) -> bool:
        """Wait for the end of the connection; what comes before it is no answer."""
        before = len(self._received)
        while self._receive():
            pass
        return len(self._received) == before

    def _receive(self) -> bytes:
        try:
            piece = self.socket.recv(65536)
        except CLOSED:
            return b""
        self._received += piece
        return piece


def head(node: Node, *lines: str, method: str = "POST", path: str = "/openclaw/availability") -> bytes:
    """Return a request's head; Host, type and token are there unless they are given."""
    default = {
        "host": "Host: localhost",
        "content-type": "Content-Type: application/json",
        "authorization": f"Authorization: Bearer {node.token}",
    }
    given = {line.partition(":")[0].strip().lower() for line in lines}
    rest = [line for name, line in default.items() if name not in given]
    return "\r\n".join(
        [f"{method} {path} HTTP/1.1", *rest, *(line for line in lines if line), "", ""]
    ).encode()
