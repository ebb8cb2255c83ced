"""A heartbeat on its way: the exact bytes and headers that every attempt to deliver it repeats."""

from __future__ import annotations

from typing import NamedTuple


class Outgoing(NamedTuple):
    """A heartbeat as it was first sent. Retries and replays repeat it to the byte, so that it is stored once.

    Attributes:
        body: The canonical encoding.
        sequence: The value of `OpenClaw-Sequence`.
        interval: The value of `OpenClaw-Interval`, seconds.
        sent_ms: Unix milliseconds of its `last_heartbeat`.
    """

    body: bytes
    sequence: str
    interval: int
    sent_ms: int
