"""New connections: a few at a time, and none that has waited for too long.

A handshake costs milliseconds, and a fleet that comes back wants thousands at once. Were all of them begun,
all would be late, and each client that gives up has cost what it would have to let it in. So the event loop
takes a few in each round; the others wait in the kernel, where they cost nothing. Whoever has been there for
so long that little patience can be left is let go at once, to come back after a backoff of its own.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

_logger = logging.getLogger(__name__)

_BEGUN: Final = 16
"""Handshakes that are begun in one round of the event loop."""

_LOOKED_AT: Final = 256
"""Connections that are looked at in one round."""

_PATIENCE_MS: Final = 6000
"""Since a client's first words; most wait for ten seconds, and the handshake needs some of them."""

_PAUSE: Final = 0.1

_TCP_INFO: Final = 60
_LAST_DATA_RECEIVED: Final = 52
"""Where `struct tcp_info` (linux/tcp.h) says how many milliseconds ago the last data arrived."""

_CLOSE_WAIT: Final = 8
_ABORT: Final = struct.pack("ii", 1, 0)


class Entrance:
    """Takes the connections that come out of a socket.

    Args:
        source: The socket; not blocking.
        receive: Returns the next connection of it; None: there will be none any more.
        take: Serves one; returns when its handshake has ended.
        has_room: Whether one more may be taken now, by the number of handshakes under way.

    Attributes:
        count: Connections that came so far.
    """

    def __init__(
        self,
        source: socket.socket,
        receive: Callable[[], socket.socket | None],
        take: Callable[[socket.socket], Coroutine[None, None, None]],
        has_room: Callable[[int], bool] = lambda _handshakes: True,
    ) -> None:
        self._source = source
        self._receive = receive
        self._take = take
        self._has_room = has_room
        self._loop = asyncio.get_running_loop()
        self._handshakes: set[asyncio.Task[None]] = set()
        self._again: asyncio.TimerHandle | None = None
        self._turned_away = False
        self._is_open = False
        self.count = 0
        self._open()

    @property
    def handshakes(self) -> int:
        """Handshakes that are under way."""
        return len(self._handshakes)

    def has_turned_away(self) -> bool:
        """Whether somebody was let go, or found no room, since the last call."""
        turned_away, self._turned_away = self._turned_away, False
        return turned_away

    async def close(self) -> None:
        """Take no more; a handshake under way is given up."""
        self._shut()
        handshakes = list(self._handshakes)
        for handshake in handshakes:
            handshake.cancel()
        await asyncio.gather(*handshakes, return_exceptions=True)

    def _open(self) -> None:
        self._again = None
        self._loop.add_reader(self._source, self._look)
        self._is_open = True

    def _shut(self) -> None:
        if self._again is not None:
            self._again.cancel()
        if self._is_open:
            self._loop.remove_reader(self._source)
            self._is_open = False

    def _look(self) -> None:
        begun = 0
        for _ in range(_LOOKED_AT):
            if not self._has_room(self.handshakes):
                # Somebody waits, or this would not be called, and is not heard meanwhile.
                self._turned_away = True
                self._pause()
                return
            try:
                connection = self._receive()
            except (BlockingIOError, ConnectionError):
                return
            except OSError as error:
                # No descriptor is free, most likely; those that wait are taken when one is.
                _logger.debug("a connection could not be taken: %s", error)
                self._turned_away = True
                self._pause()
                return
            if connection is None:
                self._shut()
                return
            self.count += 1
            if has_waited_too_long(connection):
                self._turned_away = True
                let_go(connection)
                continue
            self._begin(connection)
            begun += 1
            if begun == _BEGUN:
                return

    def _pause(self) -> None:
        self._shut()
        self._again = self._loop.call_later(_PAUSE, self._open)

    def _begin(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        handshake = self._loop.create_task(self._take(connection), name="openclaw-handshake")
        self._handshakes.add(handshake)
        handshake.add_done_callback(self._handshakes.discard)


def has_waited_too_long(connection: socket.socket) -> bool:
    """Whether a client has given up, or waits for so long that it soon will."""
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO)
    except OSError:
        return False
    if info[0] == _CLOSE_WAIT:
        return True
    (waited,) = struct.unpack_from("I", info, _LAST_DATA_RECEIVED)
    return bool(waited > _PATIENCE_MS)


def let_go(connection: socket.socket) -> None:
    """End a connection with a reset, which its client hears of at once."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
    connection.close()
