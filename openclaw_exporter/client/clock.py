"""The two clocks that publishing needs, behind one protocol, so that a test can live a week in a second."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Where the publisher reads the time."""

    def wall(self) -> float:
        """Return Unix seconds: for `last_heartbeat`, the epoch and tokens. It may step."""
        ...

    def monotonic(self) -> float:
        """Return seconds from an arbitrary start that never go back: for everything that waits."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def wall(self) -> float:
        """Return Unix seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Return the seconds of CLOCK_MONOTONIC."""
        return time.monotonic()
