"""Signals that end the demo and its processes in order."""

from __future__ import annotations

import signal
import sys
import threading
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import FrameType


class Ending:
    """Notes SIGINT, SIGTERM and SIGHUP, so that the demo can end in order; a context manager.

    Attributes:
        signal: Which one came; None so far.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._came = threading.Event()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.signal = self.signal or number
        self._came.set()

    def wait(self, seconds: float) -> bool:
        """Wait so long at most; tell whether it is time to end."""
        return self._came.wait(max(0.0, seconds))


def end_quietly() -> None:
    """End this process at SIGTERM as if its work were done."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
