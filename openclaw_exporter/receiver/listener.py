"""Connections with our protocol behind them; their TLS context can be changed while a socket listens."""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import socket
import ssl
import time
from contextlib import suppress
from email.utils import formatdate
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from uvicorn import Config

from openclaw_exporter.errors import UserError
from openclaw_exporter.receiver.descriptors import room
from openclaw_exporter.receiver.entrance import Entrance
from openclaw_exporter.receiver.hot import HotProtocol, HotState
from openclaw_exporter.receiver.inlet import listener_buffer, protocol_factory
from openclaw_exporter.receiver.protocol import HttpProtocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from openclaw_exporter.receiver.publishing import Publishing
    from openclaw_exporter.receiver.settings import LimitSettings
    from openclaw_exporter.receiver.trust import Trust
    from openclaw_exporter.wire.tokens import Verifier

_logger = logging.getLogger(__name__)

_BACKLOG: Final = 1024
"""Connections that wait in the kernel; a machine that does 300 handshakes a second takes them within 4 s."""

_RECEIVE_BUFFER: Final = 64 * 1024
"""What the kernel keeps of one connection at most; heartbeats are small, and a flood waits outside."""

_TLS_SHUTDOWN_SECONDS: Final = 1.0
_LOOK_EVERY: Final = 0.01


class Listener:
    """Serves the connections of one address.

    Args:
        application: ASGI.
        listening: The socket whose connections it accepts, see `bind`; None: others accept, see `take`.
        limits: The table `[receiver.limits]`.
        context: For TLS; None: plain HTTP.
        trust: Who is believed; None on a listener without TLS.
        refused: Called with the slug and status of each request that the protocol refuses.
        turn_away: Returns after how many seconds one connection too many may come back.
        publishing: Decides on heartbeats, on the listener that has the hot route.
    """

    def __init__(
        self,
        application: Callable[..., Any],
        listening: socket.socket | None,
        *,
        limits: LimitSettings,
        context: ssl.SSLContext | None,
        trust: Trust | None,
        refused: Callable[[str, int], None],
        turn_away: Callable[[], int] = lambda: 5,
        publishing: Publishing | None = None,
    ) -> None:
        self._socket = listening
        self._handshake_timeout = limits.handshake_timeout
        self._context = context
        self._entrance: Entrance | None = None
        self._most = math.inf if publishing is None else room()
        config = Config(
            application,
            loop="none",
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
        )
        config.load()
        config.timeout_keep_alive = limits.keep_alive  # type: ignore[assignment] # call_later takes fractions
        self._state = HotState()
        arguments: dict[str, Any] = {
            "limits": limits,
            "trust": trust,
            "refused": refused,
            "turn_away": turn_away,
        }
        kind: Callable[..., HttpProtocol] = HttpProtocol
        if publishing is not None:
            kind = partial(HotProtocol, publishing=publishing)
        self._factory = protocol_factory(partial(kind, config, self._state, **arguments), listener_buffer())
        self.refresh_date()

    @property
    def connections(self) -> int:
        """Connections that are open now."""
        return len(self._state.connections)

    async def start(self) -> None:
        """Begin to accept connections."""
        if self._socket is not None:
            self._entrance = Entrance(self._socket, self._accept, self.take, self.has_room)

    def has_turned_away(self) -> bool:
        """Whether somebody was let go who waited for too long, or found no room, since the last call."""
        return self._entrance is not None and self._entrance.has_turned_away()

    def has_room(self, handshakes: int) -> bool:
        """Whether there are descriptors for one more connection beside so many handshakes."""
        return self.connections + handshakes < self._most

    def _accept(self) -> socket.socket:
        assert self._socket is not None  # noqa: S101 - it has an entrance
        return self._socket.accept()[0]

    async def take(self, connection: socket.socket) -> None:
        """Serve a connection that was accepted elsewhere; return when its handshake has ended."""
        try:
            await asyncio.get_running_loop().connect_accepted_socket(self._factory, connection, **self._tls())
        except (OSError, ssl.SSLError) as error:
            # As of a server's: anybody can cause one, as often as they like.
            _logger.debug("a connection failed: %s", error)

    def _tls(self) -> dict[str, Any]:
        if self._context is None:
            return {}
        return {
            "ssl": self._context,
            "ssl_handshake_timeout": self._handshake_timeout,
            "ssl_shutdown_timeout": _TLS_SHUTDOWN_SECONDS,
        }

    def use(self, context: ssl.SSLContext) -> None:
        """Use another TLS context for new connections."""
        self._context = context

    def refresh_date(self) -> None:
        """Let answers carry the present `Date`."""
        self._state.date(formatdate(time.time(), usegmt=True).encode())

    def end_connections(self) -> None:
        """Close every connection after the request that it is at, or after the handshake that it is in."""
        self._state.generation += 1
        for connection in list(self._state.connections):
            connection.shutdown()

    def recheck(self, verifier: Verifier | None) -> int:
        """Close the connections of those who are believed no more; return how many.

        Args:
            verifier: What verifies tokens now.
        """
        ending = [connection for connection in self._state.connections if connection.recheck(verifier)]  # type: ignore[union-attr] # all are ours
        for connection in ending:
            connection.shutdown()
        return len(ending)

    async def stop(self, grace: float) -> None:
        """Accept no more, let requests end, and then abort what is left.

        Args:
            grace: Seconds that requests get.
        """
        if self._entrance is not None:
            await self._entrance.close()
        if self._socket is not None:
            self._socket.close()
        self.end_connections()
        with suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._all_ended()
        for connection in list(self._state.connections):
            connection.transport.abort()
        for task in list(self._state.tasks):
            task.cancel()
        await self._all_ended()

    async def _all_ended(self) -> None:
        while self._state.connections or self._state.tasks:  # noqa: ASYNC110 - uvicorn's sets tell nobody
            await asyncio.sleep(_LOOK_EVERY)


def url_of(listening: socket.socket, *, tls: bool) -> str:
    """Return the base URL of a listening socket, with the port that was taken."""
    host, port = listening.getsockname()[:2]
    scheme = "https" if tls else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def bind(host: str, port: int, key: str) -> socket.socket:
    """Listen on an address. Connections may come from now on; they wait.

    Args:
        host: The address.
        port: The TCP port; 0 takes a free one.
        key: The configuration's table, for error texts.

    Raises:
        UserError: The address cannot be listened on.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise UserError(f"{key}.host: {host!r} is no address: {error.strerror}") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listening.bind(address)
        listening.listen(_BACKLOG)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        foreign = error.errno == errno.EADDRNOTAVAIL
        remedy = f"{key}.host to an address of this machine" if foreign else f"{key}.port to a free port"
        message = f"{key}: cannot listen on {host}:{port} ({error.strerror}); set {remedy}"
        raise UserError(message) from error
    return listening
