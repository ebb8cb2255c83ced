"""Whole messages, in order, over one end of a socket pair."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from openclaw_exporter.receiver.workers.messages import Message

_logger = logging.getLogger(__name__)

_SIZE: Final = 4
"""Each message has its size in front, big-endian."""

_ENCODER: Final = msgspec.msgpack.Encoder()


class Channel(asyncio.Protocol):
    """One end. What is sent after its end goes nowhere.

    Args:
        decoder: Of what comes in.
        received: Called with each message.
        lost: Called when the other end has gone.
    """

    def __init__(
        self,
        decoder: msgspec.msgpack.Decoder[Any],
        received: Callable[[Any], None],
        lost: Callable[[], None],
    ) -> None:
        self._decode = decoder.decode
        self._received = received
        self._lost = lost
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._closing = False
        self._ended = asyncio.Event()

    async def open(self, connected: socket.socket) -> None:
        """Begin."""
        await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=connected)

    def send(self, message: Message) -> None:
        """Send a message."""
        if self._transport is not None:
            body = _ENCODER.encode(message)
            self._transport.write(len(body).to_bytes(_SIZE) + body)

    def hand_to(self, received: Callable[[Any], None]) -> None:
        """Call something else with each message from now on."""
        self._received = received

    async def close(self) -> None:
        """End when all that was sent has gone out; `lost` is not called for it."""
        self._closing = True
        if self._transport is not None:
            self._transport.close()
            await self._ended.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; called by the event loop."""
        self._transport = transport  # type: ignore[assignment] # a stream's

    def connection_lost(self, _exc: Exception | None) -> None:
        """End; called by the event loop."""
        self._transport = None
        self._ended.set()
        if not self._closing:
            self._lost()

    def data_received(self, data: bytes) -> None:
        """Hand on each message that is whole; called by the event loop."""
        buffer = self._buffer
        buffer += data
        start = 0
        while len(buffer) - start >= _SIZE:
            end = start + _SIZE + int.from_bytes(buffer[start : start + _SIZE])
            if end > len(buffer):
                break
            self._hand_on(bytes(buffer[start + _SIZE : end]))
            start = end
        del buffer[:start]

    def _hand_on(self, body: bytes) -> None:
        try:
            self._received(self._decode(body))
        except Exception:
            # A fault of ours in one message must not end all that others wait for.
            _logger.exception("a message between the receiver's processes failed")
