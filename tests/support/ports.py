"""Free loopback ports that no other test, and no outgoing connection, takes meanwhile."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from contextlib import suppress
from pathlib import Path

from openclaw_exporter.cli.demo.ports import LOWEST, below_outgoing

_ENOUGH = 4096
_dice = random.SystemRandom()  # a test may have seeded the other
_given: set[int] = set()
_locks: list[int] = []


def free_port() -> int:
    """Return a loopback TCP port that nobody listens on now, and that no other run of tests is given.

    It lies below those that the system gives to outgoing connections, where there is room, and is locked
    until this process ends: a server may bind it minutes later, and again after it was killed.
    """
    candidates = below_outgoing(_ENOUGH) or range(LOWEST, 61_000)
    while True:
        port = _dice.choice(candidates)
        if port not in _given and _is_free(port) and _lock(port):
            _given.add(port)
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe, suppress(OSError):
        probe.bind(("127.0.0.1", port))
        return True
    return False


def _lock(port: int) -> bool:
    """Whether this process has the port's lock now: one byte of a file, let go when the process ends."""
    if not _locks:
        path = Path(tempfile.gettempdir()) / f"openclaw-exporter-ports-{os.getuid()}"
        _locks.append(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    try:
        fcntl.lockf(_locks[0], fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except BlockingIOError:
        return False
    return True
