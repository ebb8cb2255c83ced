"""Taking turns: many simulated nodes, driven by a few threads."""

from __future__ import annotations

import heapq
import itertools
import math
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Driver:
    """Calls each turn when it is due; a turn returns when it is due again, infinity for never.

    Args:
        threads: How many turns may be taken at once.

    Attributes:
        latest: The most that a turn was taken late, seconds.
    """

    def __init__(self, threads: int) -> None:
        self._order = itertools.count()
        self._due: list[tuple[float, int, Callable[[], float]]] = []
        self._changed = threading.Condition()
        self._ended = False
        self._threads = [
            threading.Thread(target=self._drive, name=f"driver-{number}", daemon=True)
            for number in range(threads)
        ]
        self.latest = 0.0

    def add(self, turn: Callable[[], float], due: float) -> None:
        """Take a turn at a time of `time.monotonic`."""
        if math.isinf(due):
            return
        with self._changed:
            heapq.heappush(self._due, (due, next(self._order), turn))
            self._changed.notify()

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the threads after the turns that they are at. Idempotent."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _drive(self) -> None:
        while (turn := self._next()) is not None:
            self.add(turn, turn())

    def _next(self) -> Callable[[], float] | None:
        """Wait for the turn that comes next; None at the end."""
        with self._changed:
            while not self._ended:
                if not self._due:
                    self._changed.wait()
                elif (wait := self._due[0][0] - time.monotonic()) > 0:
                    self._changed.wait(min(wait, threading.TIMEOUT_MAX))
                else:
                    self.latest = max(self.latest, -wait)
                    return heapq.heappop(self._due)[2]
        return None
