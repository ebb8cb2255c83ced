"""Prometheus' text format, version 0.0.4, out of prometheus_client's metric families.

prometheus_client writes it too, but checks and escapes every name and value again at every scrape, which
costs as much as all the rest of one. Names come checked from OpenTelemetry's exporter, and label sets hardly
change from scrape to scrape: here each is written once and remembered.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client import Metric

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_REMEMBERED: Final = 4096
# What the types of OpenMetrics are called here, and what the name of such a family ends in.
_TYPES: Final = {"counter": ("counter", "_total"), "info": ("gauge", "_info"), "unknown": ("untyped", "")}


def render(families: Iterable[Metric]) -> bytes:
    """Return the text of metric families.

    Args:
        families: Counters, gauges, histograms and infos with valid Prometheus names. A label without a value
            is left out, which is the same series to Prometheus.
    """
    parts: list[str] = []
    for family in families:
        kind, ending = _TYPES.get(family.type, (family.type, ""))
        name = family.name + ending
        parts.append(f"# HELP {name} {_help(family.documentation)}\n# TYPE {name} {kind}\n")
        parts.extend(
            f"{sample.name}{_labels(*sample.labels.items())} {_number(sample.value)}\n"
            for sample in family.samples
        )
    return "".join(parts).encode()


@lru_cache(_REMEMBERED)
def _help(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


@lru_cache(_REMEMBERED)
def _labels(*pairs: tuple[str, str]) -> str:
    written = ",".join(f'{name}="{_escaped(value)}"' for name, value in sorted(pairs) if value)
    return f"{{{written}}}" if written else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    text = repr(float(value))
    if text[-1] in "fn":
        return {"inf": "+Inf", "-inf": "-Inf"}.get(text, "NaN")
    return text
