"""Free loopback ports."""

from __future__ import annotations

import random
import socket
from contextlib import suppress
from pathlib import Path
from typing import Final

_OUTGOING: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST: Final = 16_384
_TRIES: Final = 100


def free_port() -> int:
    """Return a loopback TCP port that nobody listens on now.

    Where the system tells which ports it gives to outgoing connections (Linux), it is below those: the server
    that is to listen there binds it seconds later, when there are connections of the demo's own.
    """
    for candidate in _below_outgoing():
        with suppress(OSError):
            return _bound(candidate)
    return _bound(0)


def _below_outgoing() -> list[int]:
    with suppress(OSError, ValueError):
        first = int(_OUTGOING.read_text(encoding="ascii").split()[0])
        if first - _LOWEST >= _TRIES:
            return random.sample(range(_LOWEST, first), _TRIES)
    return []


def _bound(port: int) -> int:
    """Bind a port and let it go; 0: one that the system chooses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", port))
        found: int = probe.getsockname()[1]
        return found
