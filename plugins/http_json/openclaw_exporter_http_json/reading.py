"""Reading the fields of one page, strictly."""

from __future__ import annotations

import datetime as dt
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from openclaw_exporter.plugin import Capacity, Measurement, Observation, QueueDepth, Tag, Uptime

if TYPE_CHECKING:
    from openclaw_exporter_http_json.options import Source


class FieldError(Exception):
    """One field of the page cannot be used; the text names its pointer and never its value."""


class Reading:
    """Reads fields of one page; what cannot be used is noted and comes back as None, like what is missing."""

    def __init__(self, document: object) -> None:
        self._document = document
        self.found: dict[tuple[type, object], Observation] = {}
        self.problems: list[Exception] = []

    def take(self, key: object, observation: Observation) -> None:
        """Keep an observation, unless there is one of the same kind and key."""
        self.found.setdefault((type(observation), key), observation)

    def value(self, pointer: str) -> Any:
        """Return the value at a JSON pointer; None where there is none (RFC 6901, section 4)."""
        value: Any = self._document
        for step in pointer.split("/")[1:]:
            token = step.replace("~1", "/").replace("~0", "~")
            if isinstance(value, dict):
                value = value.get(token)
            elif isinstance(value, list) and _is_index(token) and int(token) < len(value):
                value = value[int(token)]
            else:
                return None
        return value

    def number(self, pointer: str) -> int | float | None:
        """Return a finite number."""
        value = self.value(pointer)
        if value is None or (type(value) in (int, float) and abs(value) <= sys.float_info.max):
            return value  # type: ignore[no-any-return] # a number or None
        self._refuse(pointer, value, "a number")
        return None

    def whole(self, pointer: str) -> int | None:
        """Return a whole number. JSON has one type of number, so 5.0 is one."""
        value = self.number(pointer)
        if value is None or value == int(value):
            return value if value is None else int(value)
        self._refuse(pointer, value, "a whole number")
        return None

    def text(self, pointer: str) -> str | None:
        """Return a text."""
        value = self.value(pointer)
        if value is None or isinstance(value, str):
            return value
        self._refuse(pointer, value, "a text")
        return None

    def table(self, pointer: str) -> dict[str, Any]:
        """Return a table; an empty one where there is none."""
        value = self.value(pointer)
        if value is None or isinstance(value, dict):
            return value or {}
        self._refuse(pointer, value, "a table")
        return {}

    def note(self, text: str) -> None:
        """Note a problem of one field."""
        self.problems.append(FieldError(text))

    def _refuse(self, pointer: str, value: object, wanted: str) -> None:
        self.note(f"{pointer or 'the page'} is {_KINDS.get(type(value), 'a number')}, not {wanted}")


_KINDS: Final = {str: "a text", bool: "true or false", list: "a list", dict: "a table"}


def read_pointers(reading: Reading, source: Source) -> None:
    """Read everything that the configuration names by itself."""
    for resource, pointer in source.capacity.items():
        if (amount := reading.number(pointer)) is not None:
            reading.take(resource, Capacity(resource, amount))
    for topic, pointer in source.queue_depth.items():
        if (depth := reading.whole(pointer)) is not None:
            age = reading.number(source.oldest_age[topic]) if topic in source.oldest_age else None
            reading.take(topic, QueueDepth(topic, depth, age))
    if source.uptime is not None and (seconds := reading.number(source.uptime)) is not None:
        reading.take(None, Uptime(seconds))
    for key, pointer in source.tags.items():
        if text := reading.text(pointer):
            reading.take(key, Tag(key, text))
    for number, measured in enumerate(source.measurements):
        value = reading.number(measured.pointer)
        if value is not None:
            made = Measurement(measured.name, value, measured.unit, measured.kind, measured.attributes)
            reading.take(number, made)


def check_age(reading: Reading, source: Source) -> None:
    """Refuse a page that is too old, or that does not tell its age.

    Raises:
        ValueError: Nobody may take its fields for what is now.
    """
    if source.max_age is None:
        return
    names = ("/timestamp", "/updated_at", "/last_heartbeat")
    pointers = (source.timestamp,) if source.timestamp is not None else names
    found = next((value for pointer in pointers if (value := reading.value(pointer)) is not None), None)
    made = _unix_seconds(found)
    if made is None:
        raise ValueError(f"{source.place} does not tell when it was made, at {' or '.join(pointers)}")
    age = time.time() - made
    if age < -source.max_age:
        raise ValueError(f"{source.place} has a time in the future, so it would never be stale")
    if age > source.max_age:
        raise ValueError(f"{source.place} is {age:.0f} s old, beyond max_age = {source.max_age:g}")


def _unix_seconds(value: object) -> float | None:
    with suppress(ValueError, OverflowError):
        if type(value) in (int, float):
            return float(value)  # type: ignore[arg-type] # one of the two
        if isinstance(value, str):
            moment = dt.datetime.fromisoformat(value)
            return moment.timestamp() if moment.tzinfo is not None else None
    return None


def _is_index(token: str) -> bool:
    """Whether a token is an array index: digits without a leading zero (RFC 6901, section 4)."""
    return token.isascii() and token.isdigit() and (token == "0" or token[0] != "0") and len(token) < 10  # noqa: PLR2004, S105 - longer than any list here; a pointer's token
