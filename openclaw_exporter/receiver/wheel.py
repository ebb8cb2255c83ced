"""A lazy timing wheel over listening time: constant work for each heartbeat and each expiry.

A node sits in one bucket. A heartbeat does not move it: when the bucket comes due the node's true deadline is
looked at, and the node is placed again or changes its state. Only a deadline that moves forward in time costs
a second entry; the first one is then stale, and is known as such because the node remembers its bucket.
"""

from __future__ import annotations

import math
from typing import Final

GRANULARITY: Final = 0.25
"""Seconds of listening time that one bucket spans; nothing comes due early."""

HORIZON: Final = 900.0
"""No entry lies further ahead, so that stale ones do not pile up; a longer wait is looked at on the way."""


class Wheel:
    """Buckets of node ids by the time at which to look at them.

    Args:
        now: Listening time, seconds.
    """

    def __init__(self, now: float) -> None:
        self._cursor = math.floor(now / GRANULARITY)
        self._buckets: dict[int, list[str]] = {}

    def __len__(self) -> int:
        """The number of entries, stale ones included."""
        return sum(map(len, self._buckets.values()))

    def bucket(self, due: float) -> int:
        """Return the number of the bucket that holds what is due at that listening time."""
        index = math.ceil(due / GRANULARITY)
        return max(self._cursor, min(index, self._cursor + int(HORIZON / GRANULARITY)))

    def is_early(self, bucket: int, due: float) -> bool:
        """Whether whoever is in that bucket will be looked at before something is due, or just then."""
        return 0 <= bucket * GRANULARITY <= due

    def place(self, node_id: str, bucket: int) -> None:
        """Put a node into a bucket."""
        self._buckets.setdefault(bucket, []).append(node_id)

    def take(self, now: float, limit: int) -> list[tuple[int, str]]:
        """Remove and return what has come due as (bucket, node_id), at most `limit` entries."""
        taken: list[tuple[int, str]] = []
        while self._cursor * GRANULARITY <= now:
            entries = self._buckets.get(self._cursor)
            if entries:
                room = limit - len(taken)
                taken.extend((self._cursor, node_id) for node_id in entries[-room:])
                del entries[-room:]
                if entries or len(taken) >= limit:
                    break
            self._buckets.pop(self._cursor, None)
            self._cursor += 1
        return taken
