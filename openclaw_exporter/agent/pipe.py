"""What agent and child say to each other: frames of four bytes of length and MessagePack, strictly typed.

Nothing that a child sends can run code in the agent: there is no pickle, and the agent checks every
observation again. The child's first frame answers `Start`; after that each request, one byte, is answered by
one frame.
"""

from __future__ import annotations

import os
import select
import struct
import time
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import msgspec

from openclaw_exporter.errors import OpenClawError
from openclaw_exporter.plugin.observations import (
    AttributeValue,
    Capacity,
    Kind,
    Measurement,
    Observation,
    QueueDepth,
    Tag,
    Uptime,
)

MAX_FRAME: Final = 8 * 1024 * 1024
COLLECT: Final = b"c"

_LENGTH: Final = struct.Struct("!I")
_CHUNK: Final = 65_536


class ChildError(OpenClawError):
    """A collector's process failed.

    Attributes:
        error_type: The metrics' `error.type`.
    """

    def __init__(self, error_type: str, text: str) -> None:
        self.error_type = error_type
        super().__init__(text)


class Start(msgspec.Struct, frozen=True, array_like=True):
    """The agent's first frame: what to run, and within what limits.

    Without a collector's name the child answers `Loaded`, and that is all.
    """

    plugin: str
    collector: str
    table: dict[str, Any]
    path: list[str]
    parent: int
    death_signal: int
    series_budget: int
    memory_limit: int
    cpu_limit: int
    load_deadline: float
    default_interval: float = 10.0
    default_deadline: float = 5.0
    source: str = ""


class _Capacity(msgspec.Struct, frozen=True, array_like=True, tag="capacity"):
    resource: str
    amount: int | float


class _QueueDepth(msgspec.Struct, frozen=True, array_like=True, tag="queue"):
    topic: str
    depth: int
    oldest_age: int | float | None


class _Uptime(msgspec.Struct, frozen=True, array_like=True, tag="uptime"):
    seconds: int | float


class _Tag(msgspec.Struct, frozen=True, array_like=True, tag="tag"):
    key: str
    value: str


class _Measurement(msgspec.Struct, frozen=True, array_like=True, tag="measurement"):
    name: str
    value: int | float
    unit: str
    kind: Kind
    attributes: Mapping[str, AttributeValue]


_Item: TypeAlias = _Capacity | _QueueDepth | _Uptime | _Tag | _Measurement


class Collected(msgspec.Struct, frozen=True, array_like=True, tag="collected"):
    """A run that ended: what passed the child's guard, and reason and detail of what did not."""

    items: list[_Item]
    rejected: list[tuple[str, str]]

    @classmethod
    def of(cls, observations: tuple[Observation, ...], rejected: list[tuple[str, str]]) -> Collected:
        """Make the frame of a run."""
        return cls([_packed(observation) for observation in observations], rejected)

    def observations(self) -> list[Observation]:
        """Return the observations as the plugin API has them."""
        return [_unpacked(item) for item in self.items]


class Failed(msgspec.Struct, frozen=True, array_like=True, tag="failed"):
    """A run, or the loading of the plugin, that raised."""

    error_type: str
    text: str


class Ready(msgspec.Struct, frozen=True, array_like=True, tag="ready"):
    """The plugin is loaded."""


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One collector of a plugin: its name, and what holds for it."""

    name: str
    interval: float
    deadline: float
    series_budget: int
    abandon_when_hung: bool


class Loaded(msgspec.Struct, frozen=True, array_like=True, tag="loaded"):
    """What a plugin's collectors are."""

    collectors: list[Entry]


Answer: TypeAlias = Collected | Failed | Loaded | Ready

_ENCODER: Final = msgspec.msgpack.Encoder()
_ANSWERS: Final = msgspec.msgpack.Decoder(Answer)
_STARTS: Final = msgspec.msgpack.Decoder(Start)


def pack(message: Start | Answer) -> bytes:
    """Return a message as one frame."""
    body = _ENCODER.encode(message)
    return _LENGTH.pack(len(body)) + body


def read_start(descriptor: int) -> Start:
    """Read the agent's first frame, blocking.

    Raises:
        EOFError: The agent is gone.
    """
    (length,) = _LENGTH.unpack(_read_exactly(descriptor, _LENGTH.size))
    return _STARTS.decode(_read_exactly(descriptor, length))


def read_answer(descriptor: int, ended: int | None, until: float) -> Answer:
    """Read one frame of a child.

    Args:
        descriptor: The pipe's non-blocking reading end.
        ended: The child's pidfd, readable once it has ended: a grandchild may hold the pipe open.
        until: Monotonic seconds at which to give up.

    Raises:
        TimeoutError: No whole frame came in time.
        EOFError: The child ended.
        ChildError: What it sent is no answer.
    """
    buffer = bytearray()
    while len(buffer) < _LENGTH.size or len(buffer) < _LENGTH.size + _length_of(buffer):
        buffer += _read_some(descriptor, ended, until)
    size = _LENGTH.size + _length_of(buffer)
    if len(buffer) != size:
        raise ChildError("protocol", "its process wrote more than it was asked for")
    try:
        answer: Answer = _ANSWERS.decode(memoryview(buffer)[_LENGTH.size : size])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ChildError("protocol", "its process wrote what is no answer") from error
    return answer


def _length_of(buffer: bytearray) -> int:
    length: int = _LENGTH.unpack_from(buffer)[0]
    if length > MAX_FRAME:
        raise ChildError("protocol", f"its process announced an answer of {length} bytes")
    return length


def _read_some(descriptor: int, ended: int | None, until: float) -> bytes:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    if ended is not None:
        poll.register(ended, select.POLLIN)
    left = until - time.monotonic()
    ready = dict(poll.poll(max(0.0, left) * 1000)) if left > 0 else {}
    if not ready:
        raise TimeoutError
    # What a child wrote before it ended still counts.
    chunk = os.read(descriptor, _CHUNK) if descriptor in ready else b""
    if not chunk:
        raise EOFError
    return chunk


def _read_exactly(descriptor: int, size: int) -> bytes:
    buffer = bytearray()
    while len(buffer) < size:
        chunk = os.read(descriptor, size - len(buffer))
        if not chunk:
            raise EOFError
        buffer += chunk
    return bytes(buffer)


def _packed(observation: Observation) -> _Item:
    match observation:
        case Capacity():
            return _Capacity(observation.resource, observation.amount)
        case QueueDepth():
            return _QueueDepth(observation.topic, observation.depth, observation.oldest_age)
        case Uptime():
            return _Uptime(observation.seconds)
        case Tag():
            return _Tag(observation.key, observation.value)
        case Measurement():
            return _Measurement(
                observation.name,
                observation.value,
                observation.unit,
                observation.kind,
                observation.attributes,
            )


def _unpacked(item: _Item) -> Observation:
    match item:
        case _Capacity():
            return Capacity(item.resource, item.amount)
        case _QueueDepth():
            return QueueDepth(item.topic, item.depth, item.oldest_age)
        case _Uptime():
            return Uptime(item.seconds)
        case _Tag():
            return Tag(item.key, item.value)
        case _Measurement():
            return Measurement(item.name, item.value, item.unit, item.kind, item.attributes)
