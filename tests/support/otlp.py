"""A small OTLP/HTTP collector that keeps the last value of each series."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


class OtlpCollector:
    """Listens on a free loopback port; `last` has the series of the last request alone."""

    def __init__(self) -> None:
        self.last: Series = {}
        self.requests = 0
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    import gzip  # noqa: PLC0415 - only where the exporter compresses

                    body = gzip.decompress(body)
                collector.last = series(ExportMetricsServiceRequest.FromString(body))
                collector.requests += 1
                answer = ExportMetricsServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """The base URL for `telemetry.otlp.endpoint`."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def series(request: ExportMetricsServiceRequest) -> Series:
    """Return the numbers in a request: (name, attributes) → value. Histograms are left out."""
    found: Series = {}
    for resource in request.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                kind = metric.WhichOneof("data")
                if kind not in {"gauge", "sum"}:
                    continue
                for point in getattr(metric, kind).data_points:
                    attributes = frozenset((pair.key, pair.value.string_value) for pair in point.attributes)
                    value = point.as_int if point.WhichOneof("value") == "as_int" else point.as_double
                    found[metric.name, attributes] = float(value)
    return found
