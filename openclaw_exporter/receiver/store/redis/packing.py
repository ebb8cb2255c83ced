"""What stands in Redis, byte by byte: states with their revisions, arrivals, events, and the keys' names.

A state is its revision (8 bytes, the greater number first), a byte that says whether it is no news but that
the node was heard, and the `NodeState` in array form; its `trail` says how many of the node's arrivals stood
beside its revision then.
"""

from __future__ import annotations

import secrets
import struct
from sys import intern
from typing import TYPE_CHECKING, Final
from zlib import crc32

import msgspec

from openclaw_exporter.receiver.listening import Moment
from openclaw_exporter.receiver.liveness import NodeState
from openclaw_exporter.receiver.registry import KeyRow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

FORMAT: Final = 2
"""What receivers of other versions write differently has another number."""

NO_ARRIVAL: Final = b"-"
CLOCK: Final = "clock"
EVENTS: Final = "events"

_RANDOM_BITS: Final = 24
"""Of the 64 of a revision. Two receivers that store one node in the same millisecond draw the same ones in
one of 17 million cases, and both would take it for their own. The other 40 count 34 years of milliseconds."""
_RESULTS: Final = ("recorded", "history")
# In this order: when it was heard (ms), sent_ms, digest, result, at_ms, epoch, number.
_ARRIVAL: Final = struct.Struct(">Qq32sBqqq")
ARRIVAL_SIZE: Final = _ARRIVAL.size
_REVISION: Final = struct.Struct(">Q")
_CHANGE: Final = struct.Struct(">16sQ")
REVISION_SIZE: Final = _REVISION.size
_HEARD: Final = b"\1"
_NEWS: Final = b"\0"
_ENCODER: Final = msgspec.msgpack.Encoder()
_STATE: Final = msgspec.msgpack.Decoder(NodeState)


class Told(msgspec.Struct, array_like=True, gc=False):
    """An event, as the log holds it.

    Attributes:
        event: What happened.
        at_ms: When, wall clock.
        seconds: When, listening time.
        interruption: The number of the last interruption before that.
        state: The node after it; of a forgotten node what was last known.
    """

    event: str
    at_ms: int
    seconds: float
    interruption: int
    state: NodeState

    @property
    def moment(self) -> Moment:
        """When it happened."""
        return Moment(self.at_ms, self.seconds, self.interruption)


_TOLD: Final = msgspec.msgpack.Decoder(Told)


class Names:
    """The names of a registry's keys.

    Args:
        key: Returns the name of a partition's key, as `Link.key` does.
        partitions: Over how many partitions nodes are spread.
    """

    def __init__(self, key: Callable[[int | str, str], str], partitions: int) -> None:
        self.partitions = range(partitions)
        self.nodes = [key(number, "nodes") for number in self.partitions]
        self.changes = [key(number, "changes") for number in self.partitions]
        self.outbox = [key(number, "outbox") for number in self.partitions]
        self.recent = [key(number, "recent") for number in self.partitions]
        self.mark = [key(number, "mark") for number in self.partitions]
        self._seen = [key(number, "seen:") for number in self.partitions]
        self.clock = key(CLOCK, "clock")
        self.positions = key(EVENTS, "positions")
        self.log = key(EVENTS, "log")

    def partition(self, node_id: str) -> int:
        """Return where a node is."""
        return crc32(node_id.encode()) % len(self.partitions)

    def seen(self, partition: int, node_id: str) -> str:
        """Return the name of a node's older arrivals."""
        return self._seen[partition] + node_id


def new_name() -> str:
    """Return a name that nothing else has: of a run, or a receiver."""
    return secrets.token_hex(4)


def next_revision(before: int, listening_seconds: float) -> int:
    """Return a revision that follows another, and those of a node that was forgotten before.

    Its count grows; its other bits tell it from those that other receivers make meanwhile. Two updates of
    one node a millisecond on end would have to outrun the clock for a count to come twice.
    """
    count = max((before >> _RANDOM_BITS) + 1, int(listening_seconds * 1000))
    return count << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)


