"""How a worker answers readers: it asks the registry's process, which is the only one that knows."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

from openclaw_exporter.errors import WireError
from openclaw_exporter.receiver.answers import Answer, Stream
from openclaw_exporter.receiver.discovery.operations import BY_PATH
from openclaw_exporter.receiver.discovery.reading import MAY_READ_KEY
from openclaw_exporter.receiver.protocol import PROTOCOL_KEY
from openclaw_exporter.receiver.publishing import AVAILABILITY
from openclaw_exporter.receiver.workers.messages import Answered, Asked, Begun, Cut, Left, Piece, Taken

if TYPE_CHECKING:
    from collections.abc import Callable

    from openclaw_exporter.receiver.answers import Handlers, Receive, Scope, Send
    from openclaw_exporter.receiver.protocol import HttpProtocol
    from openclaw_exporter.receiver.workers.channel import Channel


class RemoteReading:
    """Everything that reads, by way of the registry's process; who may read is known before.

    Args:
        channel: To the registry's process.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._number = 0
        self._answers: dict[int, asyncio.Future[Answered | Begun]] = {}
        self._streams: dict[int, asyncio.Queue[Piece | Cut]] = {}
        self._aborts: dict[int, Callable[[], None]] = {}
        self.handlers: Handlers = {path: partial(self._ask, path) for path in BY_PATH if path != AVAILABILITY}

    def answered(self, answer: Answered | Begun) -> None:
        """Take an answer, or its beginning."""
        if isinstance(answer, Begun):
            self._streams[answer.number] = asyncio.Queue()
        future = self._answers.pop(answer.number)
        if not future.done():
            future.set_result(answer)

    def continued(self, part: Piece | Cut) -> None:
        """Take a piece of an answer, or its abrupt end; one that nobody waits for any more goes nowhere."""
        if part.number in self._streams:
            self._streams[part.number].put_nowait(part)
        if isinstance(part, Cut) and part.number in self._aborts:
            # At once: a reader that is cut off for not reading keeps the piece before it waiting for ever.
            self._aborts[part.number]()

    async def _ask(self, template: str, scope: Scope, *arguments: str) -> Answer | Stream:
        self._number += 1
        number = self._number
        future: asyncio.Future[Answered | Begun] = asyncio.get_running_loop().create_future()
        self._answers[number] = future
        query, fields = scope["query_string"], list(scope["headers"])
        self._channel.send(Asked(number, template, arguments, scope["method"], query, fields))
        answer = await future
        if isinstance(answer, Answered):
            return Answer(answer.status, answer.fields, answer.body, answer.error)
        return Stream(partial(self._stream, answer, scope[PROTOCOL_KEY], scope[MAY_READ_KEY]))

    async def _stream(
        self,
        begun: Begun,
        protocol: HttpProtocol,
        may_read: Callable[[], None],
        receive: Receive,
        send: Send,
    ) -> None:
        number = begun.number
        leave = partial(self._leave, number)
        protocol.on_shutdown = partial(leave, gone=False)
        self._aborts[number] = protocol.transport.abort
        gone = asyncio.create_task(_watch(receive, partial(leave, gone=True)), name="openclaw-relayed")
        try:
            await send({"type": "http.response.start", "status": begun.status, "headers": begun.fields})
            await self._carry(number, protocol, may_read, send)
        finally:
            protocol.on_shutdown = None
            del self._streams[number], self._aborts[number]
            # Whatever ended it, the other side must not wait for the reader any more.
            leave(gone=True)
            gone.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await gone

    async def _carry(
        self, number: int, protocol: HttpProtocol, may_read: Callable[[], None], send: Send
    ) -> None:
        """Carry the pieces of an answer to whoever asked, for as long as they may read."""
        allowed = True
        while True:
            part = await self._streams[number].get()
            if isinstance(part, Cut):
                protocol.transport.abort()
                return
            if allowed and part.more:
                try:
                    may_read()
                except WireError:
                    # They may no more; what is under way is ended in order.
                    allowed = False
                    self._leave(number, gone=False)
            if allowed or not part.more:
                message: dict[str, Any] = {"type": "http.response.body", "body": part.body}
                await send(message | {"more_body": part.more})
            self._channel.send(Taken(number))
            if not part.more:
                return

    def _leave(self, number: int, *, gone: bool) -> None:
        self._channel.send(Left(number, gone))


async def _watch(receive: Receive, gone: Callable[[], None]) -> None:
    """Tell when whoever asked has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
    gone()
