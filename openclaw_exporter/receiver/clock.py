"""The two clocks of a machine, behind one small protocol so that tests can run in virtual time."""

from __future__ import annotations

import time
from functools import partial
from typing import Final, Protocol

# Suspended time counts too, so that a machine that slept knows that it did not listen.
_ELAPSED: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock(Protocol):
    """Elapsed time and wall time."""

    def elapsed(self) -> float:
        """Seconds since some fixed moment; never goes back, whatever the wall clock does."""

    def wall_ms(self) -> int:
        """Unix milliseconds."""


class SystemClock:
    """This machine's clocks."""

    elapsed = staticmethod(partial(time.clock_gettime, _ELAPSED))
    """Seconds since the machine started, suspension included."""

    def wall_ms(self) -> int:
        """Unix milliseconds."""
        return time.time_ns() // 1_000_000
