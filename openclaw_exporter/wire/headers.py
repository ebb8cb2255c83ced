"""The request headers that a publisher may add to a heartbeat."""

from __future__ import annotations

import re
from typing import Final, NamedTuple, Self

from openclaw_exporter.errors import FieldProblem, FieldsError

INTERVAL: Final = "OpenClaw-Interval"
SEQUENCE: Final = "OpenClaw-Sequence"
REPLAY: Final = "OpenClaw-Replay"
STATE: Final = "OpenClaw-State"
DRAINING: Final = "draining"
REPLAYED: Final = "1"

MAX_INTERVAL_SECONDS: Final = 86_400
"""The longest interval that the header can say; a receiver's own bounds are narrower."""

_MAX_INTEGER = 2**53 - 1
_DECIMAL = r"(0|[1-9][0-9]{0,15})"
_SEQUENCE = re.compile(rf"{_DECIMAL}\.{_DECIMAL}")
_INTERVAL = re.compile(r"[1-9][0-9]{0,4}")


class Sequence(NamedTuple):
    """The order of one node's heartbeats, which holds even where its wall clock steps. Tuples compare.

    Attributes:
        epoch: Unix milliseconds at which the agent process started, never lower than the last one it stored.
        number: Counts the heartbeats of this epoch, from 0.
    """

    epoch: int
    number: int

    def __str__(self) -> str:
        return f"{self.epoch}.{self.number}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the value of `OpenClaw-Sequence`.

        Raises:
            FieldsError: It is not two integers of 0 to 2**53 - 1, without leading zeros, around a full stop.
        """
        match = _SEQUENCE.fullmatch(text)
        if match is not None:
            epoch, number = int(match[1]), int(match[2])
            if epoch <= _MAX_INTEGER and number <= _MAX_INTEGER:
                return cls(epoch, number)
        raise _wrong(SEQUENCE, "must be <epoch>.<n>, two integers of 0 to 2^53-1 without leading zeros")


def parse_interval(text: str) -> int:
    """Read the value of `OpenClaw-Interval`, in seconds.

    Raises:
        FieldsError: It is not an integer of 1 to 86400.
    """
    if _INTERVAL.fullmatch(text) and (seconds := int(text)) <= MAX_INTERVAL_SECONDS:
        return seconds
    raise _wrong(INTERVAL, f"must be a whole number of seconds, 1 to {MAX_INTERVAL_SECONDS}")


def parse_replay(text: str) -> bool:
    """Read the value of `OpenClaw-Replay`; always true, for a heartbeat that is no replay has no such header.

    Raises:
        FieldsError: It is not `1`: to guess would let history pass for life, or life for history.
    """
    if text == REPLAYED:
        return True
    raise _wrong(REPLAY, "must be 1, or be left out")


def parse_state(text: str) -> bool:
    """Read the value of `OpenClaw-State`: true for a node that leaves on purpose.

    Raises:
        FieldsError: It is not `draining`.
    """
    if text == DRAINING:
        return True
    raise _wrong(STATE, "must be draining, or be left out")


def _wrong(header: str, message: str) -> FieldsError:
    return FieldsError((FieldProblem(header, message),))
