"""The rules of a heartbeat's fields, one by one, for every heartbeat that is not plainly right.

`check` is the authority: what it returns is normal (equal heartbeats are equal values), what it refuses it
refuses with every wrong field named. No message repeats a value that came in.
"""

from __future__ import annotations

import re
from itertools import islice
from math import isfinite
from typing import TYPE_CHECKING, Any, Final

from openclaw_exporter.errors import FieldProblem, FieldsError
from openclaw_exporter.wire.timestamps import format_ms, parse_ms

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAX_INTEGER: Final = 2**53 - 1
"""The largest integer that every JSON implementation keeps exact (RFC 8259, section 6)."""
MAX_HOSTNAME: Final = 253
MAX_VERSION: Final = 64
MAX_ENTRIES: Final = 32
"""Resources (with the two required ones), topics and tags: at most so many of each."""
MAX_RESOURCE_NAME: Final = 63
MAX_TOPIC_NAME: Final = 64
MAX_TAG_BYTES: Final = 128
REQUIRED_RESOURCES: Final = ("workers", "available_slots")

UUID: Final = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
HOST_NAME: Final = (
    r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
)
"""RFC 1123, section 2.1, over RFC 952: labels of letters, digits and inner hyphens; no dot at the end."""
RESOURCE: Final = r"[a-z][a-z0-9_.]{0,62}"
TOPIC: Final = r"[A-Za-z0-9_.:-]{1,64}"

_is_uuid = re.compile(UUID).fullmatch
_is_host_name = re.compile(HOST_NAME).fullmatch
_is_resource = re.compile(RESOURCE).fullmatch
_is_topic = re.compile(TOPIC).fullmatch
# C0, DEL, C1 and the two Unicode line separators, which break a line of a log just as well; and lone
# surrogates, which only a publisher's own Python can hold and which UTF-8 cannot.
_has_control = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]").search

_TYPE_NAMES: Final = {
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a number with a fraction or exponent",
    type(None): "null",
    list: "an array",
    tuple: "an array",
    dict: "an object",
}

_Problems = list[FieldProblem]


def check(members: Mapping[str, object]) -> dict[str, Any]:
    """Return a heartbeat's fields, normal; members without a rule are dropped.

    Normal are: integral numbers up to 2**53 - 1 as integers, larger ones as doubles, `last_heartbeat` without
    a fraction on a whole second and with three digits otherwise, tags as a tuple.

    Raises:
        FieldsError: Fields are missing or break their rule; all of them are named.
    """
    problems: _Problems = []
    fields: dict[str, Any] = {}
    for name, rule in _RULES.items():
        if name in members:
            fields[name] = rule(members[name], problems)
        elif name not in _OPTIONAL:
            problems.append(FieldProblem(name, "is required"))
    if problems:
        raise FieldsError(tuple(problems))
    return fields


def plain_number(value: float) -> int | float:
    """Return the one value that stands for all equal numbers: an integer up to 2**53 - 1, else a double.

    Raises:
        OverflowError: An integer is beyond the range of doubles.
    """
    if value > MAX_INTEGER:
        return float(value)
    return int(value) if value == int(value) else value


def _node_id(value: object, problems: _Problems) -> object:
    text = _string("node_id", value, problems)
    if text is not None and not _is_uuid(text):
        problems.append(
            FieldProblem("node_id", "must be a UUID in lower case, 8-4-4-4-12 hexadecimal digits")
        )
    return text


def _hostname(value: object, problems: _Problems) -> object:
    text = _string("hostname", value, problems)
    if text is not None and not (len(text) <= MAX_HOSTNAME and _is_host_name(text)):
        rule = (
            "must be a host name (RFC 1123), 1 to 253 characters: labels of letters, digits and inner hyphens"
        )
        problems.append(FieldProblem("hostname", rule))
    return text


def _version(value: object, problems: _Problems) -> object:
    text = _string("version", value, problems)
    if text is not None and not (1 <= len(text) <= MAX_VERSION and not _has_control(text)):
        problems.append(FieldProblem("version", "must have 1 to 64 characters and no control characters"))
    return text


