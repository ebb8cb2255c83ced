"""What stands between a connection's transport and its HTTP protocol: it reads no more than is wanted."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from openclaw_exporter.receiver.protocol import PIECE

if TYPE_CHECKING:
    from collections.abc import Callable

    from openclaw_exporter.receiver.protocol import HttpProtocol


class Inlet(asyncio.BufferedProtocol):
    # ruff: noqa: D102 - asyncio's methods, as asyncio documents them
    """Hands what arrives to an `HttpProtocol` in pieces of at most `PIECE` bytes.

    A plain protocol gets up to 256 KiB at once from a TLS transport, whatever limit it has just found broken.
    """

    __slots__ = ("_buffer", "_http")

    def __init__(self, http: HttpProtocol, buffer: memoryview) -> None:
        self._http = http
        self._buffer = buffer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._http.connection_made(transport)  # type: ignore[arg-type] # a stream's transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._http.connection_lost(exc)
        # uvloop keeps `get_buffer` and `buffer_updated` of a protocol for as long as the TLS connection's
        # objects live, and those live as long as whoever has the transport.
        del self._http

    def get_buffer(self, sizehint: int) -> memoryview:
        del sizehint
        room = self._http.room
        return self._buffer if room == PIECE else self._buffer[:room]

    def buffer_updated(self, nbytes: int) -> None:
        self._http.data_received(self._buffer[:nbytes])

    def eof_received(self) -> None:
        self._http.eof_received()

    def pause_writing(self) -> None:
        self._http.pause_writing()

    def resume_writing(self) -> None:
        self._http.resume_writing()


def listener_buffer() -> memoryview:
    """Return a buffer for all inlets of one loop: what arrives is parsed before more arrives."""
    return memoryview(bytearray(PIECE))


def protocol_factory(make: Callable[[], HttpProtocol], buffer: memoryview) -> Callable[[], Inlet]:
    """Return what makes the protocol of a new connection."""
    return lambda: Inlet(make(), buffer)
