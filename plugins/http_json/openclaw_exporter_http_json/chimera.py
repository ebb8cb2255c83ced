"""The field names that Chimera code bases use on their status pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from openclaw_exporter.plugin import Capacity, QueueDepth, Tag, Uptime

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openclaw_exporter_http_json.reading import Reading

_SLOTS: Final = ("/available_slots", "/workers_free", "/available_capacity")


def read_chimera(reading: Reading, topic: str) -> None:
    """Read the usual names, and those of the heartbeat itself.

    Args:
        reading: The page; what is already found on it stays as it is.
        topic: The topic of a `queue_depth` that is one number.
    """
    _read_workers(reading)
    _read_slots(reading)
    for resource in reading.table("/capacity"):
        if (amount := reading.number(f"/capacity/{_escaped(resource)}")) is not None:
            reading.take(resource, Capacity(resource, amount))
    _read_depths(reading, topic)
    if (seconds := reading.number("/uptime_seconds")) is not None:
        reading.take(None, Uptime(seconds))
    if name := reading.text("/agent_id"):
        reading.take("agent_id", Tag("agent_id", name))
    for key, text in _tags(reading):
        reading.take(key, Tag(key, text))


def _read_workers(reading: Reading) -> None:
    for place in ("/workers", "/capacity/workers"):
        if (workers := reading.whole(place)) is not None:
            reading.take("workers", Capacity("workers", workers))


def _read_depths(reading: Reading, topic: str) -> None:
    if type(reading.value("/queue_depth")) in (int, float):
        if (depth := reading.whole("/queue_depth")) is not None:
            reading.take(topic, QueueDepth(topic, depth))
        return
    for name in reading.table("/queue_depth"):
        if (depth := reading.whole(f"/queue_depth/{_escaped(name)}")) is not None:
            reading.take(name, QueueDepth(name, depth))


def _read_slots(reading: Reading) -> None:
    """Read the free slots: as given, or from the load; none where the status says so."""
    status = reading.text("/status")
    if status not in (None, "available", "busy", "offline"):
        reading.note("/status is none of available, busy, offline")
    slots = next((number for place in _SLOTS if (number := reading.whole(place)) is not None), None)
    if slots is None:
        slots = _from_load(reading)
    if status == "offline" or (status == "busy" and slots is None):
        slots = 0
    if slots is not None:
        reading.take("available_slots", Capacity("available_slots", slots))


def _from_load(reading: Reading) -> int | None:
    """Return workers x (1 - load), as `load` is defined."""
    load = reading.number("/load")
    workers = reading.found.get((Capacity, "workers"))
    if load is None or not isinstance(workers, Capacity):
        return None
    if not 0 <= load <= 1:
        reading.note("/load is not between 0 and 1")
        return None
    return round(workers.amount * (1 - load))


def _tags(reading: Reading) -> Iterator[tuple[str, str]]:
    """Yield the entries of `tags`: a list of `key:value`, or a table."""
    listed = reading.value("/tags")
    if not isinstance(listed, list):
        for key in reading.table("/tags"):
            if text := reading.text(f"/tags/{_escaped(key)}"):
                yield key, text
        return
    for number in range(len(listed)):
        key, colon, text = (reading.text(f"/tags/{number}") or "").partition(":")
        if key and colon and text:
            yield key, text


def _escaped(token: str) -> str:
    return token.replace("~", "~0").replace("/", "~1")
