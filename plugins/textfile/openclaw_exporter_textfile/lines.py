"""JSON lines: one observation a line."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from openclaw_exporter.plugin import Capacity, Measurement, Observation, QueueDepth, Tag, Uptime
from openclaw_exporter_textfile.errors import FileError
from openclaw_exporter_textfile.options import Seconds


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class _Capacity(_Line, frozen=True):
    capacity: str
    amount: int | float


class _Queue(_Line, frozen=True):
    queue: str
    depth: int
    oldest_age: int | float | None = None


class _Uptime(_Line, frozen=True):
    uptime: int | float


class _Tag(_Line, frozen=True):
    tag: str
    value: str


class _Measurement(_Line, frozen=True):
    measurement: str
    value: int | float
    unit: str = ""
    kind: Literal["counter", "gauge", "updowncounter"] = "gauge"
    attributes: dict[str, str | bool | int | float] = {}


class _Age(_Line, frozen=True):
    max_age: Seconds


_LINES: Final[dict[str, type[_Line]]] = {
    "capacity": _Capacity,
    "queue": _Queue,
    "uptime": _Uptime,
    "tag": _Tag,
    "measurement": _Measurement,
    "max_age": _Age,
}


def from_lines(name: str, text: str) -> tuple[float | None, list[Observation]]:
    """Read JSON lines: the file's own max_age, and its observations."""
    max_age: float | None = None
    observations: list[Observation] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            table = msgspec.json.decode(line, type=dict[str, object])
            kinds = [kind for key, kind in _LINES.items() if key in table]
            if len(kinds) != 1:
                raise FileError(f"{name!r} line {number} has not exactly one of {', '.join(_LINES)}")
            read = msgspec.convert(table, kinds[0])
        except (msgspec.MsgspecError, RecursionError) as error:
            why = str(error) if isinstance(error, msgspec.ValidationError) else "no JSON"
            raise FileError(f"{name!r} line {number}: {why}") from None
        if isinstance(read, _Age):
            max_age = read.max_age
        else:
            observations.append(_observation(read))
    return max_age, observations


def _observation(line: _Line) -> Observation:
    match line:
        case _Capacity():
            return Capacity(line.capacity, line.amount)
        case _Queue():
            return QueueDepth(line.queue, line.depth, line.oldest_age)
        case _Uptime():
            return Uptime(line.uptime)
        case _Tag():
            return Tag(line.tag, line.value)
        case _Measurement():
            return Measurement(line.measurement, line.value, line.unit, line.kind, line.attributes)
    raise TypeError(type(line))
