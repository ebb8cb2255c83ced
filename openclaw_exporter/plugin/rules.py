"""What one observation may say: the wire contract's field rules and the metric catalogue's naming rules."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TypeAlias

from openclaw_exporter.errors import OpenClawError
from openclaw_exporter.plugin.observations import (
    AttributeValue,
    Capacity,
    Measurement,
    Observation,
    QueueDepth,
    Tag,
    Uptime,
)
from openclaw_exporter.plugin.redaction import one_line

MAX_WHOLE: Final = 2**53 - 1
"""The largest whole number that every JSON reader keeps exactly (RFC 8259, section 6)."""

MAX_INT64: Final = 2**63 - 1
"""The largest whole number of an OTLP data point; one beyond it would fail the whole export."""

WHOLE_RESOURCES: Final = frozenset({"workers", "available_slots"})
MAX_ATTRIBUTES: Final = 16
MAX_ATTRIBUTE_TEXT: Final = 255
MAX_NAME: Final = 255
MAX_TAG_BYTES: Final = 128
UNITS: Final = frozenset({"", "1", "s", "By", "Cel", "W", "J", "V", "A", "Hz", "m", "g"})
"""The base units that Prometheus names are made from in the same way on every path."""

RESERVED_PREFIXES: Final = ("openclaw.", "openclaw_")
"""Names of the exporter itself and of OpenClaw's gateway; a plugin's own start with another word."""

Reason: TypeAlias = Literal[
    "type",
    "range",
    "name",
    "text",
    "unit",
    "attributes",
    "conflict",
    "duplicate",
    "budget",
    "flood",
    "partial",
]
"""Why something is refused, in one word: the metrics' `error.type`."""

_RESOURCE: Final = re.compile(r"[a-z][a-z0-9_.]{0,62}")
_TOPIC: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_TAG_KEY: Final = re.compile(r"[a-z][a-z0-9_.-]*")
_NAME: Final = re.compile(r"[a-z][a-z0-9_]*(?:\.[a-z0-9_]+)+")
_ATTRIBUTE: Final = re.compile(r"[a-z][a-z0-9_]*(?:\.[a-z0-9_]+)*")
_ANNOTATION: Final = re.compile(r"\{[a-z][a-z0-9_]{0,40}\}")
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_UNIT_WORDS: Final = frozenset(
    {
        *("total", "seconds", "milliseconds", "microseconds", "nanoseconds", "bytes", "celsius", "watts"),
        *("joules", "volts", "amperes", "hertz", "meters", "grams", "percent"),
    }
)
_KINDS: Final = frozenset({"counter", "gauge", "updowncounter"})


class RejectedError(OpenClawError):
    """An observation breaks a rule."""

    def __init__(self, reason: Reason, detail: str) -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(detail)


def checked(item: object) -> Observation:
    """Return the observation in normal form, a copy where it held anything that can change later.

    Raises:
        RejectedError: It is no observation, or one of its fields breaks a rule.
    """
    check = _CHECKS.get(type(item))
    if check is None:
        raise RejectedError("type", f"{type(item).__name__} is no observation")
    try:
        return check(item)
    except RejectedError as refusal:
        raise RejectedError(
            refusal.reason, one_line(f"{type(item).__name__}: {refusal.detail}", 200)
        ) from None
    except Exception as error:  # noqa: BLE001 - a half-built object, or a mapping of the plugin's that raises
        detail = f"{type(item).__name__} cannot be read ({type(error).__name__})"
        raise RejectedError("type", detail) from None


def _capacity(item: Capacity) -> Capacity:
    resource = _text(item.resource, "resource", _RESOURCE)
    amount = _number(item.amount, "amount of", resource, least=0)
    if resource in WHOLE_RESOURCES:
        if amount != int(amount) or amount > MAX_WHOLE:
            raise RejectedError("range", f"amount of {resource} is {amount!r}, not a whole number below 2^53")
        amount = int(amount)
    elif amount > MAX_WHOLE:
        amount = float(amount)
    return Capacity(resource, amount)


def _queue_depth(item: QueueDepth) -> QueueDepth:
    topic = _text(item.topic, "topic", _TOPIC)
    depth = _number(item.depth, "depth of", topic, least=0, most=MAX_WHOLE)
    if not isinstance(depth, int):
        raise RejectedError("type", f"depth of {topic} is of type {type(depth).__name__}, not int")
    age = item.oldest_age
    return QueueDepth(topic, depth, None if age is None else _number(age, "oldest_age of", topic, least=0))


def _uptime(item: Uptime) -> Uptime:
    return Uptime(_number(item.seconds, "seconds", least=0, most=MAX_WHOLE))


def _tag(item: Tag) -> Tag:
    key = _text(item.key, "key", _TAG_KEY)
    value = _text(item.value, f"value of {key}")
    if not value:
        raise RejectedError("text", f"value of {key} is empty")
    if len(f"{key}:{value}".encode()) > MAX_TAG_BYTES:
        raise RejectedError(
            "text", f"{key}: key and value are longer than {MAX_TAG_BYTES - 1} bytes together"
        )
    return Tag(key, value)


def _measurement(item: Any) -> Measurement:
    name, unit, kind = item.name, item.unit, item.kind
    if type(name) is type(unit) is type(kind) is str:
        _check_words_once(name, unit, kind)
    else:
        _check_words(name, unit, kind)
    value = _number(item.value, "value of", name, least=0 if kind == "counter" else None)
    if type(value) is int and abs(value) > MAX_INT64:
        value = float(value)
    return Measurement(name, value, unit, kind, _attributes(name, item.attributes))


