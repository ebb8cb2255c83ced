"""The Prometheus text format, by the convention of node_exporter's textfile collector."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from openclaw_exporter.plugin import Kind, Measurement, Observation
from openclaw_exporter_textfile.errors import FileError

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_AGE: Final = re.compile(r"^# max_age (?P<seconds>[0-9]{1,8})$", re.MULTILINE)
_UNITS: Final = {
    "seconds": "s",
    "bytes": "By",
    "celsius": "Cel",
    "joules": "J",
    "watts": "W",
    "volts": "V",
    "amperes": "A",
    "hertz": "Hz",
    "meters": "m",
    "grams": "g",
}


def from_prometheus(name: str, text: str) -> tuple[float | None, list[Observation]]:
    """Read the Prometheus text format: the file's own max_age, and its measurements."""
    from prometheus_client.parser import text_fd_to_metric_families  # noqa: PLC0415 - 20 ms at start

    lines = _Counted(text)
    observations: list[Observation] = []
    try:
        for family in text_fd_to_metric_families(lines):  # type: ignore[arg-type] # it only iterates
            for sample in family.samples:
                if sample.timestamp is not None:
                    raise FileError(f"{name!r}: {sample.name} has a timestamp; the file's own time counts")
                dotted, unit, kind = _named(name, sample.name, family.type)
                observations.append(Measurement(dotted, sample.value, unit, kind, dict(sample.labels)))
    except (ValueError, IndexError, KeyError, AttributeError, TypeError):
        raise FileError(f"{name!r} line {lines.number} is no Prometheus text") from None
    own = _MAX_AGE.search(text)
    return float(own["seconds"]) if own else None, observations


class _Counted:
    """Lines that remember how many of them were taken."""

    def __init__(self, text: str) -> None:
        self._lines = text.split("\n")
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            self.number += 1
            yield line


def _named(file: str, name: str, kind: str) -> tuple[str, str, Kind]:
    """Return name, unit and kind of the measurement that Prometheus shows under this name.

    What has no type and ends in `_total` is a counter.
    """
    if kind not in ("counter", "gauge", "unknown", "untyped"):
        raise FileError(f"{file!r}: {name} is a {kind}; counters and gauges can be read")
    words = name.split("_")
    counts = kind == "counter" or (words[-1] == "total" and kind != "gauge")
    if counts and words[-1] == "total":
        words.pop()
    unit = "1" if words[-1] == "ratio" else _UNITS.get(words[-1], "{event}" if counts else "")
    if words[-1] in _UNITS:
        words.pop()
    if len(words) < 2 or not words[0]:  # noqa: PLR2004 - a namespace and a name
        raise FileError(f"{file!r}: {name} has to begin with a word of its own, such as backup_")
    return f"{words[0]}.{'_'.join(words[1:])}", unit, "counter" if counts else "gauge"
