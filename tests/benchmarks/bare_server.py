"""What a Python server costs that does next to nothing, on the receiver's own runtime: uvloop and its TLS.

    python tests/benchmarks/bare_server.py PORT CERTIFICATE KEY CA constant|parsed

`constant` answers whatever arrives with the same bytes: what is left is the kernel, TLS and the loop.
`parsed` reads requests by uvicorn's httptools protocol without starting an ASGI task, compares the token with
the connection's last one, decodes the body, keeps it in a dictionary and answers: no certificate, no order,
no idempotency, no expiry, no limit, no metric, nothing on a disk.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec
import uvloop
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from openclaw_exporter.wire.answers import Recorded, encode_recorded
from openclaw_exporter.wire.heartbeat import Heartbeat

if TYPE_CHECKING:
    from collections.abc import Callable

_BODY: Final = encode_recorded(Recorded("recorded", "2026-02-06T12:34:56Z", 60))
_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: "
_ANSWER: Final = b"%b%d\r\n\r\n%b" % (_HEAD, len(_BODY), _BODY)
_DECODER: Final = msgspec.json.Decoder(Heartbeat)


class Constant(asyncio.Protocol):
    """Answers each piece of bytes, and looks at none."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        # uvloop's own class, which says nothing of its kin.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, _data: bytes) -> None:
        """Answer."""
        self._transport.write(_ANSWER)


class Parsed(HttpToolsProtocol):
    """Reads requests and answers them, and keeps the last heartbeat of each node in memory."""

    nodes: Final[dict[str, Heartbeat]] = {}

    def __init__(self, config: Config, state: ServerState) -> None:
        super().__init__(config, state, {})
        self._token = self._body = self.url = b""

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._body = self.url = b""

    def on_header(self, name: bytes, value: bytes) -> None:
        """Look for the token."""
        if name.lower() == b"authorization" and value != self._token:
            self._token = value

    def on_headers_complete(self) -> None:
        """Go on: there is nothing to start."""

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._body += body

    def on_message_complete(self) -> None:
        """Keep the heartbeat, and answer."""
        heartbeat = _DECODER.decode(self._body)
        self.nodes[heartbeat.node_id] = heartbeat
        body = encode_recorded(Recorded("recorded", heartbeat.last_heartbeat, 60))
        self.transport.write(b"%b%d\r\n\r\n%b" % (_HEAD, len(body), body))


async def _application(_scope: Any, _receive: Any, _send: Any) -> None:
    """Never called."""


async def _serve(port: int, context: ssl.SSLContext, make: Callable[[], asyncio.BaseProtocol]) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(make, "127.0.0.1", port, ssl=context, backlog=4096)
    async with server:
        await server.serve_forever()


def _main(port: str, certificate: str, key: str, authority: str, kind: str) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(certificate, key)

    async def run() -> None:
        if kind == "constant":
            await _serve(int(port), context, Constant)
            return
        config = Config(_application, http="httptools", ws="none", lifespan="off")
        config.load()
        state = ServerState()
        await _serve(int(port), context, lambda: Parsed(config, state))

    uvloop.run(run())


if __name__ == "__main__":
    _main(*sys.argv[1:])