def _check_words(name: str, unit: str, kind: str) -> None:
    """Do nothing if a metric may be called so.

    Raises:
        RejectedError: It may not.
    """
    _text(name, "name")
    _text(unit, f"unit of {name[:80]}")
    problem = _name_problem(name, unit)
    if problem:
        raise RejectedError(*problem)
    if _text(kind, f"kind of {name}") not in _KINDS:
        raise RejectedError("type", f"kind of {name} is {kind!r}; allowed: counter, gauge, updowncounter")


_check_words_once: Final = functools.lru_cache(maxsize=1024)(_check_words)
"""The same, for words that are plain text: every collection says those of the one before."""


def _name_problem(name: str, unit: str) -> tuple[Reason, str] | None:
    """Return reason and detail of what is wrong with a metric's name or unit, if anything is."""
    if len(name) > MAX_NAME or not _NAME.fullmatch(name):
        return "name", f"name {name[:80]!r}: allowed is lower case, dotted, such as app.queue.wait"
    if name.startswith(RESERVED_PREFIXES):
        return "name", f"name {name}: names of openclaw are reserved for the exporter itself and the gateway"
    last = re.split(r"[._]", name)[-1]
    if last in _UNIT_WORDS or (last == "ratio" and unit != "1"):
        return "name", f"name {name} ends in {last!r}, which the Prometheus exporter adds by kind and unit"
    if unit not in UNITS and not _ANNOTATION.fullmatch(unit):
        listed = ", ".join(sorted(UNITS - {""}))
        return "unit", f"unit {unit[:40]!r} of {name}: allowed is {listed}, one {{annotation}}, or none"
    return None


def _attributes(name: str, attributes: object) -> Mapping[str, AttributeValue]:
    if type(attributes) is not dict and not isinstance(attributes, Mapping):
        raise RejectedError(
            "attributes", f"attributes of {name} are {type(attributes).__name__}, not a mapping"
        )
    if len(attributes) > MAX_ATTRIBUTES:
        raise RejectedError(
            "attributes", f"{name} has {len(attributes)} attributes; allowed: {MAX_ATTRIBUTES}"
        )
    copied: dict[str, AttributeValue] = {}
    for key, value in attributes.items():
        if type(key) is not str or not _is_attribute_key(key):
            raise RejectedError(
                "attributes", f"{name} has an attribute key that is not lower case and dotted"
            )
        copied[key] = _attribute_value(name, key, value)
    if len(copied) > 1 and len({key.replace(".", "_") for key in copied}) < len(copied):
        raise RejectedError("attributes", f"{name} has attributes that are one label in Prometheus")
    return copied


@functools.lru_cache(maxsize=1024)
def _is_attribute_key(key: str) -> bool:
    return len(key) <= MAX_NAME and _ATTRIBUTE.fullmatch(key) is not None


def _attribute_value(name: str, key: str, value: object) -> AttributeValue:
    if type(value) is bool:
        return value
    if type(value) is str:
        if len(value) > MAX_ATTRIBUTE_TEXT:
            text = f"attribute {key} of {name} is longer than {MAX_ATTRIBUTE_TEXT} characters"
            raise RejectedError("attributes", text)
        if not _is_printable(value):
            raise RejectedError("text", f"attribute {key} of {name} holds a control character")
        return value
    number = _number(value, f"attribute {key} of", name)
    if abs(number) > MAX_INT64 and isinstance(number, int):
        raise RejectedError("attributes", f"attribute {key} of {name} is beyond 64 bits")
    return number


def _is_printable(text: str) -> bool:
    # What Python calls printable leaves out more, such as a space without a break, but is found out faster.
    return text.isprintable() or _UNPRINTABLE.search(text) is None


def _text(value: object, what: str, pattern: re.Pattern[str] | None = None) -> str:
    if type(value) is not str:
        raise RejectedError("type", f"{what} is of type {type(value).__name__}, not str")
    if pattern is not None and not pattern.fullmatch(value):
        raise RejectedError("name", f"{what} is {value[:80]!r}; allowed: {pattern.pattern}")
    if not _is_printable(value):
        raise RejectedError("text", f"{what} holds a control character")
    return value


def _number(
    value: object, what: str, of: str = "", *, least: float | None = None, most: int | None = None
) -> int | float:
    """Return a finite number; `bool` and every other subclass of a number is none.

    `what` and `of` name it together, and are put together only where something is wrong.
    """
    if type(value) is not int and type(value) is not float:
        raise RejectedError("type", f"{_named(what, of)} is of type {type(value).__name__}, not a number")
    try:
        finite = math.isfinite(value)
    except OverflowError:  # a whole number beyond double range
        finite = False
    if not finite:
        raise RejectedError("range", f"{_named(what, of)} is not finite")
    if least is not None and value < least:
        raise RejectedError("range", f"{_named(what, of)} is {value!r}, below {least}")
    if most is not None and value > most:
        raise RejectedError("range", f"{_named(what, of)} is {value!r}, above {most}")
    return value


def _named(what: str, of: str) -> str:
    return f"{what} {of}" if of else what


_CHECKS: Final[Mapping[type, Callable[[Any], Observation]]] = {
    Capacity: _capacity,
    QueueDepth: _queue_depth,
    Uptime: _uptime,
    Tag: _tag,
    Measurement: _measurement,
}
