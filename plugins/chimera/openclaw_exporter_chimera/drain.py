"""How long a topic needs until it is drained, if it goes on as it did.

The depths of the last `drain_window` seconds are laid along a straight line (least squares). Where it falls,
the estimate is the present depth by its slope: what workers take less what arrives. Where the depth does not
fall, there is no estimate, because no end is in sight; where the depth is zero, it is zero.
"""

from __future__ import annotations

from collections import deque
from typing import Final

_MOST: Final = 32
"""Depths that are kept of one topic: at an interval of 2 s still a minute."""
_FEWEST: Final = 3
"""Depths that make an estimate: between two there is always a line."""


class Drain:
    """The depths of one topic."""

    def __init__(self, window: float) -> None:
        self._window = window
        self._depths: deque[tuple[float, int]] = deque(maxlen=_MOST)

    def seconds(self, now: float, depth: int | None) -> float | None:
        """Note a depth, None where it is unknown; return the estimate in seconds, None where there is none.

        Args:
            now: Monotonic seconds.
            depth: Messages that wait now.
        """
        if depth is None:
            self._depths.clear()
            return None
        self._depths.append((now, depth))
        while self._depths[0][0] < now - self._window:
            self._depths.popleft()
        if depth == 0:
            return 0.0
        fall = -self._slope()
        span = now - self._depths[0][0]
        return depth / fall if fall * span >= 1 else None

    def _slope(self) -> float:
        """Return messages a second."""
        count = len(self._depths)
        if count < _FEWEST:
            return 0.0
        when = sum(at for at, _ in self._depths) / count
        mean = sum(depth for _, depth in self._depths) / count
        spread = sum((at - when) ** 2 for at, _ in self._depths)
        return sum((at - when) * (depth - mean) for at, depth in self._depths) / spread if spread else 0.0
