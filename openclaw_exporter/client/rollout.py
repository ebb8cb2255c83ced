"""Stable hashes of node_id: who takes part in a staged rollout, and where in the interval a node beats."""

from __future__ import annotations

import hashlib

_RANGE = 2**64


def in_rollout(node_id: str, percent: float) -> bool:
    """Tell whether a node is in the share that publishes.

    A node that is in at some percentage is in at every higher one; 0 is nobody, 100 is everybody.

    Example:
        >>> in_rollout("7d444840-9dc0-11d1-b245-5ffdce74fad2", 100)
        True

    Args:
        node_id: The node's UUID, lower case.
        percent: The share, 0 to 100.
    """
    return stable_fraction(node_id, "rollout") * 100 < percent


def stable_fraction(node_id: str, purpose: str) -> float:
    """Return a number in [0, 1) that is the node's own for this purpose, spread evenly over nodes."""
    hashed = hashlib.sha256(f"openclaw {purpose} {node_id}".encode()).digest()
    return int.from_bytes(hashed[:8]) / _RANGE
