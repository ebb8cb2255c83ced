"""The registry's durable log: one SQLite file, one connection, used by one thread.

`synchronous=FULL` on a write-ahead log: what a commit has returned for survives a kill -9 and a power cut.
The connection holds its lock for as long as it lives, so that two receivers cannot share a file by mistake.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import msgspec

from openclaw_exporter.errors import StateError
from openclaw_exporter.receiver.liveness import NodeState
from openclaw_exporter.receiver.registry import KeyRow, Stored

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from openclaw_exporter.receiver.listening import Moment
    from openclaw_exporter.receiver.registry import Key

_REMEDY: Final = "name another file in receiver.store.url"
_SCHEMA_VERSION: Final = 1
_APPLICATION_ID: Final = 0x4F436C77  # "OClw"
_SCHEMA: Final = """
CREATE TABLE clock (
    id INTEGER PRIMARY KEY CHECK (id = 0), seconds REAL NOT NULL, interruption INTEGER NOT NULL
) STRICT;
INSERT INTO clock VALUES (0, 0, 0);
CREATE TABLE nodes (
    node_id BLOB PRIMARY KEY, payload BLOB NOT NULL, sent_ms INTEGER NOT NULL, newest_ms INTEGER NOT NULL,
    epoch INTEGER NOT NULL, number INTEGER NOT NULL, first_seen_ms INTEGER NOT NULL,
    last_seen_ms INTEGER NOT NULL, heard_at REAL NOT NULL, interruption INTEGER NOT NULL,
    interval INTEGER NOT NULL, answered INTEGER NOT NULL, skew_ms INTEGER NOT NULL, state TEXT NOT NULL,
    lapsed_at REAL NOT NULL, lapsed_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE arrivals (
    node_id BLOB NOT NULL, sent_ms INTEGER NOT NULL, digest BLOB NOT NULL, result TEXT NOT NULL,
    at_ms INTEGER NOT NULL, heard_at REAL NOT NULL, epoch INTEGER, number INTEGER,
    PRIMARY KEY (node_id, sent_ms)
) STRICT, WITHOUT ROWID;
CREATE INDEX arrivals_by_age ON arrivals (heard_at);
"""
_PUT_NODE: Final = "INSERT OR REPLACE INTO nodes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_PUT_ARRIVAL: Final = "INSERT OR REPLACE INTO arrivals VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_PURGE: Final = """
DELETE FROM arrivals WHERE (node_id, sent_ms) IN (
    SELECT node_id, sent_ms FROM arrivals WHERE heard_at < ? ORDER BY heard_at LIMIT ?
)
"""
_NEWEST: Final = "SELECT max(sent_ms) FROM arrivals WHERE node_id = ?"
_HISTORY: Final = """
SELECT sent_ms, digest, result, at_ms, heard_at, epoch, number FROM arrivals
WHERE node_id = ? AND heard_at >= ? ORDER BY heard_at, sent_ms
"""


class Database:
    """One SQLite file. Every method belongs to the one thread that opened it.

    Args:
        path: The file; it is made where it does not exist, readable by its owner only.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None
        self._inode = (0, 0)

    def open(self) -> tuple[float, int]:
        """Open the file, make its tables where it is new, and number a new interruption of listening.

        Returns:
            Listening time in seconds, and the number of the interruption that ends now.

        Raises:
            StateError: The file cannot be opened, is none of ours, or another receiver uses it.
        """
        try:
            self._connect()
            with self._transaction() as connection:
                connection.execute("UPDATE clock SET interruption = interruption + 1")
                clock = connection.execute("SELECT seconds, interruption FROM clock")
                seconds, interruption = clock.fetchone()
        except (OSError, sqlite3.Error) as error:
            self.close()
            raise StateError(_explain(self.path, error)) from error
        return seconds, interruption

    def recover(self, moment: Moment, nodes: Iterable[NodeState]) -> None:
        """Open the file anew after a failure and prove that it can be written.

        Args:
            moment: The clock to store.
            nodes: Every node, for the case that the file was lost and is new.

        Raises:
            OSError: It cannot be opened.
            sqlite3.Error: It cannot be opened or written.
            StateError: Something else stands in its place.
        """
        self.close()
        fresh = self._connect()
        self.commit(moment, nodes=nodes if fresh else ())

    def close(self) -> None:
        """Close the file, if it is open."""
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def load(self) -> list[NodeState]:
        """Read every node."""
        return [_node(row) for row in self._open_connection().execute("SELECT * FROM nodes")]

    def commit(
        self,
        moment: Moment,
        *,
        nodes: Iterable[NodeState] = (),
        forgotten: Sequence[str] = (),
        arrivals: Iterable[KeyRow] = (),
    ) -> None:
        """Store everything, or nothing; returns when it is on the disk.

        Raises:
            sqlite3.Error: It could not be stored.
            OSError: The file is gone.
        """
        if _inode(self.path) != self._inode:
            message = "the file has been moved, deleted or replaced"
            raise sqlite3.OperationalError(message)
        with self._transaction() as connection:
            if forgotten:
                keys = [(_blob(node_id),) for node_id in forgotten]
                connection.executemany("DELETE FROM nodes WHERE node_id = ?", keys)
                connection.executemany("DELETE FROM arrivals WHERE node_id = ?", keys)
            connection.executemany(_PUT_NODE, map(_node_row, nodes))
            connection.executemany(_PUT_ARRIVAL, map(_arrival_row, arrivals))
            connection.execute(
                "UPDATE clock SET seconds = ?, interruption = ?", (moment.seconds, moment.interruption)
            )

    def lookup(self, keys: Iterable[Key]) -> Stored:
        """Return what is stored under these idempotency keys and of their nodes."""
        connection = self._open_connection()
        found: dict[Key, bytes] = {}
        newest: dict[str, int] = {}
        for node_id, sent_ms in keys:
            row = connection.execute(
                "SELECT digest FROM arrivals WHERE node_id = ? AND sent_ms = ?", (_blob(node_id), sent_ms)
            ).fetchone()
            if row is not None:
                found[node_id, sent_ms] = row[0]
            if node_id not in newest:
                rows = connection.execute(_NEWEST, (_blob(node_id),))
                newest[node_id] = rows.fetchone()[0] or 0
        return Stored(found, newest)

    def history(self, node_id: str, *, since: float) -> list[KeyRow]:
        """Return what arrived from a node since a listening time, oldest first."""
        rows = self._open_connection().execute(_HISTORY, (_blob(node_id), since))
        return [KeyRow(node_id, *row) for row in rows]

    def purge(self, before: float, limit: int) -> int:
        """Delete the oldest arrivals from before a listening time, and return how many."""
        with self._transaction() as connection:
            return connection.execute(_PURGE, (before, limit)).rowcount

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


class _Content(msgspec.Struct):
    capacity: dict[str, int | float]
    tags: tuple[str, ...]
    version: str


_CONTENT = msgspec.json.Decoder(_Content)


def _inode(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _blob(node_id: str) -> bytes:
    return bytes.fromhex(node_id.replace("-", ""))


def _node_row(state: NodeState) -> tuple[object, ...]:
    return (
        _blob(state.node_id),
        state.payload,
        state.sent_ms,
        state.newest_ms,
        state.epoch,
        state.number,
        state.first_seen_ms,
        state.last_seen_ms,
        state.heard_at,
        state.interruption,
        state.interval,
        state.answered,
        state.skew_ms,
        state.state,
        state.lapsed_at,
        state.lapsed_ms,
    )


def _arrival_row(row: KeyRow) -> tuple[object, ...]:
    return (_blob(row.node_id), *row[1:])


def _node(row: tuple[Any, ...]) -> NodeState:
    content = _CONTENT.decode(row[1])
    return NodeState(
        node_id=str(UUID(bytes=row[0])),
        payload=row[1],
        tags=content.tags,
        version=content.version,
        slots=int(content.capacity["available_slots"]),
        sent_ms=row[2],
        newest_ms=row[3],
        epoch=row[4],
        number=row[5],
        first_seen_ms=row[6],
        last_seen_ms=row[7],
        heard_at=row[8],
        interruption=row[9],
        interval=row[10],
        answered=row[11],
        skew_ms=row[12],
        state=row[13],
        lapsed_at=row[14],
        lapsed_ms=row[15],
    )


def _explain(path: Path, error: Exception) -> str:
    if "locked" in str(error):
        return f"{path}: another receiver uses this registry; stop it, or {_REMEDY}"
    return f"{path}: the registry cannot be opened: {error}; see receiver.store.url"
