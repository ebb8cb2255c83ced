"""New connections, accepted in the registry's process and passed to the workers.

Each goes to the worker that has the fewest. Connections are kept for hours, and a proxy brings a fleet over a
few: left to the kernel (`SO_REUSEPORT`, a hash) eight of them would fall six to two or worse in three starts
of ten, and with one socket for all (whoever wakes first) all on one side. A worker that hangs gets no more,
and none waits in the queue of one that has died. Passing one costs a hundredth of its handshake.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_logger = logging.getLogger(__name__)

_AT_ONCE: Final = 64
"""Connections that are accepted before others of the loop have their turn."""

_PAUSE: Final = 0.02
"""Seconds after which a connection that no worker could be passed is tried again."""


class Taker(Protocol):
    """Somebody whom a connection can be passed."""

    @property
    def load(self) -> int:
        """How many connections it has."""

    def pass_on(self, connection: socket.socket) -> bool:
        """Pass a connection; False: not now."""


class Door:
    """Accepts connections and passes each to the taker that has the fewest.

    Args:
        listening: Where they come from.
        takers: Returns whom they can be passed now.
    """

    def __init__(self, listening: socket.socket, takers: Callable[[], Iterable[Taker]]) -> None:
        self._listening = listening
        self._takers = takers
        self._held: socket.socket | None = None
        self._loop = asyncio.get_running_loop()
        self._again: asyncio.TimerHandle | None = None
        self._is_open = False

    def open(self) -> None:
        """Begin, or go on."""
        self._again = None
        self._is_open = True
        self._loop.add_reader(self._listening, self._accept)
        if self._held is not None:
            # It was accepted before: no other connection has to come for its sake.
            self._accept()

    def close(self) -> None:
        """Accept no more."""
        if self._again is not None:
            self._again.cancel()
        self._pause()
        if self._held is not None:
            self._held.close()

    def _pause(self) -> None:
        if self._is_open:
            self._loop.remove_reader(self._listening)
            self._is_open = False

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                held, self._held = self._held, None
                connection = held or self._listening.accept()[0]
            except (BlockingIOError, ConnectionError):
                return
            except OSError as error:
                # No descriptor is free, most likely; those that wait are accepted when one is.
                _logger.debug("a connection could not be accepted: %s", error)
                self._wait(None)
                return
            for taker in sorted(self._takers(), key=_load):
                if taker.pass_on(connection):
                    connection.close()
                    break
            else:
                self._wait(connection)
                return

    def _wait(self, connection: socket.socket | None) -> None:
        self._held = connection
        self._pause()
        self._again = self._loop.call_later(_PAUSE, self.open)


def _load(taker: Taker) -> int:
    return taker.load


def next_passed(passed: socket.socket) -> socket.socket | None:
    """Return the next connection that a worker is passed; None: the registry's process has gone.

    Raises:
        BlockingIOError: None waits.
        OSError: One came for which this process has no descriptor; the kernel has ended it.
    """
    word, descriptors, _, _ = socket.recv_fds(passed, 1, 1)
    if descriptors:
        return socket.socket(fileno=descriptors[0])
    if word:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    return None
