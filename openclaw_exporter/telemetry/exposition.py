"""The Prometheus side: what is there to be scraped, and `/metrics` on a port of its own."""

from __future__ import annotations

import contextlib
import gzip
import socket
import threading
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from prometheus_client import CollectorRegistry

from openclaw_exporter.telemetry.text_format import CONTENT_TYPE, render

if TYPE_CHECKING:
    from collections.abc import Callable

_FOREVER: Final = 86_400.0

PROMOTED: Final = frozenset(
    {"service.instance.id", "host.name", "deployment.environment.name", "cloud.region"}
)
"""Resource attributes that become labels of every series, as Prometheus promotes them from OTLP."""


class Exposition:
    """The metrics of one meter provider in Prometheus' text format.

    Attributes:
        reader: The reader to be registered with the meter provider.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self.reader = PrometheusMetricReader(
            scope_info_enabled=False,
            resource_attribute_filter=PROMOTED.__contains__,
            registry=self._registry,
        )
        self._lock = threading.Lock()

    def text(self) -> bytes:
        """Return all metrics now; one caller at a time, for two would share out the reader's queue."""
        with self._lock:
            return render(self._registry.collect())


class MetricsServer:
    """`/metrics` over HTTP, on daemon threads.

    Args:
        text: Returns all metrics in Prometheus' text format.
        listening: The socket to serve on; it is closed with the server.

    Attributes:
        port: The TCP port that it listens on.
    """

    def __init__(self, text: Callable[[], bytes], listening: socket.socket) -> None:
        self._server = _Server(listening, text)
        self.port: int = self._server.server_address[1]
        # It looks for the end only when something arrives, not twice a second: `close` sees to that.
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_FOREVER,), name="metrics", daemon=True
        )

    def start(self) -> None:
        """Answer from now on; who has asked before has waited."""
        self._thread.start()

    def close(self) -> None:
        """Stop listening and free the port."""
        with contextlib.suppress(OSError):
            self._server.socket.shutdown(socket.SHUT_RDWR)
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(timeout=1)
        self._server.server_close()


class _Server(ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, listening: socket.socket, text: Callable[[], bytes]) -> None:
        self.text = text
        super().__init__(listening.getsockname(), _Handler, bind_and_activate=False)
        self.socket.close()  # made by the base class, of the wrong family perhaps
        self.socket = listening
        self.server_address = listening.getsockname()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a scraper that hangs up half-way is no fault of this process."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version = "openclaw-exporter"
    sys_version = ""
    timeout = 10  # seconds that a client may be silent

    def do_GET(self) -> None:
        """Answer `/metrics`, compressed for those who ask for it."""
        if self.path.partition("?")[0] != "/metrics":
            self._answer(404, "text/plain; charset=utf-8", b"there is /metrics\n")
            return
        body = self.server.text()
        if "gzip" in self.headers.get("Accept-Encoding", ""):
            # The lowest level: it takes a quarter of the time and adds a fifth to the size.
            self._answer(200, CONTENT_TYPE, gzip.compress(body, 1), encoding="gzip")
        else:
            self._answer(200, CONTENT_TYPE, body)

    do_HEAD = do_GET  # noqa: N815 - the base class's name

    def log_message(self, *_: object) -> None:
        """Say nothing of each scrape."""

    def _answer(self, status: int, kind: str, body: bytes, *, encoding: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if encoding:
            self.send_header("Content-Encoding", encoding)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
