"""How often one node may publish: a token bucket for each, kept as one number (GCRA, ITU-T I.371).

The number is the time at which the node's bucket is full again. A node whose bucket is full needs no entry,
so only those heard in the last seconds have one.
"""

from __future__ import annotations


class RateLimit:
    """Admits `rate` heartbeats a second from each node, and `burst` at once.

    Args:
        rate: Heartbeats a second.
        burst: Heartbeats at once, 1 or more.
    """

    def __init__(self, rate: float, burst: int) -> None:
        self._cost = 1 / rate
        self._depth = burst / rate
        self._full_at: dict[str, float] = {}
        self._swept_at = 0.0

    def __len__(self) -> int:
        return len(self._full_at)

    def admit(self, node_id: str, now: float) -> float:
        """Take one token of a node's bucket.

        Args:
            node_id: The node.
            now: Seconds of a clock that never goes back.

        Returns:
            0 where there was one, else the seconds until there is.
        """
        if now - self._swept_at > 2 * self._cost:
            self._sweep(now)
        full_at = max(now, self._full_at.get(node_id, 0.0)) + self._cost
        wait = full_at - now - self._depth
        # Sums of floats: a bucket that is exactly full must not refuse its last token.
        if wait > 1e-9:  # noqa: PLR2004
            return wait
        self._full_at[node_id] = full_at
        return 0.0

    def _sweep(self, now: float) -> None:
        self._swept_at = now
        self._full_at = {node_id: at for node_id, at in self._full_at.items() if at > now}
