"""Where the arrivals of those nodes are that have many, so that a late one need not walk all of them again.

A node's arrivals are a chain on the disk, the newest first. To look for an old key is to walk it: half a
millisecond for a node that beats twice a minute, 30 or more for one that beats each second and then repeats
an old key as often as it may. What such a walk has seen is kept here in a compact form, and the next walk
ends where it began.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from openclaw_exporter.receiver.store.records import Record

SHORT: Final = 256
"""Arrivals that are walked each time, so that ordinary nodes take no room here."""

MOST: Final = 1_000_000
"""Arrivals that are kept, 24 bytes each."""


class Trail:
    """Arrivals of one node, the newest first."""

    __slots__ = ("_heard", "_places", "_sent")

    def __init__(self) -> None:
        self._places = array("q")
        self._sent = array("q")
        self._heard = array("d")

    def __len__(self) -> int:
        return len(self._places)

    @property
    def newest(self) -> int:
        """The place of the newest; there must be one."""
        return self._places[0]

    def add(self, place: int, record: Record) -> None:
        """Add an arrival that is older than all."""
        self._places.append(place)
        self._sent.append(record.sent_ms)
        self._heard.append(record.heard_at)

    def extend(self, older: Trail) -> None:
        """Add arrivals that are older than all."""
        self._places.extend(older._places)
        self._sent.extend(older._sent)
        self._heard.extend(older._heard)

    def drop(self, before: float) -> None:
        """Forget arrivals from before a listening time."""
        while self._heard and self._heard[-1] < before:
            for column in (self._places, self._sent, self._heard):
                column.pop()

    def find(self, sent_ms: int) -> int | None:
        """Return the place of the newest arrival with a heartbeat's time; None: there is none."""
        try:
            return self._places[self._sent.index(sent_ms)]
        except ValueError:
            return None


class Trails:
    """The trails of nodes that were looked for last, as many as there is room for."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, Trail] = OrderedDict()
        self._arrivals = 0

    def get(self, node: bytes) -> Trail | None:
        """Return a node's trail as it was kept; it may have grown since, and its end may be gone."""
        return self._kept.get(node)

    def keep(self, node: bytes, trail: Trail) -> None:
        """Keep a node's trail in place of an older one; a short one is not worth it."""
        before = self._kept.pop(node, None)
        if before is not None:
            self._arrivals -= len(before)
        if not SHORT < len(trail) <= MOST:
            return
        self._kept[node] = trail
        self._arrivals += len(trail)
        while self._arrivals > MOST:
            self._arrivals -= len(self._kept.popitem(last=False)[1])

    def clear(self) -> None:
        """Forget all of them."""
        self._kept.clear()
        self._arrivals = 0