def last_revision(before: int) -> int:
    """Return the revision of a node's end: no later node of that name has a lower one."""
    return next_revision(before, 0.0)


def is_newer(revision: int, than: int) -> bool:
    """Whether one revision of a node follows another."""
    return revision >> _RANDOM_BITS > than >> _RANDOM_BITS


def pack_revision(revision: int) -> bytes:
    """Return a revision's bytes; of none none."""
    return _REVISION.pack(revision) if revision else b""


def revision_of(blob: bytes) -> int:
    """Return the revision of a state; 0: there is none."""
    return int(_REVISION.unpack_from(blob)[0]) if len(blob) >= REVISION_SIZE else 0


def pack_state(state: NodeState, *, is_heard: bool) -> bytes:
    """Return a state with its revision.

    Args:
        state: The state; `stored` is its revision.
        is_heard: Whether nothing is new but that the node was heard.
    """
    return _REVISION.pack(state.stored) + (_HEARD if is_heard else _NEWS) + _ENCODER.encode(state)


def is_heard(blob: bytes) -> bool:
    """Whether a state has no other news than that its node was heard."""
    return blob[REVISION_SIZE : REVISION_SIZE + 1] == _HEARD


class States:
    """Reads states, and keeps what thousands of nodes have in common once."""

    def __init__(self) -> None:
        self._tags: dict[tuple[str, ...], tuple[str, ...]] = {}

    def read(self, blob: bytes) -> NodeState:
        """Return a state; it is on no wheel, and `stored` is its revision."""
        state = _STATE.decode(memoryview(blob)[REVISION_SIZE + 1 :])
        state.bucket = -1
        state.stored = revision_of(blob)
        if len(self._tags) > _MANY:
            self._tags.clear()
        state.tags = self._tags.setdefault(state.tags, state.tags)
        state.version = intern(state.version)
        return state


_MANY: Final = 100_000


def read_changes(blob: bytes) -> list[tuple[str, int]]:
    """Return the nodes and revisions that an entry of the changes names."""
    return [(node_name(node), revision) for node, revision in _CHANGE.iter_unpack(blob)]


def split_arrivals(blob: bytes) -> list[bytes]:
    """Return the records that stand one after the other."""
    return [blob[start : start + ARRIVAL_SIZE] for start in range(0, len(blob), ARRIVAL_SIZE)]


def node_bytes(node_id: str) -> bytes:
    """Return a node_id's 16 bytes."""
    return bytes.fromhex(node_id.replace("-", ""))


def node_name(blob: bytes) -> str:
    """Return the node_id of 16 bytes."""
    text = blob.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def pack_arrivals(rows: Iterable[KeyRow]) -> bytes:
    """Return the records of some arrivals, one after the other."""
    return b"".join(
        [
            _ARRIVAL.pack(
                round(row.heard_at * 1000),
                row.sent_ms,
                row.digest,
                _RESULTS.index(row.result),
                row.at_ms,
                -1 if row.epoch is None else row.epoch,
                -1 if row.number is None else row.number,
            )
            for row in rows
        ]
    )


def read_arrival(node_id: str, record: bytes) -> KeyRow:
    """Return an arrival."""
    heard_ms, sent_ms, digest, result, at_ms, epoch, number = _ARRIVAL.unpack(record)
    return KeyRow(
        node_id,
        sent_ms,
        digest,
        _RESULTS[result],
        at_ms,
        heard_ms / 1000,
        None if epoch < 0 else epoch,
        None if number < 0 else number,
    )


def pack_event(event: str, state: NodeState, at: Moment) -> bytes:
    """Return an event."""
    return _ENCODER.encode(Told(event, at.at_ms, at.seconds, at.interruption, state))


def read_event(blob: bytes) -> Told:
    """Return an event."""
    return _TOLD.decode(blob)
