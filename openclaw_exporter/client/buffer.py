"""Heartbeats that wait: durable while the disk works, in memory while it does not, bounded either way.

What is known of each heartbeat (its size, and where it is) is in memory, so the bounds and the drop count are
exact whatever the disk does.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import msgspec

from openclaw_exporter.client.disk_errors import CorruptError, FullError
from openclaw_exporter.client.outgoing import Outgoing
from openclaw_exporter.client.state import put_aside

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from openclaw_exporter.client.rows import Rows
    from openclaw_exporter.client.settings import BufferSettings
    from openclaw_exporter.logs import Episodes

DropReason = Literal["overflow", "disk", "refused"]
"""Why a heartbeat was given up: no room, a damaged file, or an answer that forbids to send it again."""

_ROW_BYTES: Final = 128
"""What a row costs beside its body: its other columns, in the file and in the index."""
_MOVED_AT_ONCE: Final = 16
_DISK_ERRORS: Final = (OSError, CorruptError)


class Waiting(NamedTuple):
    """A heartbeat in the buffer.

    Attributes:
        key: Its name there, until the process ends.
        outgoing: The heartbeat.
    """

    key: int
    outgoing: Outgoing


class _Entry(msgspec.Struct):
    size: int
    row: int | None = None
    outgoing: Outgoing | None = None


class Buffer:
    """The heartbeats that wait for delivery, oldest first.

    Args:
        file: The buffer's file, opened when it exists or is first needed; None keeps everything in memory.
        limits: The bounds.
        episodes: Where trouble with the disk is logged.
        dropped: Called with the reason and the number of heartbeats at every drop.
    """

    def __init__(
        self,
        file: Path | None,
        limits: BufferSettings,
        *,
        episodes: Episodes,
        dropped: Callable[[DropReason, int], None],
    ) -> None:
        self._file = file
        self._limits = limits
        self._episodes = episodes
        self._tell_dropped = dropped
        self._rows: Rows | None = None
        self._entries: dict[int, _Entry] = {}
        self._undeleted: set[int] = set()
        self._bytes = 0
        self._last_key = 0
        self._counts: Counter[str] = Counter()
        if file is not None and file.exists():
            self._disk()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def bytes(self) -> int:
        """The size of all heartbeats that wait, as the bound counts it."""
        return self._bytes

    @property
    def drops(self) -> Mapping[str, int]:
        """How many heartbeats were dropped since this object was made, by reason."""
        return dict(self._counts)

    def add(self, outgoing: Outgoing) -> int:
        """Keep a heartbeat, durably if the disk works, and return its key; drop the oldest to make room."""
        size = len(outgoing.body) + _ROW_BYTES
        rows = self._disk()
        self._evict(self._limits.max_heartbeats - 1, self._limits.max_bytes - size)
        entry = _Entry(size, outgoing=outgoing)
        key = self._append(entry)
        if rows is not None:
            self._move_to_disk(rows, besides=key)
            self._store(rows, entry, keep=key)
        if self._rows is None and (rows := self._disk()) is not None:
            # The file was damaged and has just been put aside: this is the new one.
            self._store(rows, entry, keep=key)
        return key

    def remove(self, key: int) -> bool:
        """Forget a heartbeat that was delivered; tell whether it was still there."""
        known = self._forget(key)
        if self._undeleted and (rows := self._disk()) is not None:
            try:
                rows.delete(self._undeleted)
            except _DISK_ERRORS as error:
                self._fail(error)
            else:
                self._undeleted.clear()
        return known

    def drop(self, key: int, reason: DropReason) -> None:
        """Forget a heartbeat that will never be delivered, and count it."""
        if self.remove(key):
            self.count_dropped(reason)

    def count_dropped(self, reason: DropReason, number: int = 1) -> None:
        """Count heartbeats that were dropped."""
        self._counts[reason] += number
        self._tell_dropped(reason, number)

    def oldest(self, *, besides: int | None = None) -> Waiting | None:
        """Return the oldest heartbeat that waits, other than one; None too where the disk cannot be read."""
        for key, entry in list(self._entries.items()):
            if key == besides or key not in self._entries:
                continue
            try:
                outgoing = self._read(entry)
            except CorruptError as error:
                self._fail(error)
                continue
            except OSError as error:
                self._fail(error)
                return None
            if outgoing is not None:
                return Waiting(key, outgoing)
            self.drop(key, "disk")
        return None

    def sent_times(self) -> set[int]:
        """Return the `sent_ms` of every heartbeat that waits, as far as they can be read."""
        times = {entry.outgoing.sent_ms for entry in self._entries.values() if entry.outgoing is not None}
        try:
            return times | (self._rows.sent_times() if self._rows is not None else set())
        except _DISK_ERRORS as error:
            self._fail(error)
            return times

    def close(self) -> None:
        """Write what is still in memory, if the disk takes it, and close the file. Idempotent."""
        if any(entry.row is None for entry in self._entries.values()) and (rows := self._disk()) is not None:
            self._move_to_disk(rows, most=len(self._entries))
        if self._rows is not None:
            self._rows.close()
            self._rows = None
        self._file = None

    def _disk(self) -> Rows | None:
        """Return the open file; None where there is none now."""
        if self._rows is None and self._file is not None:
            # Most nodes are heard for all their lives: they need no SQLite.
            from openclaw_exporter.client.rows import Rows  # noqa: PLC0415

            try:
                rows = Rows(self._file, self._limits.max_bytes)
            except _DISK_ERRORS as error:
                self._fail(error)
                return None
            self._rows = rows
            self._adopt(rows)
        return self._rows

    def _adopt(self, rows: Rows) -> None:
        """Take in the rows of a file that was just opened; they are older than all that is in memory."""
        try:
            stored = rows.sizes()
        except _DISK_ERRORS as error:
            self._fail(error)
            return
        younger = self._entries
        self._entries = {}
        for row, size in stored.items():
            self._append(_Entry(size + _ROW_BYTES, row))
        self._entries.update(younger)
        self._evict(self._limits.max_heartbeats, self._limits.max_bytes)

    def _store(self, rows: Rows, entry: _Entry, *, keep: int) -> bool:
        """Move a heartbeat from memory to the disk, and tell whether it went well."""
        if entry.outgoing is None:
            return True
        while True:
            try:
                entry.row = rows.insert(entry.outgoing, self._undeleted)
            except FullError:
                # The bound in pages came before the bound in bytes: make room and try again.
                if not self._drop_oldest(keep=keep):
                    return False
            except _DISK_ERRORS as error:
                self._fail(error)
                return False
            else:
                entry.outgoing = None
                self._undeleted.clear()
                self._episodes.end("buffer", "the buffer's file can be written again")
                return True

    def _move_to_disk(self, rows: Rows, *, besides: int | None = None, most: int = _MOVED_AT_ONCE) -> None:
        """Move what waits in memory to a disk that works again."""
        waiting = [key for key, entry in self._entries.items() if entry.row is None and key != besides]
        for key in waiting[:most]:
            entry = self._entries.get(key)
            if entry is not None and not self._store(rows, entry, keep=key):
                return

    def _append(self, entry: _Entry) -> int:
        self._last_key += 1
        self._entries[self._last_key] = entry
        self._bytes += entry.size
        return self._last_key

    def _evict(self, heartbeats: int, most_bytes: int) -> None:
        while (len(self._entries) > heartbeats or self._bytes > most_bytes) and self._drop_oldest():
            pass

    def _drop_oldest(self, *, keep: int | None = None) -> bool:
        key = next(iter(self._entries), None)
        if key is None or key == keep:
            return False
        self._forget(key)
        self.count_dropped("overflow")
        return True

    def _forget(self, key: int) -> bool:
        entry = self._entries.pop(key, None)
        if entry is None:
            return False
        self._bytes -= entry.size
        if entry.row is not None:
            self._undeleted.add(entry.row)
        return True

    def _read(self, entry: _Entry) -> Outgoing | None:
        if entry.row is None or self._rows is None:
            return entry.outgoing
        return self._rows.read(entry.row)

    def _fail(self, error: Exception) -> None:
        """Note that the disk failed; what is in memory goes on."""
        if isinstance(error, CorruptError):
            self._put_aside()
            return
        cause = getattr(error, "cause", None) or type(error).__name__
        message = f"{self._file} cannot be used ({cause}): heartbeats wait in memory until it can"
        self._episodes.begin("buffer", cause, message)

    def _put_aside(self) -> None:
        """Give a damaged file another name, count what it held, and go on with a new one."""
        if self._rows is not None:
            self._rows.close()
            self._rows = None
        lost = [key for key, entry in self._entries.items() if entry.row is not None]
        for key in lost:
            self._bytes -= self._entries.pop(key).size
        self._undeleted.clear()
        if lost:
            self.count_dropped("disk", len(lost))
        if self._file is None:
            return
        journal = self._file.with_name(f"{self._file.name}-journal")
        if put_aside(self._file) is None:
            self._file = None
        elif journal.exists():
            # A journal that stayed would be rolled back into the new file.
            put_aside(journal)
