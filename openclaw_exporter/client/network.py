"""Sockets with one deadline for a whole exchange.

A time limit for each operation is none for their sum: a peer that sends a byte now and then would hold a
heartbeat for ever. Here every operation is clipped to what is left of the exchange, and another thread can
cut an exchange short.
"""

from __future__ import annotations

import math
import select
import socket
import threading
import time
from typing import TYPE_CHECKING, Final

from openclaw_exporter.client.exchange import BrokenError, TimedOutError, UnreachableError
from openclaw_exporter.client.resolver import Resolver, as_bytes

if TYPE_CHECKING:
    import ssl

_READ: Final = 65_536


class Network:
    """Opens connections whose every operation ends at the deadline of the exchange.

    Attributes:
        deadline: Seconds of `time.monotonic`.
        connections: How many connections were opened so far.
        aborted: Whether another thread cut the connection.
    """

    def __init__(self) -> None:
        self._resolver = Resolver()
        self._socket: socket.socket | None = None
        self._connected_by = math.inf
        self.deadline = math.inf
        self.connections = 0
        self.aborted = False

    def connect(self, host: str, port: int, timeout: float) -> Stream:
        """Connect to the first of the host's addresses that answers; all of them share the timeout.

        Raises:
            TimedOutError: None answered in time.
            UnreachableError: There is no such host, or nobody listens there.
        """
        self.connections += 1
        self._connected_by = min(self.deadline, time.monotonic() + timeout)
        addresses = self._resolver.resolve(host, port, self._left(self._connected_by))
        failure: Exception = UnreachableError(f"{host} has no address")
        for index, address in enumerate(addresses):
            # An address that drops everything leaves the others their share.
            share = self._left(self._connected_by) / (len(addresses) - index)
            try:
                connected = socket.create_connection((as_bytes(address), port), share)
            except TimeoutError as error:
                failure = TimedOutError(error)
                failure.__cause__ = error
                continue
            except OSError as error:
                failure = UnreachableError(error)
                failure.__cause__ = error
                continue
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return self._stream(connected)
        raise failure

    def secure(self, stream: Stream, context: ssl.SSLContext, host: str) -> Stream:
        """Return the connection with TLS.

        Raises:
            TimedOutError: The handshake took too long.
            UnreachableError: It failed.
        """
        secured: socket.socket | None = None
        try:
            stream.socket.settimeout(self._left(self._connected_by))
            wrapped = secured = context.wrap_socket(
                stream.socket, server_hostname=as_bytes(host), do_handshake_on_connect=False
            )
            # Before the handshake, so that this can be cut short, too.
            self._socket = wrapped
            wrapped.do_handshake()
        except TimeoutError as error:
            (secured or stream.socket).close()
            raise TimedOutError(error) from error
        except OSError as error:
            (secured or stream.socket).close()
            raise UnreachableError(error) from error
        return self._stream(wrapped)

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

    def clip(self, timeout: float) -> float:
        """Return the seconds that one operation may take.

        Raises:
            TimedOutError: The exchange's time is over.
        """
        return min(timeout, self._left(self.deadline))

    def _left(self, deadline: float) -> float:
        left = min(deadline - time.monotonic(), threading.TIMEOUT_MAX)
        if left <= 0:
            raise TimedOutError("the exchange's time is over")
        return left

    def _stream(self, connected: socket.socket) -> Stream:
        self._socket = connected
        return Stream(connected, self)


class Stream:
    """One connection.

    Args:
        connected: Its socket.
        network: What knows the deadline.
    """

    def __init__(self, connected: socket.socket, network: Network) -> None:
        self.socket = connected
        self._network = network

    def read(self, timeout: float) -> bytes:
        """Return what comes next, empty at the end.

        Raises:
            TimedOutError: Nothing came in time.
            BrokenError: The connection broke.
        """
        try:
            self.socket.settimeout(self._network.clip(timeout))
            return self.socket.recv(_READ)
        except TimeoutError as error:
            raise TimedOutError(error) from error
        except OSError as error:
            raise BrokenError(error) from error

    def write(self, content: bytes, timeout: float) -> None:
        """Send everything.

        Raises:
            TimedOutError: The peer did not take it in time.
            BrokenError: The connection broke.
        """
        left = memoryview(content)
        try:
            while left:
                self.socket.settimeout(self._network.clip(timeout))
                left = left[self.socket.send(left) :]
        except TimeoutError as error:
            raise TimedOutError(error) from error
        except OSError as error:
            raise BrokenError(error) from error

    def has_news(self) -> bool:
        """Tell whether something came without a request, which is the end of the connection."""
        try:
            poll = select.poll()
            poll.register(self.socket, select.POLLIN)
            return bool(poll.poll(0))
        except (OSError, ValueError):
            return True

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()
