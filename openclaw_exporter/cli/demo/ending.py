"""Signals that end the demo and its processes in order."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import FrameType


class Ending:
    """Notes SIGINT, SIGTERM and SIGHUP, so that the demo can end in order; a context manager.

    The main thread waits for a pipe: an event has a lock, which a handler may find held by the very wait that
    it interrupts, and then it never comes back.

    Attributes:
        signal: Which one came; None so far.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._reading = self._writing = -1
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._reading, self._writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._reading)
        os.close(self._writing)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.signal = self.signal or number
        with contextlib.suppress(BlockingIOError):  # it is full: that is enough
            os.write(self._writing, b"\0")

    def wait(self, seconds: float) -> bool:
        """Wait so long at most; tell whether it is time to end."""
        select.select([self._reading], [], [], max(0.0, seconds))
        return self.signal is not None


def end_quietly() -> None:
    """End this process at SIGTERM as if its work were done."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
