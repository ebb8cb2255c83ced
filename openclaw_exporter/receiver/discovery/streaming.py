"""Server-sent events over one connection: https://html.spec.whatwg.org/multipage/server-sent-events.html."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from typing import TYPE_CHECKING, Any, Final

from openclaw_exporter.errors import WireError
from openclaw_exporter.receiver.discovery.events import OverrunError

if TYPE_CHECKING:
    from collections.abc import Callable

    from openclaw_exporter.receiver.answers import Receive, Send
    from openclaw_exporter.receiver.discovery.events import Filter, Hub, Subscription
    from openclaw_exporter.receiver.protocol import HttpProtocol

_logger = logging.getLogger(__name__)

FIELDS: Final = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    # nginx would otherwise keep events until a buffer of them is full.
    (b"x-accel-buffering", b"no"),
]
KEEP_ALIVE_SECONDS: Final = 15.0
SEND_SECONDS: Final = 30.0
"""How long a reader may take to make room for the next piece."""

_DICE: Final = random.Random()  # noqa: S311 - spreads load, keeps no secret
_PIECE: Final = 100
_RETRY_MS: Final = (2_000, 8_000)
"""After how long a reader comes back: anywhere between, so that all of them do not come at once."""


async def stream(
    hub: Hub,
    wanted: Filter,
    last_id: str,
    protocol: HttpProtocol,
    may_read: Callable[[], None],
    receive: Receive,
    send: Send,
) -> None:
    """Answer with events until the reader goes, is too slow, or the receiver or the connection ends.

    Behind a proxy the connection goes on when its reader may read no more, so that is asked again and again:
    `may_read` raises what it is refused for.
    """
    subscription = hub.subscribe(wanted, last_id)
    protocol.on_shutdown = subscription.stop
    gone = asyncio.create_task(_watch(receive, subscription), name="openclaw-events")
    try:
        await send({"type": "http.response.start", "status": 200, "headers": FIELDS})
        retry = _DICE.randint(*_RETRY_MS)
        await _send(send, b"retry: %d\nid: %s\n\n" % (retry, subscription.place.encode()))
        with contextlib.suppress(WireError):
            while (text := await subscription.read(_PIECE, KEEP_ALIVE_SECONDS)) is not None:
                may_read()
                await _send(send, text)
        await _send(send, b"", more=False)
    except (OverrunError, TimeoutError):
        _logger.info("a reader of events was too slow and has been cut off")
        protocol.transport.abort()
        # The request ends when its connection has.
        await gone
    finally:
        protocol.on_shutdown = None
        subscription.close()
        gone.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await gone


async def _send(send: Send, body: bytes, *, more: bool = True) -> None:
    message: dict[str, Any] = {"type": "http.response.body", "body": body, "more_body": more}
    async with asyncio.timeout(SEND_SECONDS):
        await send(message)


async def _watch(receive: Receive, subscription: Subscription) -> None:
    """End a subscription when its reader goes."""
    # Until then there is the end of a request's body, which is empty.
    while (await receive())["type"] != "http.disconnect":
        pass
    subscription.stop()
