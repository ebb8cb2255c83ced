"""The registry's durable log: one SQLite file, one connection, used by one thread.

A commit appends: the new states of nodes as one row of `state_batches`, and their arrivals as one row of
`arrival_batches`, however many there are. The table `nodes` holds what was folded into it (`tail.py`); a
state in a batch is newer than the one there. A start reads the table and then the batches in their order.

`synchronous=FULL` on a write-ahead log: what a commit has returned for survives a kill -9 and a power cut.
The connection holds its lock for as long as it lives, so that two receivers cannot share a file by mistake.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from sys import intern
from typing import TYPE_CHECKING, Final, NamedTuple

from openclaw_exporter.errors import StateError
from openclaw_exporter.receiver.registry import KeyRow, Stored
from openclaw_exporter.receiver.store.records import (
    KEY_SIZE,
    NOWHERE,
    Batch,
    Record,
    batch_and_index,
    blob_of,
    decode_changes,
    decode_state,
    encode_changes,
    encode_state,
    pack_keys,
    row_of,
    unpack_key,
)
from openclaw_exporter.receiver.store.trails import SHORT, Trail, Trails

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

    from openclaw_exporter.receiver.listening import Moment
    from openclaw_exporter.receiver.liveness import NodeState
    from openclaw_exporter.receiver.registry import Key

_REMEDY: Final = "name another file in receiver.store.url"
_SCHEMA_VERSION: Final = 2
_APPLICATION_ID: Final = 0x4F436C77  # "OClw"
_SCHEMA: Final = """
CREATE TABLE clock (
    id INTEGER PRIMARY KEY CHECK (id = 0), seconds REAL NOT NULL, interruption INTEGER NOT NULL,
    batch INTEGER NOT NULL
) STRICT;
INSERT INTO clock VALUES (0, 0, 0, 0);
CREATE TABLE nodes (node_id BLOB PRIMARY KEY, state BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE state_batches (number INTEGER PRIMARY KEY, states BLOB NOT NULL) STRICT;
CREATE TABLE arrival_batches (number INTEGER PRIMARY KEY, heard_at REAL NOT NULL, keys BLOB NOT NULL) STRICT;
CREATE TABLE strangers (
    node_id BLOB NOT NULL, sent_ms INTEGER NOT NULL, digest BLOB NOT NULL, result TEXT NOT NULL,
    at_ms INTEGER NOT NULL, heard_at REAL NOT NULL, epoch INTEGER, number INTEGER,
    PRIMARY KEY (node_id, sent_ms)
) STRICT, WITHOUT ROWID;
CREATE INDEX strangers_by_age ON strangers (heard_at);
"""
_PUT_NODE: Final = "INSERT OR REPLACE INTO nodes VALUES (?, ?)"
# A batch whose commit failed may be there nevertheless; nobody was promised anything of it.
_PUT_STATES: Final = "INSERT OR REPLACE INTO state_batches VALUES (?, ?)"
_PUT_KEYS: Final = "INSERT OR REPLACE INTO arrival_batches VALUES (?, ?, ?)"
_PUT_STRANGER: Final = "INSERT OR REPLACE INTO strangers VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_PURGE_STRANGERS: Final = """
DELETE FROM strangers WHERE (node_id, sent_ms) IN (
    SELECT node_id, sent_ms FROM strangers WHERE heard_at < ? ORDER BY heard_at LIMIT ?
)
"""
# A commit that was reported as failed may be there, and its number must not be given again.
_CLOCK: Final = """
SELECT seconds, interruption, max(
    batch,
    (SELECT ifnull(max(number), 0) FROM state_batches),
    (SELECT ifnull(max(number), 0) FROM arrival_batches)
) FROM clock
"""
_OLDEST: Final = "SELECT number, heard_at FROM arrival_batches ORDER BY number LIMIT ?"
_STRANGER: Final = "SELECT digest FROM strangers WHERE node_id = ? AND sent_ms = ? AND heard_at >= ?"
_NEWEST: Final = "SELECT max(sent_ms) FROM strangers WHERE node_id = ?"
_STRANGERS_HISTORY: Final = """
SELECT sent_ms, digest, result, at_ms, heard_at, epoch, number FROM strangers
WHERE node_id = ? AND heard_at >= ?
"""


class Opened(NamedTuple):
    """What a file knows when it is opened.

    Attributes:
        seconds: Listening time.
        interruption: The number of the interruption that ends now.
        batch: The number of the last batch.
    """

    seconds: float
    interruption: int
    batch: int


class Loaded(NamedTuple):
    """What a file holds.

    Attributes:
        states: Every node, with the number of the batch that its state is in, if it is in one.
        batches: The batches of states, the oldest first: number, and whose states.
        forgotten: The number of the newest batch that holds a state of a node that was forgotten; 0: none.
    """

    states: list[NodeState]
    batches: list[tuple[int, list[str]]]
    forgotten: int


class Database:
    """One SQLite file. Every method belongs to the one thread that opened it.

    Args:
        path: The file; it is made where it does not exist, readable by its owner only.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None
        self._inode = (0, 0)
        self._trails = Trails()

    def open(self) -> Opened:
        """Open the file, make its tables where it is new, and number a new interruption of listening.

        Raises:
            StateError: The file cannot be opened, is none of ours, or another receiver uses it.
        """
        try:
            self._connect()
            with self._transaction() as connection:
                connection.execute("UPDATE clock SET interruption = interruption + 1")
                clock = connection.execute(_CLOCK).fetchone()
        except (OSError, sqlite3.Error) as error:
            self.close()
            raise StateError(_explain(self.path, error)) from error
        return Opened(*clock)

    def recover(self, moment: Moment, batch: int, nodes: Collection[NodeState]) -> bool:
        """Open the file anew after a failure and prove that it can be written.

        Args:
            moment: The clock to store.
            batch: The number of the last batch.
            nodes: Every node, for the case that the file was lost and is new.

        Returns:
            Whether it is new; it then has these nodes and no batch.

        Raises:
            OSError: It cannot be opened.
            sqlite3.Error: It cannot be opened or written.
            StateError: Something else stands in its place.
        """
        self.close()
        fresh = self._connect()
        self.commit(Batch(batch, moment, folded=list(nodes) if fresh else ()))
        return fresh

    def close(self) -> None:
        """Close the file, if it is open."""
        self._trails.clear()
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def load(self) -> Loaded:
        """Read every node."""
        connection = self._open_connection()
        shared: dict[tuple[str, ...], tuple[str, ...]] = {}
        nodes: dict[str, NodeState] = {}

        def take(state: NodeState, number: int) -> None:
            state.bucket, state.stored = -1, number
            # Thousands of nodes have the same ones.
            state.tags = shared.setdefault(state.tags, state.tags)
            state.version = intern(state.version)
            known = nodes.get(state.node_id)
            if known is not None:
                # The same object everywhere: a name is long.
                state.node_id = known.node_id
            nodes[state.node_id] = state

        for (blob,) in connection.execute("SELECT state FROM nodes"):
            take(decode_state(blob), 0)
        batches: list[tuple[int, list[str]]] = []
        forgotten = 0
        for number, blob in connection.execute("SELECT number, states FROM state_batches ORDER BY number"):
            changes = decode_changes(blob)
            for state in changes.states:
                take(state, number)
            gone = [nodes.pop(node_id) for node_id in changes.forgotten if node_id in nodes]
            forgotten = max([forgotten, *(state.stored for state in gone)])
            batches.append((number, [state.node_id for state in changes.states]))
        return Loaded(list(nodes.values()), batches, forgotten)

    def commit(self, batch: Batch) -> None:
        """Store everything, or nothing; returns when it is on the disk.

        Raises:
            sqlite3.Error: It could not be stored.
            OSError: The file is gone.
        """
        if _inode(self.path) != self._inode:
            message = "the file has been moved, deleted or replaced"
            raise sqlite3.OperationalError(message)
        folded = [(blob_of(state.node_id), encode_state(state)) for state in batch.folded]
        with self._transaction() as connection:
            if batch.forgotten:
                keys = [(blob_of(node_id),) for node_id in batch.forgotten]
                connection.executemany("DELETE FROM nodes WHERE node_id = ?", keys)
                connection.executemany("DELETE FROM strangers WHERE node_id = ?", keys)
            if batch.states or batch.forgotten:
                connection.execute(_PUT_STATES, (batch.number, encode_changes(batch)))
            if batch.keys:
                keys_of_all = pack_keys(batch.keys)
                connection.execute(_PUT_KEYS, (batch.number, batch.moment.seconds, keys_of_all))
            if batch.strangers:
                connection.executemany(_PUT_STRANGER, map(_stranger_row, batch.strangers))
            if folded:
                # In the table's own order neighbours share a page.
                connection.executemany(_PUT_NODE, sorted(folded))
            if batch.dropped:
                connection.execute("DELETE FROM state_batches WHERE number <= ?", (batch.dropped,))
            connection.execute(
                "UPDATE clock SET seconds = ?, interruption = ?, batch = ?",
                (batch.moment.seconds, batch.moment.interruption, batch.number),
            )

    def lookup(self, keys: Iterable[tuple[str, int, int]], *, since: float) -> Stored:
        """Return what is stored under these idempotency keys and of their nodes.

        Args:
            keys: Node, the heartbeat's time, and the place of the node's newest arrival.
            since: Listening time before which keys count no more, whether they are deleted yet or not.
        """
        connection = self._open_connection()
        found: dict[Key, bytes] = {}
        newest: dict[str, int] = {}
        for node_id, sent_ms, trail in keys:
            node = blob_of(node_id)
            row = connection.execute(_STRANGER, (node, sent_ms, since)).fetchone()
            if row is not None:
                found[node_id, sent_ms] = row[0]
            elif (digest := self._find(node, sent_ms, trail, since)) is not None:
                found[node_id, sent_ms] = digest
            if node_id not in newest:
                newest[node_id] = connection.execute(_NEWEST, (node,)).fetchone()[0] or 0
        return Stored(found, newest)

    def history(self, node_id: str, trail: int, *, since: float) -> list[KeyRow]:
        """Return what arrived from a node since a listening time, oldest first.

        Args:
            node_id: The node.
            trail: The place of its newest arrival.
            since: Listening time.
        """
        strangers = self._open_connection().execute(_STRANGERS_HISTORY, (blob_of(node_id), since))
        rows = [KeyRow(node_id, *row) for row in strangers]
        records = self._chain(blob_of(node_id), trail)
        rows += [row_of(record) for _, record in records if record.heard_at >= since]
        return sorted(rows, key=lambda row: (row.heard_at, row.sent_ms))

    def purge(self, before: float, limit: int) -> int:
        """Delete the oldest arrivals from before a listening time; return how many rows or batches went."""
        with self._transaction() as connection:
            gone = [number for number, at in connection.execute(_OLDEST, (limit,)) if at < before]
            if gone:
                connection.execute("DELETE FROM arrival_batches WHERE number <= ?", (gone[-1],))
            return max(len(gone), connection.execute(_PURGE_STRANGERS, (before, limit)).rowcount)

    def _find(self, node: bytes, sent_ms: int, trail: int, since: float) -> bytes | None:
        """Return the digest of a node's newest arrival with a heartbeat's time; see `trails`."""
        known = self._trails.get(node)
        walked = Trail()
        digest = None
        for at, record in self._chain(node, trail):
            if record.heard_at < since:
                break
            if known is not None and at == known.newest:
                walked.extend(known)
                walked.drop(since)
                break
            walked.add(at, record)
            if digest is None and record.sent_ms == sent_ms:
                digest = record.digest
            if digest is not None and len(walked) <= SHORT:
                return digest
        self._trails.keep(node, walked)
        place = walked.find(sent_ms) if digest is None else None
        found = None if place is None else self._record(node, place)
        return digest if found is None else found.digest

    def _chain(self, node: bytes, trail: int) -> Iterator[tuple[int, Record]]:
        """Yield a node's arrivals with their places, the newest first, until their batch is gone."""
        while trail != NOWHERE and (record := self._record(node, trail)) is not None:
            yield trail, record
            trail = record.before

    def _record(self, node: bytes, at: int) -> Record | None:
        """Return a node's arrival; None: there is none of it at this place any more."""
        number, index = batch_and_index(at)
        try:
            blob = self._open_connection().blobopen("arrival_batches", "keys", number, readonly=True)
        except sqlite3.OperationalError:
            # There is no such row.
            return None
        with blob:
            blob.seek(index * KEY_SIZE)
            packed = blob.read(KEY_SIZE)
        if len(packed) < KEY_SIZE:
            return None
        record = unpack_key(packed)
        # Every arrival lies behind the one before it, or the file is not what was written.
        return record if record.node == node and record.before < at else None

    def _transaction(self) -> _Transaction:
        return _Transaction(self._open_connection())

    def _open_connection(self) -> sqlite3.Connection:
        if self._connection is None:
            message = "the database is closed"
            raise sqlite3.OperationalError(message)
        return self._connection

    def _connect(self) -> bool:
        # Made here and not by SQLite, for its mode; the log beside it inherits that.
        os.close(os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        self._inode = _inode(self.path)
        self._connection = connection = sqlite3.connect(self.path, isolation_level=None, timeout=0.5)
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        # What is deleted is overwritten where that costs no page of its own.
        connection.execute("PRAGMA secure_delete = FAST")
        with _Transaction(connection):
            (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if tables == 0:
                for statement in _SCHEMA.split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
                connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                return True
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            (owner,) = connection.execute("PRAGMA application_id").fetchone()
            if (owner, version) != (_APPLICATION_ID, _SCHEMA_VERSION):
                raise StateError(f"{self.path} belongs to another program or version; {_REMEDY}")
        return False


class _Transaction:
    """`BEGIN IMMEDIATE` to `COMMIT`; rolled back where the body or the commit fails."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> sqlite3.Connection:
        self._connection.execute("BEGIN IMMEDIATE")
        return self._connection

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._connection.execute("COMMIT")
        finally:
            if self._connection.in_transaction:
                with suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")


def _inode(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _stranger_row(row: KeyRow) -> tuple[object, ...]:
    return (blob_of(row.node_id), *row[1:])


def _explain(path: Path, error: Exception) -> str:
    if "locked" in str(error):
        return f"{path}: another receiver uses this registry; stop it, or {_REMEDY}"
    reason = error.strerror if isinstance(error, OSError) else error
    return f"{path}: the registry cannot be opened: {reason}; see receiver.store.url"
