"""Small OTLP collectors: real HTTP and gRPC servers that decode and keep what they are sent."""

from __future__ import annotations

import gzip
import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

Series = dict[tuple[tuple[str, object], ...], float]


def value_of(value: Any) -> object:
    """Return the Python value of an OTLP AnyValue."""
    return getattr(value, value.WhichOneof("value"))


def attributes_of(pairs: Iterable[Any]) -> dict[str, object]:
    """Return OTLP key-value pairs as a dictionary."""
    return {pair.key: value_of(pair.value) for pair in pairs}


class Received:
    """What a collector was sent."""

    def __init__(self) -> None:
        self.requests: list[ExportMetricsServiceRequest] = []
        self.headers: list[dict[str, str]] = []
        self.status = 200

    def resource(self) -> dict[str, object]:
        """Return the last request's resource attributes."""
        return attributes_of(self.requests[-1].resource_metrics[0].resource.attributes)

    def series(self, name: str) -> Series:
        """Return the values of a metric in the last request, by attributes."""
        return next((series for metric, series in self.metrics() if metric == name), {})

    def metrics(self) -> list[tuple[str, Series]]:
        """Return every metric of the last request; of a histogram, the count."""
        found = []
        for resource in self.requests[-1].resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    kind = metric.WhichOneof("data")
                    series: Series = {}
                    for point in getattr(metric, kind).data_points:
                        value = (
                            point.count if kind == "histogram" else getattr(point, point.WhichOneof("value"))
                        )
                        series[tuple(sorted(attributes_of(point.attributes).items()))] = value
                    found.append((metric.name, series))
        return found


class HttpCollector(Received):
    """OTLP over HTTP."""

    def __init__(self, port: int = 0) -> None:
        super().__init__()
        received = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                if received.status == 200:
                    received.headers.append({key.lower(): value for key, value in self.headers.items()})
                    received.headers[-1]["path"] = self.path
                    received.requests.append(ExportMetricsServiceRequest.FromString(body))
                self.send_response(received.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class GrpcCollector(Received):
    """OTLP over gRPC."""

    def __init__(self) -> None:
        import grpc  # noqa: PLC0415 - heavy, and only some tests need it
        from opentelemetry.proto.collector.metrics.v1 import (  # noqa: PLC0415 - imports grpc
            metrics_service_pb2_grpc,
        )

        super().__init__()
        received = self

        class Servicer(metrics_service_pb2_grpc.MetricsServiceServicer):
            def Export(  # noqa: N802 - the service's own name
                self, request: ExportMetricsServiceRequest, context: Any
            ) -> ExportMetricsServiceResponse:
                received.headers.append(dict(context.invocation_metadata()))
                received.requests.append(request)
                return ExportMetricsServiceResponse()

        self._server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(Servicer(), self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._server.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.stop(0).wait()
