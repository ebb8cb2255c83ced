"""The Prometheus side: one registry for each set-up, and `/metrics` on a port of its own."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
from typing import TYPE_CHECKING, Final

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from prometheus_client import CollectorRegistry, generate_latest, start_http_server

from openclaw_exporter.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.simple_server import WSGIServer

    from prometheus_client import Metric

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
        self._inner = CollectorRegistry(auto_describe=False)
        self.reader = PrometheusMetricReader(
            scope_info_enabled=False,
            resource_attribute_filter=PROMOTED.__contains__,
            registry=self._inner,
        )
        self._lock = threading.Lock()
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """Return every metric family; one scrape at a time, for two would share out the reader's queue."""
        with self._lock:
            return list(self._inner.collect())

    def text(self) -> bytes:
        """Return all metrics, version 0.0.4 of the text format."""
        return generate_latest(self.registry)


class MetricsServer:
    """`/metrics` over HTTP, on a daemon thread.

    Raises:
        UserError: The address cannot be listened on.
    """

    def __init__(self, exposition: Exposition, host: str, port: int) -> None:
        try:
            server, thread = start_http_server(port, addr=host, registry=exposition.registry)
        except OSError as error:
            foreign = isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL
            right = "host to an address of this machine" if foreign else "port to a free port, to 0 for any"
            message = (
                f"telemetry.prometheus: cannot listen on {host}:{port} ({error.strerror or error}); "
                f"set telemetry.prometheus.{right}, or telemetry.prometheus.enabled to false"
            )
            raise UserError(message) from error
        self._server: WSGIServer = server
        self._thread = thread
        self.port: int = server.server_port

    def close(self) -> None:
        """Stop listening and free the port."""
        with contextlib.suppress(OSError):
            self._server.shutdown()
            self._server.server_close()
        self._thread.join(timeout=1)
