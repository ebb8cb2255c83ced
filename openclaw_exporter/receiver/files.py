"""Noticing that a file has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openclaw_exporter.errors import UnreadableError

if TYPE_CHECKING:
    from pathlib import Path

    from openclaw_exporter.errors import CredentialError


class Watched:
    """One file or several that belong together, known by inode, size and times.

    A change of mode or owner makes a file another one too: it may be readable now.

    Args:
        paths: The files.
    """

    def __init__(self, *paths: Path) -> None:
        self._paths = paths
        self._seen: list[tuple[int, int, int, int] | None] | None = None

    def changed(self) -> bool:
        """Whether any of them is another than at the last call; true for the first one.

        A file that cannot be looked at counts as one of its own.
        """
        now = [_look(path) for path in self._paths]
        changed = now != self._seen
        self._seen = now
        return changed

    def failed(self, error: CredentialError) -> None:
        """Note that what is there cannot be used.

        Where it could not even be read it counts as changed at the next call too: nothing about the files has
        to change until it can be.
        """
        if isinstance(error, UnreadableError):
            self._seen = None


def _look(path: Path) -> tuple[int, int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
