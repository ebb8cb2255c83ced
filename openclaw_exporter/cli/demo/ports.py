"""Free loopback ports."""

from __future__ import annotations

import random
import socket
from contextlib import suppress
from pathlib import Path
from typing import Final

_OUTGOING: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
LOWEST: Final = 16_384
"""Below it some have their customary servers."""

_TRIES: Final = 100


def free_port() -> int:
    """Return a loopback TCP port that nobody listens on now.

    Where the system tells which ports it gives to outgoing connections (Linux), it is below those: the server
    that is to listen there binds it seconds later, when there are connections of the demo's own.
    """
    ports = below_outgoing(_TRIES)
    for candidate in random.sample(ports, min(_TRIES, len(ports))):
        with suppress(OSError):
            return _bound(candidate)
    return _bound(0)


def below_outgoing(least: int) -> range:
    """Return the ports below those of outgoing connections; none where there are fewer, or nobody tells."""
    with suppress(OSError, ValueError):
        first = int(_OUTGOING.read_text(encoding="ascii").split()[0])
        if first - LOWEST >= least:
            return range(LOWEST, first)
    return range(0)


def _bound(port: int) -> int:
    """Bind a port and let it go; 0: one that the system chooses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", port))
        found: int = probe.getsockname()[1]
        return found
