"""The bodies that answer a heartbeat, for the receiver that writes them and the publisher that reads them."""

from __future__ import annotations

from typing import Literal

import msgspec

Result = Literal["recorded", "duplicate", "history"]
"""`recorded`: stored, and life where it was live. `duplicate`: known already, nothing changed.
`history`: stored, but older than what is known."""

_MAX_INTEGER = 2**53 - 1


class Recorded(msgspec.Struct, frozen=True, gc=False):
    """The body of a 200 answer: the heartbeat is stored durably.

    Attributes:
        result: What became of the heartbeat.
        expires_at: RFC 3339: when the node expires if nothing more is heard.
        interval_seconds: The interval that the publisher adopts.
    """

    result: Result
    expires_at: str
    interval_seconds: int


_ENCODER = msgspec.json.Encoder()


def encode_recorded(recorded: Recorded) -> bytes:
    """Return the JSON body of an answer."""
    return _ENCODER.encode(recorded)


def read_interval(body: bytes) -> int | None:
    """Return the `interval_seconds` of a 2xx answer's body, or None.

    Another receiver may answer with any body or none, so nothing about it is an error.
    """
    return _read_integer(body, "interval_seconds", least=1)


def read_epoch(body: bytes) -> int | None:
    """Return the `epoch` (Unix milliseconds) of a 409 answer's body, or None where it has none."""
    return _read_integer(body, "epoch", least=0)


def _read_integer(body: bytes, member: str, *, least: int) -> int | None:
    try:
        members = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return None
    value = members.get(member) if isinstance(members, dict) else None
    return value if type(value) is int and least <= value <= _MAX_INTEGER else None
