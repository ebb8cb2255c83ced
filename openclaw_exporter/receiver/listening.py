"""Listening time: the seconds in which the registry could hear its nodes.

Expiry counts this time and no other. It stands still while the receiver is down, while its loop stalls for
more than five seconds, while its store cannot be reached and while it sheds load. Each such gap has a number,
so that a node can be given a longer deadline where one fell between two of its heartbeats. The registry
stores the time with every commit and goes on from there after a restart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import msgspec

if TYPE_CHECKING:
    from openclaw_exporter.receiver.clock import Clock

STALL_SECONDS: Final = 5.0


class Moment(msgspec.Struct, frozen=True, gc=False):
    """A moment on the receiver's clocks.

    Attributes:
        at_ms: Wall clock, Unix milliseconds.
        seconds: Listening time.
        interruption: How many times listening has been interrupted so far.
    """

    at_ms: int
    seconds: float
    interruption: int


class Listening(Protocol):
    """A clock of listening time; see `ListeningClock`."""

    @property
    def hears(self) -> bool:
        """Whether listening time runs."""

    @property
    def latest(self) -> float:
        """Listening time at the last reading. Safe to call from any thread."""

    def read(self) -> Moment:
        """Return the present moment."""

    def deafen(self, reason: str) -> None:
        """Stop the clock until `hear` is called with the same reason."""

    def hear(self, reason: str) -> None:
        """Let the clock run again, unless it stands still for another reason as well."""


class ListeningClock:
    """Adds up the time in which the registry could hear.

    It must be read at least every `STALL_SECONDS`, or the time between two readings counts as a stall.

    Args:
        clock: This machine's clocks.
        seconds: The listening time to go on from.
        interruption: The number of the last interruption.
    """

    def __init__(self, clock: Clock, *, seconds: float = 0.0, interruption: int = 0) -> None:
        self._clock = clock
        self._seconds = seconds
        self._interruption = interruption
        self._last = clock.elapsed()
        self._deaf: set[str] = set()

    @property
    def hears(self) -> bool:
        """Whether listening time runs."""
        return not self._deaf

    @property
    def latest(self) -> float:
        """Listening time at the last reading, without a new one. Safe to call from any thread."""
        return self._seconds

    def read(self) -> Moment:
        """Return the present moment."""
        now = self._clock.elapsed()
        passed = now - self._last
        self._last = now
        if not self._deaf:
            if passed > STALL_SECONDS:
                self._interruption += 1
            else:
                self._seconds += passed
        return Moment(self._clock.wall_ms(), self._seconds, self._interruption)

    def deafen(self, reason: str) -> None:
        """Stop the clock until `hear` is called with the same reason."""
        self.read()
        self._deaf.add(reason)

    def hear(self, reason: str) -> None:
        """Let the clock run again, unless it stands still for another reason as well.

        The interruption is counted at its end, so that it also lengthens the deadline of a node that was
        heard while it lasted.
        """
        if reason not in self._deaf:
            return
        self.read()
        self._deaf.discard(reason)
        if not self._deaf:
            self._interruption += 1
