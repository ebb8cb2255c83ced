"""Rate-scaled intervals: the larger the fleet, the longer the interval that is answered."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final
from zlib import crc32

if TYPE_CHECKING:
    from openclaw_exporter.receiver.liveness import Rules

_SPREAD: Final = 0.1
"""Answered intervals differ by up to this share, so that nodes that beat as one drift apart."""


def scaled_interval(live: int, rules: Rules) -> int:
    """Return the interval at which so many nodes keep to the configured rate, seconds; 0: nothing is scaled.

    Args:
        live: Live nodes.
        rules: The configuration's.
    """
    if not rules.target_rate:
        return 0
    return min(math.ceil(live / rules.target_rate), rules.max_interval)


def answered_interval(node_id: str, configured: int, scaled: int, rules: Rules) -> int:
    """Return the interval to answer a node, seconds: never less than its own, never more than the maximum.

    Args:
        node_id: The node; the same one is always put at the same place of the spread.
        configured: Its own interval, or the default.
        scaled: As `scaled_interval` returns it.
        rules: The configuration's.
    """
    if scaled <= configured:
        return configured
    place = crc32(node_id.encode()) / 2**32
    return min(math.ceil(scaled * (1 + _SPREAD * place)), rules.max_interval)
