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
    return _number(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


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
    room = allowed() - SPARE
    if connections is not None and room < connections:
        _logger.warning(
            "a process may have %d files open, so it takes no more than %d connections and not the %d that "
            "receiver.limits.connections gives it: raise LimitNOFILE= of the unit, or ulimit -Hn",
            room + SPARE,
            max(1, room),
            connections,
        )


def _number(limit: int) -> float:
    return math.inf if limit == resource.RLIM_INFINITY else limit
