"""What a publisher says about itself."""

from __future__ import annotations

from dataclasses import dataclass

from openclaw_exporter.client.answers import Outcome


@dataclass(frozen=True, slots=True)
class Attempt:
    """The end of one attempt to publish the newest heartbeat.

    Attributes:
        outcome: What the answer meant.
        status: The answer's status; None where there was none.
        error_type: Empty after 2xx, else the status or what failed (`timeout`, `tls`, …).
        at: Unix seconds by this machine's clock.
    """

    outcome: Outcome
    status: int | None
    error_type: str
    at: float


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts since the publisher was made.

    Every heartbeat is accepted, waiting or dropped: `made` (with what the buffer held from before) is the sum
    of those, but for one that is on its way for the first time.

    Attributes:
        made: Heartbeats made.
        success: Attempts that were answered 2xx.
        failure: Attempts that were not.
        buffered: Heartbeats that wait in the buffer now.
        dropped: Heartbeats given up.
        replayed: Buffered heartbeats that were delivered late.
    """

    made: int = 0
    success: int = 0
    failure: int = 0
    buffered: int = 0
    dropped: int = 0
    replayed: int = 0
