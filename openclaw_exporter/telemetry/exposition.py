"""The Prometheus side: what is there to be scraped, and `/metrics` on a port of its own."""

from __future__ import annotations

import contextlib
import errno
import gzip
import socket
import threading
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from prometheus_client import CollectorRegistry

from openclaw_exporter.errors import UserError
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
        host: The address to listen on.
        port: The TCP port; 0 takes a free one.

    Attributes:
        port: The TCP port that it listens on.

    Raises:
        UserError: The address cannot be listened on.
    """

    def __init__(self, text: Callable[[], bytes], host: str, port: int) -> None:
        try:
            family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            self._server = _Server(family, address, text)
        except OSError as error:
            foreign = isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL
            right = "host to an address of this machine" if foreign else "port to a free port, to 0 for any"
            message = (
                f"telemetry.prometheus: cannot listen on {host}:{port} ({error.strerror or error}); "
                f"set telemetry.prometheus.{right}, or telemetry.prometheus.enabled to false"
            )
            raise UserError(message) from error
        self.port: int = self._server.server_address[1]
        # It looks for the end only when something arrives, not twice a second: `close` sees to that.
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_FOREVER,), name="metrics", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop listening and free the port."""
        with contextlib.suppress(OSError):
            self._server.socket.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            self._server.shutdown()
            self._server.server_close()
        self._thread.join(timeout=1)


class _Server(ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, family: int, address: Any, text: Callable[[], bytes]) -> None:
        self.address_family = family
        self.text = text
        super().__init__(address, _Handler)

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
