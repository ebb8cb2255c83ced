"""The buffer's file: one SQLite table, bounded in pages, durable at every commit.

Rollback journal rather than WAL: a write-ahead log grows beside the file, up to megabytes between
checkpoints, and would break the bound; a commit a minute gains nothing from it. `synchronous = EXTRA` is FULL
and also syncs the directory after the journal is gone, so a commit outlives a power cut too.
"""

from __future__ import annotations

import os
import sqlite3
import zlib
from typing import TYPE_CHECKING, Final

from openclaw_exporter.client.disk_errors import CorruptError, DiskError, FullError
from openclaw_exporter.client.outgoing import Outgoing

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

PAGE_BYTES: Final = 4096
_FORMAT: Final = 1
_CORRUPT: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS heartbeats (
    id INTEGER PRIMARY KEY,
    body BLOB NOT NULL,
    sequence TEXT NOT NULL,
    interval INTEGER NOT NULL,
    sent_ms INTEGER NOT NULL,
    checksum INTEGER NOT NULL
) STRICT
"""


class Rows:
    """The rows of the buffer's file. Every method raises `OSError` where the disk fails.

    Args:
        file: The database file; made where it is missing, for the owner alone.
        max_bytes: The most bytes that it may have.

    Raises:
        CorruptError: The file is damaged, or none of ours.
    """

    def __init__(self, file: Path, max_bytes: int) -> None:
        self._last = 0
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        try:
            self._database = sqlite3.connect(file, timeout=0, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise _judged(error) from error
        try:
            self._prepare(max_bytes)
        except sqlite3.Error as error:
            self.close()
            raise _judged(error) from error
        except CorruptError:
            self.close()
            raise

    def sizes(self) -> dict[int, int]:
        """Return the body's length of every row, by id, oldest first.

        Raises:
            CorruptError: The file is damaged.
        """
        try:
            rows = self._database.execute("SELECT id, length(body) FROM heartbeats ORDER BY id")
            return dict(rows.fetchall())
        except sqlite3.Error as error:
            raise _judged(error) from error

    def sent_times(self) -> set[int]:
        """Return the `sent_ms` of every row.

        Raises:
            CorruptError: The file is damaged.
        """
        try:
            return {sent for (sent,) in self._database.execute("SELECT sent_ms FROM heartbeats")}
        except sqlite3.Error as error:
            raise _judged(error) from error

    def read(self, row: int) -> Outgoing | None:
        """Return a row, or None where it is missing or its checksum is wrong.

        Raises:
            CorruptError: The file is damaged.
        """
        query = "SELECT body, sequence, interval, sent_ms, checksum FROM heartbeats WHERE id = ?"
        try:
            found = self._database.execute(query, (row,)).fetchone()
        except sqlite3.Error as error:
            raise _judged(error) from error
        if found is None:
            return None
        *members, checksum = found
        outgoing = Outgoing(*members)
        return outgoing if _checksum(outgoing) == checksum else None

    def insert(self, outgoing: Outgoing, deletes: Iterable[int] = ()) -> int:
        """Delete rows and insert one, all or nothing; durable on return.

        Returns:
            The new row's id, above every other.

        Raises:
            FullError: The file's bound is reached; nothing has changed.
            CorruptError: The file is damaged.
        """
        row = self._last + 1
        values = (row, *outgoing, _checksum(outgoing))
        self._change(deletes, ("INSERT INTO heartbeats VALUES (?, ?, ?, ?, ?, ?)", values))
        self._last = row
        return row

    def delete(self, rows: Iterable[int]) -> None:
        """Delete rows, all or none; durable on return.

        Raises:
            CorruptError: The file is damaged.
        """
        self._change(rows)

    def _change(self, deletes: Iterable[int], *statements: tuple[str, tuple[object, ...]]) -> None:
        run = self._database.execute
        try:
            run("BEGIN IMMEDIATE")
            self._database.executemany("DELETE FROM heartbeats WHERE id = ?", [(row,) for row in deletes])
            for statement, values in statements:
                run(statement, values)
            run("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL and self._is_at_bound():
                raise FullError from error
            raise _judged(error) from error

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _prepare(self, max_bytes: int) -> None:
        run = self._database.execute
        run("PRAGMA synchronous = EXTRA")
        run("PRAGMA temp_store = MEMORY")
        run("PRAGMA cache_size = -256")
        run(f"PRAGMA page_size = {PAGE_BYTES}")
        run(f"PRAGMA max_page_count = {max_bytes // PAGE_BYTES}")
        (version,) = run("PRAGMA user_version").fetchone()
        if version not in (0, _FORMAT) or run("PRAGMA quick_check(1)").fetchone() != ("ok",):
            raise CorruptError
        if version == 0:
            run("BEGIN IMMEDIATE")
            run(_SCHEMA)
            run(f"PRAGMA user_version = {_FORMAT}")
            run("COMMIT")
        (self._last,) = run("SELECT coalesce(max(id), 0) FROM heartbeats").fetchone()

    def _roll_back(self) -> None:
        # Some errors have rolled back already, and on a failing disk even this may fail: the journal remains.
        if self._database.in_transaction:
            try:
                self._database.execute("ROLLBACK")
            except sqlite3.Error:
                return

    def _is_at_bound(self) -> bool:
        try:
            return self._at_bound()
        except sqlite3.Error:
            return False

    def _at_bound(self) -> bool:
        (pages,) = self._database.execute("PRAGMA page_count").fetchone()
        (bound,) = self._database.execute("PRAGMA max_page_count").fetchone()
        (free,) = self._database.execute("PRAGMA freelist_count").fetchone()
        # One row needs at most five pages of its own (16 KiB of body) and two more of the tree.
        return bool(bound - pages + free < 8)  # noqa: PLR2004 - explained above


def _checksum(outgoing: Outgoing) -> int:
    text = f"{outgoing.sequence} {outgoing.interval} {outgoing.sent_ms}"
    return zlib.crc32(outgoing.body, zlib.crc32(text.encode()))


def _judged(error: sqlite3.Error) -> Exception:
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None and code & 0xFF in _CORRUPT:
        return CorruptError()
    return DiskError(getattr(error, "sqlite_errorname", None) or type(error).__name__, str(error))
