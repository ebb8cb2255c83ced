"""The heartbeat's rules once more, in plain Python and without a line of the room under test."""

from __future__ import annotations

import datetime as dt
import json
import math
import string
import unicodedata
import uuid
from typing import Any

LIMIT = 2**53 - 1
EXAMPLE: dict[str, Any] = {
    "node_id": "0f8fad5b-d9cb-469f-a165-70867728950e",
    "hostname": "chimera-01.prod",
    "version": "1.2.0",
    "capacity": {"workers": 24, "available_slots": 5},
    "queue_depth": {"planner": 3, "worker": 120},
    "last_heartbeat": "2026-02-06T12:34:56Z",
    "tags": ["region:us-east-1", "gpu:true"],
    "uptime_seconds": 86400,
}

MISSING = object()
"""As a field's value: the field is left out."""

_LETTERS_AND_DIGITS = set(string.ascii_letters + string.digits)
_BREAKING = {"Cc", "Zl", "Zp", "Cs"}


def body(**changes: Any) -> bytes:
    """Return the example as a request body, with changed or missing fields."""
    members = {name: value for name, value in (EXAMPLE | changes).items() if value is not MISSING}
    return json.dumps(members).encode()


def wrong_fields(members: dict[str, Any]) -> set[str]:
    """Return the names of the top-level fields that break a rule."""
    checks = {
        "node_id": _node_id,
        "hostname": _hostname,
        "version": _version,
        "capacity": _capacity,
        "queue_depth": _queue_depth,
        "last_heartbeat": _time,
        "tags": _tags,
    }
    wrong = {name for name, check in checks.items() if name not in members or not check(members[name])}
    if "uptime_seconds" in members and not _count(members["uptime_seconds"]):
        wrong.add("uptime_seconds")
    return wrong


def _node_id(value: Any) -> bool:
    try:
        return isinstance(value, str) and str(uuid.UUID(value)) == value
    except ValueError:
        return False


def _hostname(value: Any) -> bool:
    if not isinstance(value, str) or not 1 <= len(value) <= 253:
        return False
    for label in value.split("."):
        if not 1 <= len(label) <= 63 or label.startswith("-") or label.endswith("-"):
            return False
        if not set(label) <= _LETTERS_AND_DIGITS | {"-"}:
            return False
    return True


def _printable(text: str) -> bool:
    return not any(unicodedata.category(character) in _BREAKING for character in text)


def _version(value: Any) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= 64 and _printable(value)


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LIMIT


def _capacity(value: Any) -> bool:
    if not isinstance(value, dict) or len(value) > 32 or not {"workers", "available_slots"} <= value.keys():
        return False
    for name, amount in value.items():
        if name in {"workers", "available_slots"}:
            if not _count(amount):
                return False
            continue
        inner = set(string.ascii_lowercase + string.digits + "_.")
        if not (1 <= len(name) <= 63 and name[0] in string.ascii_lowercase and set(name) <= inner):
            return False
        if isinstance(amount, bool) or not isinstance(amount, int | float):
            return False
        if not (amount >= 0 and math.isfinite(amount)):
            return False
    return True


def _queue_depth(value: Any) -> bool:
    if not isinstance(value, dict) or len(value) > 32:
        return False
    allowed = _LETTERS_AND_DIGITS | set("_.:-")
    return all(
        1 <= len(topic) <= 64 and set(topic) <= allowed and _count(depth) for topic, depth in value.items()
    )


def _time(value: Any) -> bool:
    if not isinstance(value, str) or not value.isascii() or len(value) < 20 or not value.endswith("Z"):
        return False
    whole, point, fraction = value[:-1].partition(".")
    if point and not (1 <= len(fraction) <= 3 and fraction.isdigit()):
        return False
    try:
        moment = dt.datetime.strptime(whole, "%Y-%m-%dT%H:%M:%S")  # noqa: DTZ007 - Z is checked above
    except ValueError:
        return False
    return moment.isoformat() == whole


def _tags(value: Any) -> bool:
    if not isinstance(value, list | tuple) or len(value) > 32:
        return False
    return all(isinstance(tag, str) and _printable(tag) and 1 <= len(tag.encode()) <= 128 for tag in value)
