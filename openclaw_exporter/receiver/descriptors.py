"""How many files, connections among them, this process may have open."""

from __future__ import annotations

import contextlib
import logging
import math
import resource
from typing import Final

SPARE: Final = 128
"""Descriptors that the API's connections leave: for the admin listener's, the store, and files read again."""

_logger = logging.getLogger(__name__)


def allowed() -> float:
    """Return how many there may be, `inf` where the system sets no limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return math.inf if soft == resource.RLIM_INFINITY else soft


def room() -> float:
    """Return how many of them the API's connections may have, 1 or more."""
    return max(1, allowed() - SPARE)


def allow_all(connections: int | None = None) -> None:
    """Raise the limit of this process, and of those that it starts, as far as the system lets it.

    The soft limit is 1024 nearly everywhere for the sake of select(2), which nothing here uses.

    Args:
        connections: How many a process of the API takes at most; it is logged if the system does not allow as
            many.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Linux refuses even what is there, where it has been told of a lower fs.nr_open since.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if connections is not None and room() < connections:
        _logger.warning(
            "a process may have %d files open, so it takes no more than %d connections and not the %d that "
            "receiver.limits.connections gives it: raise LimitNOFILE= of the unit, or ulimit -Hn",
            allowed(),
            room(),
            connections,
        )
