"""New connections: accepted in the registry's process, passed to the workers, taken there.

Each goes to the worker that has the fewest. Connections are kept for hours, and a proxy brings a fleet over a
few: left to the kernel (`SO_REUSEPORT`, a hash) eight of them would fall six to two or worse in three starts
of ten, and with one socket for all (whoever wakes first) all on one side. A worker that hangs gets no more,
and none waits in the queue of one that has died. Passing one costs a hundredth of its handshake.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

_logger = logging.getLogger(__name__)

_AT_ONCE: Final = 64
"""Connections that are accepted before others of the loop have their turn."""

_PAUSE: Final = 0.02
"""Seconds after which a connection that no worker could be passed is tried again."""

_HANDSHAKES: Final = 256
"""Handshakes of one worker under way; who comes then waits outside, instead of all being late."""

_COUNTED_FOR: Final = 1.0
"""Seconds for which a handshake counts among those: one that takes longer waits for its client, which costs
nothing, and must not keep others out."""


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


class Threshold:
    """Takes the connections that a worker is passed.

    Args:
        passed: Where they come from.
        take: Serves one; returns when its handshake has ended.

    Attributes:
        count: How many it was passed so far.
    """

    def __init__(
        self, passed: socket.socket, take: Callable[[socket.socket], Coroutine[None, None, None]]
    ) -> None:
        self._passed = passed
        self._take = take
        self._loop = asyncio.get_running_loop()
        self._handshakes: set[asyncio.Task[None]] = set()
        self._counted: dict[asyncio.Task[None], asyncio.TimerHandle] = {}
        self._is_open = False
        self._ended = False
        self.count = 0
        passed.setblocking(False)
        self._open()

    @property
    def handshakes(self) -> int:
        """Handshakes that are under way."""
        return len(self._handshakes)

    async def close(self) -> None:
        """Take no more; a handshake under way is given up."""
        self._ended = True
        self._shut()
        handshakes = list(self._handshakes)
        for handshake in handshakes:
            handshake.cancel()
        await asyncio.gather(*handshakes, return_exceptions=True)
        self._passed.close()

    def _open(self) -> None:
        self._loop.add_reader(self._passed, self._receive)
        self._is_open = True

    def _shut(self) -> None:
        if self._is_open:
            self._loop.remove_reader(self._passed)
            self._is_open = False

    def _receive(self) -> None:
        while len(self._counted) < _HANDSHAKES:
            try:
                _, descriptors, _, _ = socket.recv_fds(self._passed, 1, 1)
            except BlockingIOError:
                return
            if not descriptors:
                # The registry's process has gone; whoever reads the channel sees to it.
                self._shut()
                return
            for descriptor in descriptors:
                self._begin(socket.socket(fileno=descriptor))
        self._shut()

    def _begin(self, connection: socket.socket) -> None:
        self.count += 1
        connection.setblocking(False)
        handshake = self._loop.create_task(self._take(connection), name="openclaw-handshake")
        self._handshakes.add(handshake)
        self._counted[handshake] = self._loop.call_later(_COUNTED_FOR, self._count_out, handshake)
        handshake.add_done_callback(self._done)

    def _done(self, handshake: asyncio.Task[None]) -> None:
        self._handshakes.discard(handshake)
        self._count_out(handshake)

    def _count_out(self, handshake: asyncio.Task[None]) -> None:
        if (timer := self._counted.pop(handshake, None)) is not None:
            timer.cancel()
        if not self._is_open and not self._ended:
            self._open()


def _load(taker: Taker) -> int:
    return taker.load
