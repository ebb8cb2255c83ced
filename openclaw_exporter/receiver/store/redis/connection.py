"""One connection to one server, spoken to in batches: what is written at once is answered at once.

The protocol is the business of hiredis, Redis' own parser. A batch costs one write, and one wake-up of
whoever waits, however many commands it has.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import hiredis

from openclaw_exporter.errors import OpenClawError

if TYPE_CHECKING:
    from collections.abc import Sequence

_MORE: Final = object()
Word = bytes | str | int
"""A part of a command."""


class AnswerError(OpenClawError):
    """An error that the server answered to one command.

    Attributes:
        code: Its first word, such as `WRONGTYPE`.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code = text.partition(" ")[0]


class UnreachableError(OpenClawError):
    """A server cannot be reached or spoken to; nothing was executed.

    Attributes:
        refused: Whether it answers, but wants other credentials or another client.
    """

    def __init__(self, text: str, *, refused: bool = False) -> None:
        super().__init__(text)
        self.refused = refused


class LostError(OpenClawError):
    """A connection ended while answers were awaited: what was sent may have been executed or not.

    Attributes:
        hangs: Whether it was given up because nothing came.
    """

    def __init__(self, text: str, *, hangs: bool = False) -> None:
        super().__init__(text)
        self.hangs = hangs


class Greeting(NamedTuple):
    """What a server says of itself.

    Attributes:
        server: `redis` or `valkey`.
        version: Such as (7, 0, 15).
        mode: `standalone`, `cluster` or `sentinel`.
        is_master: Whether it takes writes.
    """

    server: str
    version: tuple[int, ...]
    mode: str
    is_master: bool


def packed(command: Sequence[Word]) -> bytes:
    """Return a command as RESP has it."""
    whole: bytes = hiredis.pack_command(tuple(command))  # type: ignore[arg-type] # its stub knows one word only
    return whole


class _Batch:
    __slots__ = ("answers", "count", "future")

    def __init__(self, count: int, future: asyncio.Future[list[Any]]) -> None:
        self.count = count
        self.answers: list[Any] = []
        self.future = future


class Connection(asyncio.Protocol):
    """See the module. Made by `opening.connect`.

    Args:
        place: The server's address, for error texts.
        patience: Seconds without an answer, where one is due, after which the connection is given up.
    """

    greeting: Greeting

    def __init__(self, place: str, patience: float) -> None:
        self._place = place
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(replyError=AnswerError, notEnoughData=_MORE)
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[_Batch] = deque()
        self._heard_at = 0.0
        self._watch: asyncio.TimerHandle | None = None
        self._end: LostError | None = None

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._transport is None or self._transport.is_closing()

    async def ask(self, batch: bytes, count: int) -> list[Any]:
        """Send packed commands and return their answers, an `AnswerError` where the server answered one.

        Args:
            batch: The commands.
            count: How many they are.

        Raises:
            UnreachableError: The connection has ended; nothing was sent.
            LostError: It ended before all answers were there.
        """
        if self._transport is None or self._transport.is_closing():
            raise UnreachableError(str(self._end or f"{self._place}: the connection is closed"))
        waiting = _Batch(count, self._loop.create_future())
        if not self._waiting:
            self._heard_at = self._loop.time()
        self._waiting.append(waiting)
        self._transport.write(batch)
        if self._watch is None:
            self._watch = self._loop.call_later(self._patience, self._look)
        return await waiting.future

    def close(self) -> None:
        """Close it; whoever waits gets a `LostError`."""
        self._give_up(f"{self._place}: the connection was closed")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Take what the server says."""
        reader, waiting = self._reader, self._waiting
        try:
            reader.feed(data)
            answer = reader.gets()
            while answer is not _MORE:
                if not waiting:
                    self._give_up(f"{self._place}: {answer}")
                    return
                batch = waiting[0]
                batch.answers.append(answer)
                if len(batch.answers) == batch.count:
                    waiting.popleft()
                    if not batch.future.done():
                        batch.future.set_result(batch.answers)
                answer = reader.gets()
        except hiredis.HiredisError:
            self._give_up(f"{self._place}: does not speak Redis' protocol")
            return
        self._heard_at = self._loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits."""
        reason = f": {exc}" if exc else ""
        self._give_up(f"{self._place}: the connection was lost{reason}")

    def _look(self) -> None:
        """Give up where nothing has come for too long."""
        self._watch = None
        if not self._waiting:
            return
        left = self._heard_at + self._patience - self._loop.time()
        if left <= 0:
            self._give_up(f"{self._place}: no answer for {self._patience:g} s", hangs=True)
        else:
            self._watch = self._loop.call_later(left, self._look)

    def _give_up(self, reason: str, *, hangs: bool = False) -> None:
        if self._end is None:
            self._end = LostError(reason, hangs=hangs)
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if self._transport is not None:
            self._transport.abort()
        waiting, self._waiting = self._waiting, deque()
        for batch in waiting:
            if not batch.future.done():
                batch.future.set_exception(LostError(str(self._end), hangs=self._end.hangs))
