"""The only place where an instrument is defined: its name, kind, unit, description and attributes.

Exporters, the reference page, dashboards and alert rules all read this table. It is pure data: importing it
costs nothing and needs no OpenTelemetry.

Names are chosen so that they come out the same on a scrape of `/metrics`, by OTLP into Prometheus 3 and by
OTLP through the OpenTelemetry Collector: base UCUM units or one annotation, no name of ours ends in a unit
or in `_total` (but for the three that OpenClaw named), ratios end in `.ratio`, states of 0 and 1 have no
unit, histogram bounds are no integers.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from openclaw_exporter.telemetry import agent_instruments, host_instruments, receiver_instruments
from openclaw_exporter.telemetry.instrument import Instrument, Kind, Service

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

PROMETHEUS_UNITS: Final[Mapping[str, str]] = MappingProxyType(
    {"s": "seconds", "By": "bytes", "Cel": "celsius", "W": "watts", "J": "joules"}
)
"""The word that each unit becomes at the end of a Prometheus name."""

_NOT_IN_A_NAME: Final = re.compile(r"[^a-zA-Z0-9:]+")


def prometheus_name(instrument: Instrument) -> str:
    """Return the instrument's name in Prometheus; a histogram's series add `_bucket`, `_sum` and `_count`.

    By the OpenTelemetry specification "Prometheus and OpenMetrics Compatibility": other characters become one
    underscore, then the unit's word, then `_total` for a counter, each unless the name ends in it already.
    """
    name = _NOT_IN_A_NAME.sub("_", instrument.name)
    name = name.removesuffix("_total")
    unit = PROMETHEUS_UNITS.get(instrument.unit, "")
    if unit and not name.endswith(f"_{unit}"):
        name = f"{name}_{unit}"
    return f"{name}_total" if instrument.kind == "counter" else name
