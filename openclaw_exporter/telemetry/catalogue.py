"""The only place where an instrument is defined: its name, kind, unit, description and attributes.

Exporters, the reference page, dashboards and alert rules all read this table. It is pure data: importing it
costs nothing and needs no OpenTelemetry.

Names are chosen so that they come out the same on a scrape of `/metrics`, by OTLP into Prometheus 3 and by
OTLP through the OpenTelemetry Collector: base UCUM units or one annotation, no name of ours ends in a unit
or in `_total` (but for the three that OpenClaw named), ratios end in `.ratio`, states of 0 and 1 have no
unit, histogram bounds are no integers.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from openclaw_exporter.telemetry import agent_instruments, host_instruments, receiver_instruments
from openclaw_exporter.telemetry.instrument import Instrument, Kind, Service
from openclaw_exporter.telemetry.prometheus_names import metric_name

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CATALOGUE", "Instrument", "Kind", "Service", "prometheus_name"]

CATALOGUE: Final[Mapping[str, Instrument]] = MappingProxyType(
    {
        instrument.name: instrument
        for table in (agent_instruments.TABLE, host_instruments.TABLE, receiver_instruments.TABLE)
        for instrument in table
    }
)
"""Every instrument by its name."""


def prometheus_name(instrument: Instrument) -> str:
    """Return the instrument's name in Prometheus; a histogram's series add `_bucket`, `_sum` and `_count`."""
    return metric_name(instrument.name, instrument.unit, counter=instrument.kind == "counter")
