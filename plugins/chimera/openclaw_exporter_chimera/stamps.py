"""When a message was queued, from what it carries."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_MILLISECONDS: Final = 1e11
"""Unix times from here on are milliseconds: as seconds this is the year 5138, as milliseconds 1973."""
_LONGEST: Final = 1 << 20
"""Bytes of a message beyond which it is not looked into."""


def envelope_time(message: bytes, fields: Sequence[str]) -> float | None:
    """Return the time in the first of the fields that a JSON message has, in Unix seconds."""
    if len(message) > _LONGEST:
        return None
    try:
        envelope = msgspec.json.decode(message)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    for field in fields:
        found = _find(envelope, field)
        if found is not None:
            return _unix(found)
    return None


def entry_time(text: bytes) -> float | None:
    """Return the time that a hash's field holds as text, in Unix seconds."""
    try:
        return _unix(float(text))
    except ValueError:
        return _unix(text.decode(errors="replace"))


def earliest(times: Iterable[float | None]) -> float | None:
    """Return the earliest of the times that are known."""
    return min((time for time in times if time is not None), default=None)


def _find(envelope: Any, field: str) -> Any:
    """Follow a dotted path; a key that holds the dots itself comes first."""
    if isinstance(envelope, Mapping) and field in envelope:
        return envelope[field]
    for name in field.split("."):
        if not isinstance(envelope, Mapping):
            return None
        envelope = envelope.get(name)
    return envelope


def _unix(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        if not math.isfinite(value) or value <= 0:
            return None
        return value / 1_000 if value >= _MILLISECONDS else float(value)
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    # Without an offset it is UTC, which is what utcnow() and BSON's printers leave.
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
