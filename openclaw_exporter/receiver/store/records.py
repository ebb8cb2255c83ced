"""What the embedded store writes: arrivals in records of one size, and batches of node states.

A node's arrivals are a chain: each record says where the one before it is, and the node's state says where
the newest is. So an arrival is appended and nothing else is touched, and old ones go a whole batch at a time.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID

import msgspec

from openclaw_exporter.receiver.liveness import NodeState
from openclaw_exporter.receiver.registry import KeyRow

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from openclaw_exporter.receiver.listening import Moment

NOWHERE: Final = -1
"""The place before a node's first arrival."""

_INDEX_BITS: Final = 16
_RESULTS: Final = ("recorded", "history")
# node_id, sent_ms, digest, result, at_ms, heard_at, epoch, number, the place of the one before.
_KEY: Final = struct.Struct("<16sq32sBqdqqq")
KEY_SIZE: Final = _KEY.size


class Record(NamedTuple):
    """A record's fields, as they stand in it: the node's 16 bytes, the result's index, -1 for no sequence.

    Attributes:
        before: The place of the node's arrival before this one.
    """

    node: bytes
    sent_ms: int
    digest: bytes
    result: int
    at_ms: int
    heard_at: float
    epoch: int
    number: int
    before: int


class Batch(NamedTuple):
    """What one commit writes.

    Attributes:
        number: Its own, never used again once it is stored.
        moment: The clock to store.
        keys: The arrivals of known nodes, each with the place of the node's arrival before it.
        strangers: The arrivals of nodes that are not known.
        states: The new states.
        forgotten: The nodes whose rows are to be deleted.
        folded: States of older batches to write into the table of nodes.
        dropped: The newest batch of states that is not needed any more then; 0: none.
    """

    number: int
    moment: Moment
    keys: Sequence[tuple[KeyRow, int]] = ()
    strangers: Sequence[KeyRow] = ()
    states: Sequence[NodeState] = ()
    forgotten: Sequence[str] = ()
    folded: Sequence[NodeState] = ()
    dropped: int = 0


class Changes(msgspec.Struct, array_like=True, gc=False):
    """One batch of states, as it is stored.

    Attributes:
        states: New states; in array form, so a field may only ever be added at their end.
        forgotten: Nodes that are known no more.
    """

    states: list[NodeState]
    forgotten: list[str]


_ENCODER: Final = msgspec.msgpack.Encoder()
_CHANGES: Final = msgspec.msgpack.Decoder(Changes)
_STATE: Final = msgspec.msgpack.Decoder(NodeState)


def place(number: int, index: int) -> int:
    """Return the place of a record in a batch."""
    return number << _INDEX_BITS | index


def batch_and_index(at: int) -> tuple[int, int]:
    """Return the batch's number and the record's index of a place."""
    return at >> _INDEX_BITS, at & (1 << _INDEX_BITS) - 1


def blob_of(node_id: str) -> bytes:
    """Return a node_id's 16 bytes."""
    return bytes.fromhex(node_id.replace("-", ""))


def pack_keys(rows: Iterable[tuple[KeyRow, int]]) -> bytes:
    """Return the records of some arrivals, one after the other."""
    pack, result_of, from_hex = _KEY.pack, _RESULTS.index, bytes.fromhex
    return b"".join(
        [
            pack(
                from_hex(node_id.replace("-", "")),
                sent_ms,
                digest,
                result_of(result),
                at_ms,
                heard_at,
                -1 if epoch is None else epoch,
                -1 if number is None else number,
                before,
            )
            for (node_id, sent_ms, digest, result, at_ms, heard_at, epoch, number), before in rows
        ]
    )


def unpack_key(record: bytes) -> Record:
    """Return a record's fields."""
    return Record._make(_KEY.unpack(record))


def row_of(record: Record) -> KeyRow:
    """Return the arrival that a record holds."""
    return KeyRow(
        str(UUID(bytes=record.node)),
        record.sent_ms,
        record.digest,
        _RESULTS[record.result],
        record.at_ms,
        record.heard_at,
        None if record.epoch < 0 else record.epoch,
        None if record.number < 0 else record.number,
    )


def encode_changes(batch: Batch) -> bytes:
    """Return a batch's new states, as `state_batches` holds them."""
    return _ENCODER.encode(Changes(list(batch.states), list(batch.forgotten)))


def decode_changes(blob: bytes) -> Changes:
    """Return the states of a batch."""
    return _CHANGES.decode(blob)


def encode_state(state: NodeState) -> bytes:
    """Return a state, as the table of nodes holds it."""
    return _ENCODER.encode(state)


def decode_state(blob: bytes) -> NodeState:
    """Return a state."""
    return _STATE.decode(blob)
