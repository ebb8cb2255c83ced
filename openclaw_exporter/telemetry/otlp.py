"""Pushing metrics to an OTLP collector, over HTTP or gRPC.

The SDK's exporters, and what they import (requests or gRPC, 20 MiB each), come in only when they are used.
What they log of a collector that is away becomes one line when that begins and one when it ends.
"""

from __future__ import annotations

import logging
import re
import threading
from os import environ
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricExportResult,
    PeriodicExportingMetricReader,
)

from openclaw_exporter.errors import UserError
from openclaw_exporter.logs import Episodes
from openclaw_exporter.telemetry.settings import OtlpSettings, is_url

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricsData

_LOGGER: Final = logging.getLogger(__name__)
_DEFAULTS: Final = OtlpSettings()
_GRPC_ENDPOINT: Final = "http://127.0.0.1:4317"
_HTTP_PATH: Final = "/v1/metrics"
_CREDENTIALS: Final = re.compile(r"//[^/@\s]*@")
_MAX_REASON: Final = 300


class ExporterLog(logging.Handler):
    """Takes what the SDK's exporters log; remembers the first line of an export for the episode's cause."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._first = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        """Remember the record's text, without credentials that a URL may hold."""
        if not getattr(self._first, "text", ""):
            self._first.text = _CREDENTIALS.sub("//", " ".join(record.getMessage().split()))[:_MAX_REASON]

    def take(self) -> str:
        """Return what this thread logged first since the last call."""
        text: str = getattr(self._first, "text", "")
        self._first.text = ""
        return text

    def install(self) -> None:
        """Stand between the exporters' loggers and the root logger's handlers."""
        logger = logging.getLogger("opentelemetry.exporter.otlp")
        if self not in logger.handlers:
            logger.addHandler(self)
            logger.propagate = False


_EXPORTER_LOG: Final = ExporterLog()


class WatchedExporter(MetricExporter):
    """An exporter whose failures are one episode in the log, whatever they are."""

    def __init__(self, inner: Any, place: str) -> None:
        super().__init__(
            preferred_temporality=inner._preferred_temporality,  # noqa: SLF001 - as the SDK's reader reads it
            preferred_aggregation=inner._preferred_aggregation,  # noqa: SLF001 - as the SDK's reader reads it
        )
        self._inner = inner
        self._place = place
        self._episodes = Episodes(_LOGGER)

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        """Export one batch; a failure costs that batch and nothing else."""
        result: MetricExportResult
        try:
            result = self._inner.export(metrics_data, timeout_millis=timeout_millis, **kwargs)
        except Exception as error:  # noqa: BLE001 - a broken exporter must not end the reader's thread
            result, reason = MetricExportResult.FAILURE, type(error).__name__
        else:
            reason = _EXPORTER_LOG.take()
        if result is MetricExportResult.SUCCESS:
            self._episodes.end("otlp", f"the OTLP collector at {self._place} takes metrics again")
        else:
            text = f"the OTLP collector at {self._place} takes no metrics: {reason or 'no reason given'}"
            self._episodes.begin("otlp", "failure", text)
        return result

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Nothing is kept back here."""
        flushed: bool = self._inner.force_flush(timeout_millis)
        return flushed

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Close the connection and give up an export that waits to be tried again."""
        self._inner.shutdown(timeout_millis, **kwargs)


def otlp_reader(settings: OtlpSettings) -> PeriodicExportingMetricReader:
    """Return a reader that exports at every interval from now on.

    A key that has its default gives way to the standard variable: `OTEL_EXPORTER_OTLP_METRICS_PROTOCOL`,
    `…_ENDPOINT`, `…_TIMEOUT` (or those without `METRICS_`) and `OTEL_METRIC_EXPORT_INTERVAL`. Headers,
    certificates, compression and temporality come from the standard variables alone.

    Raises:
        UserError: The endpoint is no URL, or a standard variable is wrong.
    """
    _EXPORTER_LOG.install()
    protocol = settings.protocol
    if protocol == _DEFAULTS.protocol:
        protocol = _standard("PROTOCOL") or protocol  # type: ignore[assignment] # checked next
    if protocol not in {"http/protobuf", "grpc"}:
        message = (
            f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol!r}; set it to 'http/protobuf' or 'grpc', or remove it"
        )
        raise UserError(message)
    endpoint = _endpoint(settings, protocol)
    timeout = None if settings.timeout == _DEFAULTS.timeout and _standard("TIMEOUT") else settings.timeout
    try:
        if protocol == "grpc":
            from opentelemetry.exporter.otlp.proto.grpc import (  # noqa: PLC0415 - 20 MiB, only when used
                metric_exporter as grpc_exporter,
            )

            inner: Any = grpc_exporter.OTLPMetricExporter(endpoint=endpoint, timeout=timeout)
        else:
            from opentelemetry.exporter.otlp.proto.http import (  # noqa: PLC0415 - 20 MiB, only when used
                metric_exporter as http_exporter,
            )

            inner = http_exporter.OTLPMetricExporter(endpoint=endpoint, timeout=timeout)
    except (ValueError, OSError, RuntimeError) as error:
        message = f"the OTLP exporter cannot be set up: {error}; check the OTEL_EXPORTER_OTLP_* variables"
        raise UserError(message) from error
    interval = settings.interval * 1000
    if settings.interval == _DEFAULTS.interval and environ.get("OTEL_METRIC_EXPORT_INTERVAL"):
        interval = 0
    return PeriodicExportingMetricReader(
        WatchedExporter(inner, _place(endpoint or _standard("ENDPOINT"))),
        export_interval_millis=interval or None,
        export_timeout_millis=settings.timeout * 1000,
    )


def _endpoint(settings: OtlpSettings, protocol: str) -> str | None:
    """Return the endpoint to use, or None where a standard variable decides."""
    endpoint = settings.endpoint
    if endpoint == _DEFAULTS.endpoint:
        if _standard("ENDPOINT"):
            return None
        endpoint = _GRPC_ENDPOINT if protocol == "grpc" else endpoint
    if not is_url(endpoint):
        message = (
            f"telemetry.otlp.endpoint: {_CREDENTIALS.sub('//', endpoint)!r} is no URL; "
            "write one such as http://127.0.0.1:4318"
        )
        raise UserError(message)
    if protocol == "grpc":
        return endpoint
    return endpoint if endpoint.endswith(_HTTP_PATH) else endpoint.rstrip("/") + _HTTP_PATH


def _standard(name: str) -> str:
    return (
        environ.get(f"OTEL_EXPORTER_OTLP_METRICS_{name}") or environ.get(f"OTEL_EXPORTER_OTLP_{name}") or ""
    )


def _place(endpoint: str) -> str:
    return _CREDENTIALS.sub("//", endpoint)