def _capacity(value: object, problems: _Problems) -> object:
    entries = _entries("capacity", value, problems)
    if entries is None:
        return None
    normal: dict[str, int | float] = {}
    for resource in REQUIRED_RESOURCES:
        if resource in entries:
            _count(f"capacity.{resource}", entries[resource], problems)
        else:
            problems.append(FieldProblem(f"capacity.{resource}", "is required"))
    for resource, amount in islice(entries.items(), MAX_ENTRIES):
        if resource in REQUIRED_RESOURCES:
            normal[resource] = amount
        elif not (isinstance(resource, str) and _is_resource(resource)):
            _add_once(problems, FieldProblem("capacity", f"the name of a resource must match ^{RESOURCE}$"))
        elif type(amount) not in (int, float):
            problems.append(FieldProblem(f"capacity.{resource}", f"must be a number, not {_type(amount)}"))
        else:
            try:
                normal[resource] = _amount(amount)
            except (ValueError, OverflowError):
                problems.append(FieldProblem(f"capacity.{resource}", "must be a finite number, 0 or more"))
    return normal


def _amount(value: float) -> int | float:
    if not (value >= 0 and isfinite(value)):
        raise ValueError("not a finite number of 0 or more")
    return plain_number(value)


def _queue_depth(value: object, problems: _Problems) -> object:
    entries = _entries("queue_depth", value, problems)
    if entries is None:
        return None
    for topic, depth in islice(entries.items(), MAX_ENTRIES):
        if isinstance(topic, str) and _is_topic(topic):
            _count(f"queue_depth.{topic}", depth, problems)
        else:
            _add_once(problems, FieldProblem("queue_depth", f"the name of a topic must match ^{TOPIC}$"))
    return dict(entries)


def _last_heartbeat(value: object, problems: _Problems) -> object:
    text = _string("last_heartbeat", value, problems)
    if text is None:
        return None
    try:
        return format_ms(parse_ms(text))
    except ValueError as error:
        problems.append(FieldProblem("last_heartbeat", f"must be RFC 3339 in UTC with Z: {error}"))
        return None


def _tags(value: object, problems: _Problems) -> object:
    if not isinstance(value, list | tuple):
        problems.append(FieldProblem("tags", f"must be an array, not {_type(value)}"))
        return None
    if len(value) > MAX_ENTRIES:
        problems.append(FieldProblem("tags", f"must have at most {MAX_ENTRIES} items, has {len(value)}"))
    for index, tag in enumerate(value[:MAX_ENTRIES]):
        text = _string(f"tags[{index}]", tag, problems)
        if text is None:
            continue
        fault = tag_fault(text)
        if fault is not None:
            problems.append(FieldProblem(f"tags[{index}]", fault))
    return tuple(value)


def tag_fault(text: str) -> str | None:
    """Return the rule that a tag breaks; None: it is one that a node may have."""
    if _has_control(text):
        return "must have no control characters"
    if not 1 <= len(text.encode()) <= MAX_TAG_BYTES:
        return f"must have 1 to {MAX_TAG_BYTES} bytes in UTF-8"
    return None


def _uptime_seconds(value: object, problems: _Problems) -> object:
    _count("uptime_seconds", value, problems)
    return value


def _string(field: str, value: object, problems: _Problems) -> str | None:
    if isinstance(value, str):
        return value
    problems.append(FieldProblem(field, f"must be a string, not {_type(value)}"))
    return None


def _entries(field: str, value: object, problems: _Problems) -> dict[Any, Any] | None:
    if not isinstance(value, dict):
        problems.append(FieldProblem(field, f"must be an object, not {_type(value)}"))
        return None
    if len(value) > MAX_ENTRIES:
        problems.append(FieldProblem(field, f"must have at most {MAX_ENTRIES} members, has {len(value)}"))
    return value


def _count(field: str, value: object, problems: _Problems) -> None:
    if type(value) is not int:
        problems.append(FieldProblem(field, f"must be an integer, not {_type(value)}"))
    elif not 0 <= value <= MAX_INTEGER:
        problems.append(FieldProblem(field, "must be an integer of 0 to 2^53-1"))


def _add_once(problems: _Problems, problem: FieldProblem) -> None:
    if problem not in problems:
        problems.append(problem)


def _type(value: object) -> str:
    return _TYPE_NAMES.get(type(value), "a value that JSON has not")


_OPTIONAL: Final = frozenset({"uptime_seconds"})
_RULES: Final[dict[str, Callable[[object, _Problems], object]]] = {
    "node_id": _node_id,
    "hostname": _hostname,
    "version": _version,
    "capacity": _capacity,
    "queue_depth": _queue_depth,
    "last_heartbeat": _last_heartbeat,
    "tags": _tags,
    "uptime_seconds": _uptime_seconds,
}
