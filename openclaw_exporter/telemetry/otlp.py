"""Pushing metrics to an OTLP collector, over HTTP or gRPC.

The SDK's exporters, and what they import (requests 10 MiB, gRPC 19 MiB), come in only when they are used.
What they log of a collector that is away becomes one line when that begins and one when it ends.
"""

from __future__ import annotations

import logging
import re
import threading
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricExportResult,
    PeriodicExportingMetricReader,
)

from openclaw_exporter.errors import UserError
from openclaw_exporter.logs import Episodes
from openclaw_exporter.telemetry.otlp_tls import otlp_tls
from openclaw_exporter.telemetry.settings import is_url, standard

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricsData

    from openclaw_exporter.telemetry.otlp_tls import OtlpTls
    from openclaw_exporter.telemetry.settings import OtlpSettings

_LOGGER: Final = logging.getLogger(__name__)
_PORTS: Final = {"http/protobuf": 4318, "grpc": 4317}
_TIMEOUT: Final = 10.0
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

    A key that is set wins over its standard variable. Headers, certificates, compression and temporality come
    from the standard variables alone; those with `METRICS_` in their name win over those without.

    Raises:
        UserError: The endpoint is no URL, a file cannot be read, or a standard variable is wrong.
    """
    _EXPORTER_LOG.install()
    protocol = settings.protocol or standard("PROTOCOL") or "http/protobuf"
    if protocol not in _PORTS:
        message = (
            f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol!r}; set it to 'http/protobuf' or 'grpc', or remove it"
        )
        raise UserError(message)
    tls = otlp_tls()
    endpoint = _endpoint(settings, protocol)
    timeout = settings.timeout
    if timeout is None and not standard("TIMEOUT"):
        timeout = _TIMEOUT
    try:
        inner = _exporter(protocol, endpoint, timeout, tls)
    except (ValueError, OSError, RuntimeError) as error:
        message = f"the OTLP exporter cannot be set up: {error}; check the OTEL_EXPORTER_OTLP_* variables"
        raise UserError(message) from error
    if complaint := _EXPORTER_LOG.take():
        _LOGGER.warning("an OTEL_EXPORTER_OTLP_* variable is not understood: %s", complaint)
    return PeriodicExportingMetricReader(
        WatchedExporter(inner, _place(endpoint or standard("ENDPOINT"))),
        # None: the standard variable, or a minute.
        export_interval_millis=settings.interval * 1000 if settings.interval else None,
        export_timeout_millis=(timeout or _TIMEOUT) * 1000,
    )


def _exporter(protocol: str, endpoint: str | None, timeout: float | None, tls: OtlpTls) -> Any:
    if protocol == "grpc":
        from grpc import ssl_channel_credentials  # noqa: PLC0415 - 19 MiB, only when used
        from opentelemetry.exporter.otlp.proto.grpc import metric_exporter as grpc_exporter  # noqa: PLC0415

        credentials = ssl_channel_credentials(tls.read(tls.ca), tls.read(tls.key), tls.read(tls.certificate))
        return grpc_exporter.OTLPMetricExporter(endpoint=endpoint, timeout=timeout, credentials=credentials)
    from opentelemetry.exporter.otlp.proto.http import metric_exporter as http_exporter  # noqa: PLC0415

    from openclaw_exporter.telemetry.otlp_session import OtlpSession  # noqa: PLC0415 - 10 MiB, only when used

    return http_exporter.OTLPMetricExporter(endpoint=endpoint, timeout=timeout, session=OtlpSession())


def _endpoint(settings: OtlpSettings, protocol: str) -> str | None:
    """Return the endpoint to use, or None where a standard variable decides."""
    endpoint = settings.endpoint
    if endpoint is None:
        if standard("ENDPOINT"):
            return None
        endpoint = f"http://127.0.0.1:{_PORTS[protocol]}"
    if not is_url(endpoint):
        message = (
            f"telemetry.otlp.endpoint: {_CREDENTIALS.sub('//', endpoint)!r} is no URL; "
            "write one such as http://127.0.0.1:4318"
        )
        raise UserError(message)
    if protocol == "grpc":
        return endpoint
    return endpoint if endpoint.endswith(_HTTP_PATH) else endpoint.rstrip("/") + _HTTP_PATH


def _place(endpoint: str) -> str:
    return _CREDENTIALS.sub("//", endpoint)
