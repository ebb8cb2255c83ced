"""What a plugin author needs: five observations, the collector protocol and one hook."""

from __future__ import annotations

from openclaw_exporter.plugin.hooks import API_VERSION, Collector, hookimpl
from openclaw_exporter.plugin.observations import (
    AttributeValue,
    Capacity,
    Kind,
    Measurement,
    Observation,
    QueueDepth,
    Tag,
    Uptime,
)

__all__ = [
    "API_VERSION",
    "AttributeValue",
    "Capacity",
    "Collector",
    "Kind",
    "Measurement",
    "Observation",
    "QueueDepth",
    "Tag",
    "Uptime",
    "hookimpl",
]
