"""Answers what a worker's readers ask, in the registry's process."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from openclaw_exporter.errors import StoreUnavailableError, WireError
from openclaw_exporter.receiver.answers import Answer, Stream, internal_error, problem_answer
from openclaw_exporter.receiver.discovery.reading import MAY_READ_KEY
from openclaw_exporter.receiver.protocol import PROTOCOL_KEY
from openclaw_exporter.receiver.workers.messages import Answered, Begun, Cut, Piece

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from openclaw_exporter.receiver.answers import Handlers
    from openclaw_exporter.receiver.workers.messages import Asked, Left, Message, Taken

_logger = logging.getLogger(__name__)


class Desk:
    """The questions of one worker.

    Args:
        handlers: What answers them.
        send: Sends to the worker.
    """

    def __init__(self, handlers: Handlers, send: Callable[[Message], None]) -> None:
        self._handlers = handlers
        self._send = send
        self._exchanges: dict[int, Exchange] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def asked(self, asked: Asked) -> None:
        """Answer a question."""
        task = asyncio.create_task(self._answer(asked), name="openclaw-asked")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def taken(self, taken: Taken) -> None:
        """Note that a piece has gone out."""
        if (exchange := self._exchanges.get(taken.number)) is not None:
            exchange.taken.set()

    def left(self, left: Left) -> None:
        """Note that whoever asked wants no more."""
        if (exchange := self._exchanges.get(left.number)) is not None:
            exchange.leave(gone=left.gone)

    def close(self) -> None:
        """The worker has gone, and all who asked with it."""
        for exchange in list(self._exchanges.values()):
            exchange.leave(gone=True)

    async def _answer(self, asked: Asked) -> None:
        exchange = self._exchanges[asked.number] = Exchange(asked.number, self._send)
        try:
            answer = await self._handle(asked, exchange)
            if isinstance(answer, Stream):
                await answer.run(exchange.receive, exchange.send)
            else:
                self._send(Answered(asked.number, answer.status, answer.fields, answer.body, answer.error))
        finally:
            del self._exchanges[asked.number]

    async def _handle(self, asked: Asked, exchange: Exchange) -> Answer | Stream:
        scope: dict[str, Any] = {
            "type": "http",
            "method": asked.method,
            "query_string": asked.query,
            "headers": asked.fields,
            PROTOCOL_KEY: exchange,
            # The worker asks that, which knows who it is.
            MAY_READ_KEY: _may_read,
        }
        try:
            return await self._handlers[asked.template](scope, *asked.arguments)
        except (WireError, StoreUnavailableError) as error:
            return problem_answer(error)
        except Exception:
            _logger.exception("a request to %s failed", asked.template)
            return internal_error()


class Exchange:
    """One answer that comes in pieces: ASGI's `receive` and `send`, and what streaming asks of a connection.

    Args:
        number: The question's.
        send: Sends to the worker.

    Attributes:
        taken: Set when the last piece has gone out.
        on_shutdown: Told when the answer is to be ended.
    """

    def __init__(self, number: int, send: Callable[[Message], None]) -> None:
        self.taken = asyncio.Event()
        self.on_shutdown: Callable[[], None] | None = None
        self._number = number
        self._tell = send
        self._gone = asyncio.Event()

    @property
    def transport(self) -> Exchange:
        """What can be aborted."""
        return self

    def abort(self) -> None:
        """End the connection of whoever asked at once."""
        self._tell(Cut(self._number))

    def leave(self, *, gone: bool) -> None:
        """Note that whoever asked wants no more."""
        if gone:
            self._gone.set()
            self.taken.set()
        if self.on_shutdown is not None:
            self.on_shutdown()

    async def receive(self) -> MutableMapping[str, Any]:
        """Wait until whoever asked has gone."""
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """Send the head, or a piece; that takes until it has gone out."""
        if message["type"] == "http.response.start":
            self._tell(Begun(self._number, message["status"], list(message["headers"])))
            return
        self.taken.clear()
        self._tell(Piece(self._number, message["body"], message.get("more_body", False)))
        if not self._gone.is_set():
            await self.taken.wait()


def _may_read() -> None:
    """Let everybody read."""
