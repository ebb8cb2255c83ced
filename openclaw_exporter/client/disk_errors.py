"""What can be wrong with the buffer's file; known without SQLite, which a node that is heard never needs."""

from __future__ import annotations


class CorruptError(Exception):
    """The file holds something else than what was written to it."""


class FullError(Exception):
    """The file has reached its bound; the disk has not."""


class DiskError(OSError):
    """SQLite cannot use the file now.

    Attributes:
        cause: Its name for what is wrong, such as `SQLITE_IOERR_WRITE`.
    """

    def __init__(self, cause: str, text: str) -> None:
        self.cause = cause
        super().__init__(text)
