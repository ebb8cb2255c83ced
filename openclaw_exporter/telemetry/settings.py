"""Where metrics go: the tables `[telemetry.otlp]` and `[telemetry.prometheus]`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from os import environ
from typing import Annotated, Final, Literal

from msgspec import Meta

from openclaw_exporter.errors import ConfigProblem

is_url: Final = re.compile(r"https?://[^/\s]").match
"""Tells whether an OTLP endpoint may be one; what it names shows when it is used."""


def standard(name: str) -> str:
    """Return what `OTEL_EXPORTER_OTLP_METRICS_<name>` or `OTEL_EXPORTER_OTLP_<name>` says, or nothing."""
    return (
        environ.get(f"OTEL_EXPORTER_OTLP_METRICS_{name}") or environ.get(f"OTEL_EXPORTER_OTLP_{name}") or ""
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OtlpSettings:
    """Metrics pushed to an OTLP collector: the table `[telemetry.otlp]`.

    For a key that is not set here the standard variable holds, and what only a variable sets (headers,
    certificates, compression, temporality) always does.

    Attributes:
        enabled: Whether metrics are pushed. Not set: they are where `OTEL_METRICS_EXPORTER` is `otlp`, or an
            `OTEL_EXPORTER_OTLP_ENDPOINT` is set.
        endpoint: The collector's base URL; over HTTP, `/v1/metrics` is appended. Not set:
            `OTEL_EXPORTER_OTLP_ENDPOINT`, else port 4318 (HTTP) or 4317 (gRPC) of this machine.
        protocol: `http/protobuf`, or `grpc`. Not set: `OTEL_EXPORTER_OTLP_PROTOCOL`, else HTTP.
        interval: Seconds between two exports. Not set: `OTEL_METRIC_EXPORT_INTERVAL` (milliseconds), else 60.
        timeout: Seconds that one export may take, with its retries. Not set: `OTEL_EXPORTER_OTLP_TIMEOUT`
            (seconds), else 10.
    """

    enabled: bool | None = None
    endpoint: str | None = None
    protocol: Literal["http/protobuf", "grpc"] | None = None
    interval: Annotated[float, Meta(ge=1, le=3600)] | None = None
    timeout: Annotated[float, Meta(gt=0, le=300)] | None = None

    @property
    def pushes(self) -> bool:
        """Whether metrics are pushed, by this table or by the standard variables."""
        if self.enabled is not None:
            return self.enabled
        exporters = environ.get("OTEL_METRICS_EXPORTER", "")
        if exporters:
            return "otlp" in {name.strip().lower() for name in exporters.split(",")}
        return bool(standard("ENDPOINT"))


@dataclass(frozen=True, slots=True, kw_only=True)
class PrometheusSettings:
    """Metrics to be scraped: the table `[telemetry.prometheus]`.

    Attributes:
        enabled: Whether `/metrics` is served.
        host: The address to listen on.
        port: The TCP port to listen on; 0 takes a free one.
    """

    enabled: bool = True
    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 9464


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetrySettings:
    """Where metrics go: the table `[telemetry]`.

    Attributes:
        otlp: Metrics pushed to an OTLP collector.
        prometheus: Metrics to be scraped.
        resource_attributes: Further attributes of the resource that every metric is about.
        resource_detectors: OpenTelemetry's resource detectors to run at the start: `host`, `os`, `process`,
            `containerid` of the extra `detectors`, or those of any other package.
    """

    otlp: OtlpSettings = field(default_factory=OtlpSettings)
    prometheus: PrometheusSettings = field(default_factory=PrometheusSettings)
    resource_attributes: dict[str, str] = field(default_factory=dict)
    resource_detectors: tuple[str, ...] = ()


def check(settings: TelemetrySettings) -> tuple[ConfigProblem, ...]:
    """Return what is wrong between the keys. The endpoint is not repeated: it may hold a password."""
    endpoint = settings.otlp.endpoint
    if endpoint is None or is_url(endpoint) or not settings.otlp.pushes:
        return ()
    return (ConfigProblem("telemetry.otlp.endpoint", "is no URL", "one such as http://127.0.0.1:4318"),)
