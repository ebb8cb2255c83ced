"""A deadline for a connection whose library has none."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from types import TracebackType


_GRACE: Final = 0.25
"""Seconds that a server may take to cancel a query by itself, before its connection is shut down."""


class Watch:
    """Shuts a connection down under a client that waits for an answer beyond the deadline.

    libpq waits for an answer for as long as it takes; the server's own timeouts say nothing about a server
    that is frozen, or a network that is silent.
    """

    def __init__(self, descriptor: int, deadline: float) -> None:
        self.fired = False
        self._socket = socket.socket(fileno=os.dup(descriptor))
        self._timer = threading.Timer(max(0.0, deadline + _GRACE - time.monotonic()), self._shut)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        self._timer.join()
        self._socket.close()

    def _shut(self) -> None:
        self.fired = True
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
