"""A real HTTPS server that demands client certificates and answers what the test tells it to."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import TYPE_CHECKING, Literal, Self

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.pki import Files, Pki

Manner = Literal["keep", "close", "hang up", "hang", "drip"]


@dataclass(frozen=True)
class Answer:
    """What the server does with one request.

    `keep` answers and keeps the connection, `close` answers and closes it without a word, `hang up` closes it
    without an answer, `hang` never answers, `drip` sends the answer one byte at a time.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b'{"result": "recorded", "expires_at": "2030-01-01T00:00:00Z", "interval_seconds": 60}'
    manner: Manner = "keep"
    date: float | None = None
    """Seconds to add to the `Date`; None leaves the header out."""


@dataclass(frozen=True)
class Seen:
    """A request that came in, by header names in lower case, on the n-th connection, at monotonic seconds."""

    target: str
    headers: Mapping[str, str]
    body: bytes
    connection: int
    at: float

    @property
    def token(self) -> str:
        """The bearer token."""
        return self.headers["authorization"].removeprefix("Bearer ")


class StubReceiver:
    """The server. `script` answers the next requests, `default` all others."""

    def __init__(self, pki: Pki, *, port: int = 0) -> None:
        self.script: deque[Answer] = deque()
        self.default = Answer()
        self.seen: list[Seen] = []
        self.connections = 0
        self.on_request: Callable[[Seen], Answer | None] = lambda _seen: None
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._context.load_verify_locations(pki.ca)
        self.serve_as(pki.server())
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._closing = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", port))
        self._listener.settimeout(0.1)
        self.port: int = self._listener.getsockname()[1]

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def serve_as(self, files: Files) -> None:
        """Show this certificate on new connections."""
        self._context.load_cert_chain(files.certificate, files.key)

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_exception: object) -> None:
        self._closing.set()
        self.cut_all()
        for thread in self._threads:
            thread.join(60)
        self._listener.close()

    def cut_all(self) -> None:
        """Close every connection."""
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def bodies(self) -> list[bytes]:
        """Return the bodies that came in, in their order."""
        return [seen.body for seen in self.seen]

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                plain, _ = self._listener.accept()
            except TimeoutError:
                continue
            self.connections += 1
            self._start(self._serve, plain, self.connections)

    def _serve(self, plain: socket.socket, number: int) -> None:
        plain.settimeout(120)
        secured = plain
        self._open.add(plain)
        try:
            secured = self._context.wrap_socket(plain, server_side=True)
            self._open.add(secured)
            with secured.makefile("rb") as stream:
                while self._answer_one(secured, stream, number):
                    pass
        except OSError:
            pass
        finally:
            self._open -= {plain, secured}
            secured.close()
            plain.close()

    def _answer_one(self, connection: socket.socket, stream: object, number: int) -> bool:
        seen = self._read(stream, number)
        if seen is None or self._closing.is_set():
            return False
        answer = self.on_request(seen) or (self.script.popleft() if self.script else self.default)
        self.seen.append(seen)
        if answer.manner == "hang":
            self._closing.wait(120)
        if answer.manner in ("hang", "hang up"):
            return False
        raw = _raw(answer)
        if answer.manner == "drip":
            for index in range(len(raw)):
                connection.sendall(raw[index : index + 1])
                if self._closing.wait(0.05):
                    return False
        else:
            connection.sendall(raw)
        return answer.manner != "close"

    def _read(self, stream: object, number: int) -> Seen | None:
        line = stream.readline()  # type: ignore[attr-defined]
        if not line:
            return None
        headers = {}
        while (field_line := stream.readline().strip()) != b"":  # type: ignore[attr-defined]
            name, _, value = field_line.partition(b":")
            headers[name.decode().lower()] = value.decode().strip()
        body = stream.read(int(headers["content-length"]))  # type: ignore[attr-defined]
        return Seen(line.split()[1].decode(), headers, body, number, time.monotonic())


def _raw(answer: Answer) -> bytes:
    headers = {"Content-Length": str(len(answer.body))}
    if answer.date is not None:
        headers["Date"] = formatdate(time.time() + answer.date, usegmt=True)
    if answer.status in (204, 304) or answer.status < 200:
        del headers["Content-Length"]
    lines = [
        f"HTTP/1.1 {answer.status} Stub",
        *(f"{k}: {v}" for k, v in {**headers, **answer.headers}.items()),
    ]
    body = b"" if "Content-Length" not in headers else answer.body
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body
