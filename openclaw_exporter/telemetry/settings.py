"""Where metrics go: the tables `[telemetry.otlp]` and `[telemetry.prometheus]`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

from msgspec import Meta

from openclaw_exporter.errors import ConfigProblem

is_url: Final = re.compile(r"https?://[^/\s]").match
"""Tells whether an OTLP endpoint may be one; what it names shows when it is used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OtlpSettings:
    """Metrics pushed to an OTLP collector: the table `[telemetry.otlp]`.

    The standard `OTEL_EXPORTER_OTLP_*` variables hold for what is not set here (headers, certificates,
    compression, temporality), and for a key of this table that has its default.

    Attributes:
        enabled: Whether metrics are pushed.
        endpoint: The collector's base URL; over HTTP, `/v1/metrics` is appended.
        protocol: `http/protobuf`, or `grpc`.
        interval: Seconds between two exports.
        timeout: Seconds that one export may take, with its retries.
    """

    enabled: bool = False
    endpoint: str = "http://127.0.0.1:4318"
    protocol: Literal["http/protobuf", "grpc"] = "http/protobuf"
    interval: Annotated[float, Meta(ge=1, le=3600)] = 60.0
    timeout: Annotated[float, Meta(gt=0, le=300)] = 10.0


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
    """

    otlp: OtlpSettings = field(default_factory=OtlpSettings)
    prometheus: PrometheusSettings = field(default_factory=PrometheusSettings)
    resource_attributes: dict[str, str] = field(default_factory=dict)


def check(settings: TelemetrySettings) -> tuple[ConfigProblem, ...]:
    """Return what is wrong between the keys. The endpoint is not repeated: it may hold a password."""
    if not settings.otlp.enabled or is_url(settings.otlp.endpoint):
        return ()
    return (ConfigProblem("telemetry.otlp.endpoint", "is no URL", "one such as http://127.0.0.1:4318"),)
