"""How Prometheus writes OpenTelemetry's names, units and attributes.

The rules are those of the OpenTelemetry specification, "Prometheus and OpenMetrics Compatibility", as its
Python exporter reads them, so that a name is the same on a scrape and by OTLP.
"""

from __future__ import annotations

import json
import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

UNIT_WORDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "d": "days",
        "h": "hours",
        "min": "minutes",
        "s": "seconds",
        "ms": "milliseconds",
        "us": "microseconds",
        "ns": "nanoseconds",
        "By": "bytes",
        "KBy": "kilobytes",
        "MBy": "megabytes",
        "GBy": "gigabytes",
        "TBy": "terabytes",
        "KiBy": "kibibytes",
        "MiBy": "mebibytes",
        "GiBy": "gibibytes",
        "TiBy": "tebibytes",
        "m": "meters",
        "g": "grams",
        "V": "volts",
        "A": "amperes",
        "W": "watts",
        "J": "joules",
        "Cel": "celsius",
        "Hz": "hertz",
        "%": "percent",
        "1": "",
    }
)
"""The word that each unit of UCUM becomes at the end of a name."""

_PER: Final = {
    "s": "second",
    "m": "minute",
    "h": "hour",
    "d": "day",
    "w": "week",
    "mo": "month",
    "y": "year",
}
_TOTAL: Final = "_total"

_annotations = re.compile(r"{.*}")
_not_in_a_name = re.compile(r"[^a-zA-Z0-9:]+")
_not_in_a_label = re.compile(r"[^a-zA-Z0-9]+")


def metric_name(name: str, unit: str, *, counter: bool) -> str:
    """Return an instrument's name in Prometheus; a histogram's series add `_bucket`, `_sum` and `_count`.

    Other characters become one underscore; then come the unit's word, and `_total` for a counter, each unless
    the name ends in it already.
    """
    written = _not_in_a_name.sub("_", _without_digit(name))
    if counter:
        written = written.removesuffix(_TOTAL)
    word = unit_word(unit)
    if word and not written.endswith(f"_{word}"):
        written = f"{written}_{word}"
    return written + _TOTAL if counter else written


def unit_word(unit: str) -> str:
    """Return what a unit adds to a name; empty for none, for `1` and for an annotation."""
    bare = _annotations.sub("", unit)
    if bare in UNIT_WORDS:
        return UNIT_WORDS[bare]
    top, slash, bottom = bare.partition("/")
    bottom = _not_in_a_name.sub("_", bottom)
    if slash and bottom:
        top = _not_in_a_name.sub("_", top)
        top = UNIT_WORDS.get(top, top)
        per = f"per_{_PER.get(bottom, bottom)}"
        return f"{top}_{per}" if top else per
    return _not_in_a_name.sub("_", bare).strip("_")


def label_name(key: str) -> str:
    """Return an attribute's name as a label."""
    return _not_in_a_label.sub("_", _without_digit(key))


def label_value(value: object) -> str:
    """Return an attribute's value as a label's: text as it is, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _without_digit(name: str) -> str:
    return f"_{name[1:]}" if name[:1].isdigit() else name
