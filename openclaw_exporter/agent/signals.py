"""Signals for the main thread, and an end that comes in time whatever plugins leave behind."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from types import FrameType, TracebackType

_ENDING: Final = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """Takes SIGTERM, SIGINT and SIGHUP while it is entered; only for the main thread."""

    def __init__(self) -> None:
        # The only queue whose put may interrupt its own get.
        self._arrived: SimpleQueue[int] = SimpleQueue()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in (*_ENDING, signal.SIGHUP):
            self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def wait_for_reload(self) -> bool:
        """Wait for signals; return True for a SIGHUP, or many, and False where the process is to end."""
        arrived = {self._arrived.get()}
        while True:
            try:
                arrived.add(self._arrived.get_nowait())
            except Empty:
                return not arrived & set(_ENDING)

    def _take(self, number: int, _frame: FrameType | None) -> None:
        self._arrived.put(number)


def leave_within(seconds: float) -> None:
    """See to it that an interpreter that is ending is gone in time.

    Python waits for every thread that is no daemon, and for exit handlers: a plugin's may never end. Where
    the main thread has ended by then and the process has not, it is cut off, with status 0. A process that
    goes on, because the agent was only a part of it, is left alone.
    """

    def cut_off() -> None:
        time.sleep(max(0.0, seconds))
        if not threading.main_thread().is_alive():
            logging.shutdown()
            os._exit(0)

    threading.Thread(target=cut_off, name="leaving", daemon=True).start()
