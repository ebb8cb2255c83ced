"""Turning heartbeats away before the receiver drowns in them, and spreading when those come back.

Two things say that there is too much to do: more heartbeats wait than may (the store says so), or the event
loop runs late twice in a row. A share of the heartbeats is then refused, larger with each late pulse and
smaller with each that is in time.

Whoever is turned away is told in `Retry-After` when to come back, one after the other at a rate that the
receiver can take, as if they queued outside. Until the last of them was due, time is no listening time:
nobody expires because the receiver told them to wait.
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Final

from openclaw_exporter.receiver.refusals import SheddingError

if TYPE_CHECKING:
    from openclaw_exporter.receiver.clock import Clock

FIRST_SECONDS: Final = 5
"""Nobody is asked to come back sooner."""

LAST_SECONDS: Final = 300
"""The longest wait that a publisher obeys."""

_MORE: Final = 0.25
_LESS: Final = 0.05
_MOST: Final = 0.95
_NEGLIGIBLE: Final = 1e-9


class Shedding:
    """What is turned away, and until when.

    Args:
        clock: This machine's clocks.
        max_lag: How late the event loop may run, seconds.
        readmissions: How many of those turned away may come back a second.
    """

    def __init__(self, clock: Clock, *, max_lag: float, readmissions: float) -> None:
        self._clock = clock
        self._max_lag = max_lag
        self._gap = 1 / readmissions
        self._was_late = False
        self._share = 0.0
        self._last_due = -math.inf
        self._dice = random.Random()  # noqa: S311 - spreads load, keeps no secret

    @property
    def share(self) -> float:
        """The share of heartbeats that is refused now, 0 to 0.95."""
        return self._share

    @property
    def active(self) -> bool:
        """Whether some are refused now, or were and have not all had their time to come back."""
        return self._share > 0 or self._clock.elapsed() < self._last_due

    @property
    def due(self) -> float:
        """Seconds until the last of those that were turned away is due, 0 where all are."""
        return max(0.0, self._last_due - self._clock.elapsed())

    def note_lag(self, seconds: float) -> None:
        """Note how late the loop's last pulse came."""
        late = seconds > self._max_lag
        if late and self._was_late:
            self._share = min(_MOST, self._share + _MORE)
        elif not late:
            self._share = max(0.0, self._share - _LESS)
            if self._share < _NEGLIGIBLE:
                self._share = 0.0
        self._was_late = late

    def check(self) -> None:
        """Let a heartbeat pass, or not.

        Raises:
            SheddingError: It is turned away.
        """
        if self._share and self._dice.random() < self._share:
            raise SheddingError("the receiver is too busy", retry_after=self.turn_away())

    def turn_away(self) -> int:
        """Return after how many seconds the next one that is turned away may come back, 5 to 300."""
        now = self._clock.elapsed()
        due = max(self._last_due, now + FIRST_SECONDS) + self._gap
        if due > now + LAST_SECONDS:
            # More than can be spread: those on top come back anywhere in the second half.
            return self._dice.randint(LAST_SECONDS // 2, LAST_SECONDS)
        self._last_due = due
        return math.ceil(due - now)
