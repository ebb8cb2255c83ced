"""One kept HTTP/1.1 connection with one deadline for a whole exchange.

httpcore limits each connect, write and read, but not their sum: a peer that sends a byte now and
then would hold a heartbeat for ever. The network backend here clips every operation to what is left of the
exchange, and lets another thread cut an exchange short.
"""

from __future__ import annotations

import math
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

import httpcore

from openclaw_exporter.client.resolver import Resolver

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable


class Transport(Protocol):
    """What sends requests: a `KeptTransport`, or whatever stands in for one."""

    def handle_request(self, request: httpcore.Request) -> httpcore.Response:
        """Send a request and return the answer, its body not read yet; raise one of `NO_ANSWER`."""
        ...


NO_ANSWER: Final = (
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    OSError,
)
"""What `handle_request` raises where there is no answer."""


class Network(httpcore.NetworkBackend):
    """Sockets whose every operation ends at the deadline of the exchange.

    Attributes:
        deadline: Seconds of `time.monotonic`.
        connections: How many connections were opened so far.
        aborted: Whether another thread cut the connection.
    """

    def __init__(self) -> None:
        self._inner = httpcore.SyncBackend()
        self._resolver = Resolver()
        self._socket: socket.socket | None = None
        self._connected_by = math.inf
        self.deadline = math.inf
        self.connections = 0
        self.aborted = False

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first of the host's addresses that answers; all of them share the timeout."""
        self.connections += 1
        self._connected_by = min(self.deadline, time.monotonic() + (math.inf if timeout is None else timeout))
        addresses = self._resolver.resolve(host, port, self._left_to_connect())
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for index, address in enumerate(addresses):
            # An address that drops everything leaves the others their share.
            share = self._left_to_connect() / (len(addresses) - index)
            try:
                stream = self._inner.connect_tcp(address, port, share, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
                continue
            self._socket = stream.get_extra_info("socket")
            return _Stream(stream, self)
        raise failure

    def _left_to_connect(self) -> float:
        left = min(self._connected_by - time.monotonic(), threading.TIMEOUT_MAX)
        if left <= 0:
            raise httpcore.ConnectTimeout
        return left

    def clip(self, timeout: float | None, *, connecting: bool = False) -> float | None:
        """Return the seconds that one operation may take.

        Raises:
            httpcore.ReadTimeout: The exchange's time is over.
        """
        deadline = self._connected_by if connecting else self.deadline
        if deadline == math.inf:
            return timeout
        left = deadline - time.monotonic()
        if left <= 0:
            raise httpcore.ConnectTimeout if connecting else httpcore.ReadTimeout
        return left if timeout is None else min(timeout, left)

    def secured(self, secured: socket.socket | None) -> None:
        """Note the connection's socket after its TLS handshake."""
        self._socket = secured

    def abort(self) -> None:
        """Cut the connection, so that whatever waits for it fails at once. For another thread to call."""
        self.aborted = True
        connected = self._socket
        if connected is not None:
            try:
                # The plain socket's method: that of SSLSocket would take its state from under the reader.
                socket.socket.shutdown(connected, socket.SHUT_RDWR)
            except OSError:
                return


class _Stream(httpcore.NetworkStream):
    def __init__(self, inner: httpcore.NetworkStream, network: Network) -> None:
        self._inner = inner
        self._network = network

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, self._network.clip(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, self._network.clip(timeout))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = self._network.clip(timeout, connecting=True)
        secured = self._inner.start_tls(ssl_context, server_hostname, left)
        self._network.secured(secured.get_extra_info("socket"))
        return _Stream(secured, self._network)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class KeptTransport:
    """One connection to the receiver, kept between requests.

    Args:
        context: How to authenticate the receiver, and this node to it; None for `http://` alone.
        keep: Seconds for which an idle connection is kept.
        proxy: URL of an HTTP proxy; empty for none.
    """

    def __init__(self, context: ssl.SSLContext | None, *, keep: float, proxy: str = "") -> None:
        self.network = Network()
        self._pool = httpcore.ConnectionPool(
            ssl_context=context,
            proxy=httpcore.Proxy(proxy) if proxy else None,
            max_connections=1,
            keepalive_expiry=keep,
            http1=True,
            http2=False,
            network_backend=self.network,
        )

    def handle_request(self, request: httpcore.Request) -> httpcore.Response:
        """Send a request and return the answer, its body not read yet; raise one of `NO_ANSWER`."""
        return self._pool.handle_request(request)

    def close(self) -> None:
        """Close the connection."""
        self._pool.close()
