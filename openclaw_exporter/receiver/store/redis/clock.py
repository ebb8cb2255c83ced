"""Listening time that all receivers of one store share.

It is kept in Redis and passes there: each receiver that hears says so a few times a second, and the time
between two such calls, whoever makes them, is listening time. Between its calls a receiver reads on by its
own clock. Where nobody called for five seconds nobody heard, and an interruption is counted; so it is where a
receiver calls that could not hear meanwhile, and nobody else has called for a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from openclaw_exporter.receiver.listening import STALL_SECONDS, Moment

if TYPE_CHECKING:
    from openclaw_exporter.receiver.clock import Clock


class SharedClock:
    """One receiver's reading of it; see `ListeningClock`.

    Args:
        clock: This machine's clocks.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._told = 0.0
        self._told_at = clock.elapsed() - STALL_SECONDS
        self._latest = 0.0
        self._interruption = 0
        self._deaf: set[str] = set()
        self._was_deaf = True

    @property
    def hears(self) -> bool:
        """Whether this receiver hears."""
        return not self._deaf

    @property
    def latest(self) -> float:
        """Listening time at the last reading. Safe to call from any thread."""
        return self._latest

    @property
    def interruption(self) -> int:
        """The number of the last interruption that is known."""
        return self._interruption

    @property
    def told(self) -> tuple[int, int]:
        """What is known of the shared clock: listening time in milliseconds, and the interruption."""
        return round(self._told * 1000), self._interruption

    @property
    def age(self) -> float:
        """Seconds since the shared clock was read."""
        return self._clock.elapsed() - self._told_at

    @property
    def mode(self) -> Literal["hears", "returns", "deaf"]:
        """What this receiver has to say to the shared clock."""
        if self._deaf:
            return "deaf"
        return "returns" if self._was_deaf else "hears"

    def read(self) -> Moment:
        """Return the present moment; it stands still where the shared clock was not read for too long."""
        passed = self._clock.elapsed() - self._told_at
        if not self._deaf and 0 <= passed < STALL_SECONDS:
            self._latest = max(self._latest, self._told + passed)
        return Moment(self._clock.wall_ms(), self._latest, self._interruption)

    def deafen(self, reason: str) -> None:
        """Say that this receiver does not hear, until `hear` is called with the same reason."""
        self.read()
        self._deaf.add(reason)
        self._was_deaf = True

    def hear(self, reason: str) -> None:
        """Let this receiver hear again, unless it is deaf for another reason as well."""
        self._deaf.discard(reason)

    def follow(self, mode: str, ms: int, interruption: int) -> None:
        """Take in what the shared clock says.

        Args:
            mode: What it was told.
            ms: Listening time, milliseconds.
            interruption: The number of the last interruption.
        """
        if mode != "deaf" and not self._deaf:
            self._was_deaf = False
        self._told = max(self._told, ms / 1000)
        self._told_at = self._clock.elapsed()
        self._latest = max(self._latest, self._told)
        self.learn(interruption)

    def learn(self, interruption: int) -> None:
        """Take in an interruption that somebody else knows of already."""
        self._interruption = max(self._interruption, interruption)
