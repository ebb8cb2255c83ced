"""The state directory: who this node is, which epoch it is in, and where its buffer lies.

One directory belongs to one node and one process at a time (an advisory lock says so). Small files are
written whole: to a temporary file that is synced, renamed and made durable by syncing the directory. What
cannot be read is put aside under another name and named in the log, and never stops the node.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import time
import uuid
from typing import TYPE_CHECKING, Final

from openclaw_exporter.errors import StateError
from openclaw_exporter.wire.fields import UUID

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_LOG = logging.getLogger(__name__)

_MAX_EPOCH: Final = 2**53 - 1
_is_uuid = re.compile(UUID).fullmatch
_is_epoch = re.compile(r"[0-9]{1,16}").fullmatch


class StateDirectory:
    """The state directory of one node, locked for this process until `close`.

    Args:
        path: The directory; made where it is missing. None keeps nothing on disk.
        quiet: Do not log that it cannot be written.

    Attributes:
        writable: Whether what is kept here outlives the process.

    Raises:
        StateError: Another process, or another publisher in this one, uses the directory.
    """

    def __init__(self, path: Path | None, *, quiet: bool = False) -> None:
        self._path = path
        self._level = logging.DEBUG if quiet else logging.WARNING
        self._lock: int | None = None
        self._epoch = -1
        self.writable = False
        if path is not None:
            self._open(path)

    @property
    def buffer_path(self) -> Path | None:
        """Where the buffer's file belongs, or None where nothing can be kept."""
        return self._path / "buffer.sqlite3" if self._path is not None and self.writable else None

    def settle_node_id(self, claimed: str | None, *, source: str) -> str:
        """Return this node's id: the claimed one, else the stored one, else a new one that is stored.

        Args:
            claimed: What the configuration or the certificate says, if they say anything.
            source: Which of them, for the error text.

        Raises:
            StateError: The directory is another node's, or a new id cannot be kept.
        """
        stored = self._read("node_id", _is_uuid)
        if claimed is not None and stored is not None and claimed != stored:
            raise StateError(
                f"{self._path} is the state directory of node {stored}, but {source} says {claimed}: "
                "set openclaw.state_dir to a directory of this node's own, or remove the directory"
            )
        node_id = claimed or stored or str(uuid.uuid4())
        if stored is None and not self._write("node_id", node_id) and claimed is None:
            raise StateError(
                f"this node has no node_id, and a new one cannot be kept in {self._path or 'memory alone'}: "
                "make openclaw.state_dir writable, or set openclaw.node_id"
            )
        return node_id

    def next_epoch(self, now_ms: int) -> int:
        """Return this process's epoch: the time in Unix milliseconds, above every epoch used here before."""
        stored = self._read("epoch", _is_epoch)
        last = min(int(stored), _MAX_EPOCH - 1) if stored is not None else -1
        return self._keep_epoch(max(now_ms, last + 1, 0))

    def raise_epoch(self, epoch: int) -> int:
        """Return an epoch that is at least the given one and at least this process's, and keep it."""
        return self._keep_epoch(max(epoch, self._epoch))

    def close(self) -> None:
        """Give the directory free. Idempotent."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _keep_epoch(self, epoch: int) -> int:
        self._epoch = epoch
        self._write("epoch", str(epoch))
        return epoch

    def _open(self, path: Path) -> None:
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            self._warn("cannot be written", error)
            return
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise StateError(
                f"another publisher uses {path}: each node needs an openclaw.state_dir of its own"
            ) from None
        except OSError as error:
            # Some network file systems know no locks; that is no reason to stop publishing.
            self._warn("cannot be locked", error)
        self.writable = True

    def _read(self, name: str, valid: Callable[[str], object]) -> str | None:
        """Return a small file's text; None where it is missing, or unreadable and therefore put aside."""
        if self._path is None:
            return None
        file = self._path / name
        try:
            text = file.read_bytes().decode("ascii").strip()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, UnicodeDecodeError):
            text = ""
        if valid(text):
            return text
        put_aside(file)
        return None

    def _write(self, name: str, text: str) -> bool:
        """Replace a small file atomically and durably; tell whether that went well."""
        if self._path is None or not self.writable:
            return False
        try:
            _replace(self._path, name, f"{text}\n".encode("ascii"))
        except OSError as error:
            self._warn(f"cannot keep {name}", error)
            return False
        return True

    def _warn(self, what: str, error: OSError) -> None:
        _LOG.log(
            self._level,
            "state directory %s %s (%s): publishing goes on, but what it keeps is lost with this process",
            self._path,
            what,
            error.strerror or type(error).__name__,
        )


def put_aside(file: Path) -> Path | None:
    """Rename a file that cannot be used to `NAME.corrupt-<Unix ms>`, and say so in the log.

    Returns:
        The new name, or None where it could not be renamed.
    """
    aside = file.with_name(f"{file.name}.corrupt-{time.time_ns() // 1_000_000}")
    try:
        file.rename(aside)
    except OSError as error:
        _LOG.error("%s is corrupt and cannot be put aside (%s)", file, error.strerror or type(error).__name__)
        return None
    _LOG.error("%s was corrupt and is now %s; the node goes on without what it held", file, aside)
    return aside


def _replace(directory: Path, name: str, content: bytes) -> None:
    temporary = directory / f".{name}.new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.rename(directory / name)
    sync_directory(directory)


def sync_directory(directory: Path) -> None:
    """Make the directory's entries durable.

    Raises:
        OSError: They could not be.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
