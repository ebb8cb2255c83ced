"""Signals for the main thread, and an end that comes in time whatever plugins leave behind."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import threading
import time
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from types import FrameType, TracebackType

_ENDING: Final = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """Takes SIGTERM, SIGINT and SIGHUP while it is entered; only for the main thread.

    Python runs a signal's handler between two instructions of the main thread. One that waits for a lock may
    miss a signal that arrives just before, and wait on; so this waits for a pipe, which the signal is written
    into at once, whichever thread it interrupts.
    """

    def __init__(self) -> None:
        self._reading = self._writing = self._wakeup_before = -1
        self._before: dict[signal.Signals, Any] = {}
        self._ending = ""

    @property
    def ending(self) -> str:
        """The signal by which the process is to end; empty where it is not."""
        return self._ending

    def __enter__(self) -> Self:
        self._reading, self._writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wakeup_before = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        for number in (*_ENDING, signal.SIGHUP):
            self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._reading)
        os.close(self._writing)

    def wait_for_reload(self) -> bool:
        """Wait for signals; return True for a SIGHUP, or many, and False where the process is to end."""
        while True:
            select.select([self._reading], [], [])
            arrived = os.read(self._reading, 65_536)
            if self._wakeup_before >= 0:
                with contextlib.suppress(OSError):
                    os.write(self._wakeup_before, arrived)
            for number in _ENDING:
                if number in arrived:
                    self._ending = number.name
            if self._ending:
                return False
            if signal.SIGHUP in arrived:
                return True

    def _take(self, number: int, _frame: FrameType | None) -> None:
        if number in _ENDING:
            self._ending = signal.Signals(number).name


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
