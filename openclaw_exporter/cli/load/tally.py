"""Counting what happens in a load test."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

_STEP: Final = math.log(1.02)
"""Latencies are kept to 2 percent: a day of them has to fit into memory."""


@dataclass(slots=True)
class Latencies:
    """A histogram of seconds, kept to 2 percent."""

    buckets: Counter[int] = field(default_factory=Counter)

    def add(self, seconds: float) -> None:
        """Count one."""
        self.buckets[round(math.log(max(seconds, 1e-6)) / _STEP)] += 1

    def percentile(self, percent: float) -> float | None:
        """Return a percentile, seconds; None where there is none."""
        total = self.buckets.total()
        wanted = math.ceil(total * percent / 100)
        for bucket in sorted(self.buckets):
            wanted -= self.buckets[bucket]
            if wanted <= 0 and total:
                return math.exp(bucket * _STEP)
        return None


@dataclass(slots=True)
class Tally:
    """What has happened so far; tallies of several workers add up.

    Attributes:
        nodes: Nodes that there were, replaced ones counted.
        sent: Requests that were sent.
        accepted: Those that were answered 2xx, by result.
        refused: Those that were answered otherwise, by status.
        unanswered: Those that were not answered, by what failed.
        cut_off: Attempts that the load test itself cut off.
        dropped: Heartbeats that nodes gave up.
        waiting: Heartbeats that nodes could not deliver until the end.
        false_expiries: Nodes that expired though they had been answered within two intervals.
        expiries: Nodes that expired at all.
        checked: Acknowledged heartbeats that were looked for in the registry.
        lost: Those of them that were not there.
        twice: Heartbeats that were there twice.
        late: The most that the load test itself was late, seconds.
        connections: Connections that were opened.
        latencies: From request to answer, a handshake included where there was one.
    """

    nodes: int = 0
    sent: int = 0
    accepted: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    unanswered: Counter[str] = field(default_factory=Counter)
    cut_off: int = 0
    dropped: int = 0
    waiting: int = 0
    false_expiries: int = 0
    expiries: int = 0
    checked: int = 0
    lost: int = 0
    twice: int = 0
    late: float = 0.0
    connections: int = 0
    latencies: Latencies = field(default_factory=Latencies)

    def add(self, other: Tally) -> None:
        """Add another worker's."""
        for name in (
            "nodes",
            "sent",
            "cut_off",
            "dropped",
            "waiting",
            "false_expiries",
            "expiries",
            "checked",
            "lost",
            "twice",
            "connections",
        ):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.accepted += other.accepted
        self.refused += other.refused
        self.unanswered += other.unanswered
        self.latencies.buckets += other.latencies.buckets
        self.late = max(self.late, other.late)
