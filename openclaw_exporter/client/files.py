"""Files that something else replaces while we run: telling cheaply that they changed."""

from __future__ import annotations

import errno
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_SETTLED_NS = 2_000_000_000

_Signature = tuple[tuple[int, int, int], ...]

_REMEDIES = {
    errno.ENOENT: "put it there, or name another",
    errno.EACCES: "let this process's user read it and search the directories above it",
    errno.EISDIR: "name a file",
}


def unreadable(path: Path | str, error: OSError) -> str:
    """Return in words that a file cannot be read, and the remedy."""
    remedy = _REMEDIES.get(error.errno or 0, "name a file that can be read")
    return f"{path} cannot be read: {error.strerror}; {remedy}"


class WatchedFiles:
    """A few files that belong together and are read together.

    A change shows in a file's modification time, size or inode. A file that was written within the last two
    seconds before it was read may change again without that, so it is read again.

    Args:
        paths: The files.
    """

    def __init__(self, *paths: Path) -> None:
        self._paths = paths
        self._known: _Signature | None = None
        self._candidate: _Signature | None = None

    def changed(self) -> bool:
        """Whether the files may differ from what was last accepted; cheap."""
        return self._known is None or self._signature() != self._known

    def read(self) -> tuple[bytes, ...]:
        """Return the files' contents.

        Raises:
            OSError: One of them cannot be read.
        """
        self._candidate = self._signature()
        return tuple(path.read_bytes() for path in self._paths)

    def accept(self) -> None:
        """Note that what was last read is good: only a change makes it worth reading again."""
        self._known = self._candidate if self._candidate and _is_settled(self._candidate) else None

    def _signature(self) -> _Signature:
        signature = []
        for path in self._paths:
            try:
                found = path.stat()
            except OSError:
                signature.append((0, -1, 0))
            else:
                signature.append((found.st_mtime_ns, found.st_size, found.st_ino))
        return tuple(signature)


def _is_settled(signature: _Signature) -> bool:
    now = time.time_ns()
    return all(abs(now - modified) > _SETTLED_NS for modified, _, _ in signature)
