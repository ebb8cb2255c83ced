"""How often the cycle collector looks for garbage in a process that serves heartbeats."""

from __future__ import annotations

import gc
from typing import Final

_THRESHOLDS: Final = (20_000, 20, 20)


def relax() -> None:
    """Leave what there is now out of every later search, and search less often.

    For a process that does nothing but receive, once it has loaded what it needs: a heartbeat leaves no
    cycles behind, a connection that ends leaves a few.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
