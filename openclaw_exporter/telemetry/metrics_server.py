"""`/metrics` over HTTP, on a port of its own.

On h11, which the publisher has loaded anyway: the standard library's server brings a mail parser and the
entities of HTML along, 2 MiB on every node.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
import zlib
from typing import TYPE_CHECKING, Final, NamedTuple

import h11

from openclaw_exporter.telemetry.text_format import CONTENT_TYPE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_SILENCE: Final = 10.0
"""Seconds that a client may take to ask, and to take its answer."""
_AT_ONCE: Final = 32
"""Clients at once, a thread each; more of them wait."""
_READ: Final = 4096
_GZIP: Final = zlib.MAX_WBITS | 16
_PARTING: Final = 1.0
_MOST_LEFT: Final = 16
_PLAIN: Final = "text/plain; charset=utf-8"


class MetricsServer:
    """Answers scrapes, each on a daemon thread, one to a connection.

    Args:
        text: Returns all metrics in Prometheus' text format.
        listening: The socket to serve on; it is closed with the server.

    Attributes:
        port: The TCP port that it listens on.
    """

    def __init__(self, text: Callable[[], bytes], listening: socket.socket) -> None:
        self._text = text
        self._listening = listening
        self._closing = False
        self._places = threading.BoundedSemaphore(_AT_ONCE)
        self.port: int = listening.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, name="metrics", daemon=True)

    def start(self) -> None:
        """Answer from now on; who has asked before has waited."""
        self._thread.start()

    def close(self) -> None:
        """Stop listening and free the port."""
        self._closing = True
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        if self._thread.is_alive():
            self._thread.join(timeout=1)
        self._listening.close()

    def _accept(self) -> None:
        while not self._closing:
            if not self._places.acquire(timeout=0.5):
                continue
            client: socket.socket | None = None
            try:
                client, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(client,), name="scrape", daemon=True).start()
            except (OSError, RuntimeError):
                # Whoever hung up before it was accepted, or no free descriptor or thread for a moment.
                self._places.release()
                if client is not None:
                    client.close()
                if not self._closing:
                    time.sleep(0.1)

    def _serve(self, client: socket.socket) -> None:
        try:
            self._converse(client)
        finally:
            self._places.release()

    def _converse(self, client: socket.socket) -> None:
        """Answer one request; a scraper that hangs up half-way is no fault of this process."""
        with client, contextlib.suppress(OSError):
            connection = h11.Connection(h11.SERVER)
            request: h11.Request | None = None
            try:
                request = _request(client, connection)
                if request is None:
                    return
                answer = self._answer(request)
            except h11.RemoteProtocolError as error:
                answer = _Answer(error.error_status_hint, b"this is no request in HTTP/1.1\n")
            shown = request is None or request.method != b"HEAD"
            # Of all that is sent, not of each piece.
            client.settimeout(_SILENCE)
            client.sendall(_written(connection, answer, shown=shown))
            _end(client)

    def _answer(self, request: h11.Request) -> _Answer:
        if request.method not in {b"GET", b"HEAD"}:
            return _Answer(405, b"there are GET and HEAD\n", fields={"Allow": "GET, HEAD"})
        if request.target.partition(b"?")[0] != b"/metrics":
            return _Answer(404, b"there is /metrics\n")
        body = self._text()
        if _takes_gzip(request):
            # The lowest level: it takes a quarter of the time and adds a fifth to the size.
            return _Answer(200, zlib.compress(body, 1, _GZIP), CONTENT_TYPE, {"Content-Encoding": "gzip"})
        return _Answer(200, body, CONTENT_TYPE)


# With a weight that is not zero, or none.
_is_gzip = re.compile(r"\s*(x-)?gzip\s*(;\s*q\s*=\s*(1(\.0*)?|0\.0*[1-9][0-9]*)\s*)?").fullmatch


class _Answer(NamedTuple):
    status: int
    body: bytes
    kind: str = _PLAIN
    fields: Mapping[str, str] = {}


def _request(client: socket.socket, connection: h11.Connection) -> h11.Request | None:
    """Read a request's head; None where the client sends none.

    Raises:
        h11.RemoteProtocolError: It is no HTTP/1.1.
        TimeoutError: It takes too long, however it is spread.
    """
    until = time.monotonic() + _SILENCE
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            client.settimeout(max(0.001, until - time.monotonic()))
            connection.receive_data(client.recv(_READ))
        else:
            return event if isinstance(event, h11.Request) else None


def _takes_gzip(request: h11.Request) -> bool:
    """Tell whether an answer may be compressed (RFC 9110, 12.5.3)."""
    values = [value.decode("latin-1") for name, value in request.headers if name == b"accept-encoding"]
    return any(_is_gzip(coding) for value in values for coding in value.lower().split(","))


def _written(connection: h11.Connection, answer: _Answer, *, shown: bool) -> bytes:
    """Return what is sent; the body only where it is to be `shown`."""
    fields = {
        "Content-Type": answer.kind,
        "Content-Length": str(len(answer.body)),
        "Connection": "close",
        **answer.fields,
    }
    head = connection.send(h11.Response(status_code=answer.status, headers=list(fields.items())))
    return head + connection.send(h11.Data(data=answer.body)) if shown else head


def _end(client: socket.socket) -> None:
    """Let the client have the whole answer: what is closed with bytes unread is reset (RFC 9112, 9.6)."""
    client.shutdown(socket.SHUT_WR)
    client.settimeout(_PARTING)
    for _ in range(_MOST_LEFT):
        if not client.recv(_READ):
            break
