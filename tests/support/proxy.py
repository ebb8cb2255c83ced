"""A slow or silent network between a client and a real server."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from types import TracebackType

_CHUNK = 65_536


class DelayProxy:
    """A TCP proxy on a loopback port, in a thread of its own; use it as a context manager or close it.

    Attributes:
        port: Where clients connect to.
        delay: Seconds that each piece of the server's answers is held back; may be changed at any time.
    """

    def __init__(self, target_port: int, *, delay: float = 0.0) -> None:
        self.delay = delay
        self._target_port = target_port
        self._loop = asyncio.new_event_loop()
        self._passing = asyncio.Event()
        self._passing.set()
        self._links: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="delay-proxy", daemon=True)
        self._thread.start()
        self._server: asyncio.Server = self._call(asyncio.start_server(self._link, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def freeze(self) -> None:
        """Let nothing through in either direction; connections are accepted and stay open."""
        self._loop.call_soon_threadsafe(self._passing.clear)

    def thaw(self) -> None:
        """Let everything through again, what was held back first."""
        self._loop.call_soon_threadsafe(self._passing.set)

    def cut(self) -> None:
        """Close the connections there are now; new ones are accepted."""
        self._call(self._cut())

    def close(self) -> None:
        """Close everything and end the thread."""
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._server.close)
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    async def _cut(self) -> None:
        links = tuple(self._links)
        for link in links:
            link.cancel()
        await asyncio.gather(*links, return_exceptions=True)

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection until both directions have ended, or it is cut."""
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        writers = [writer]
        with contextlib.suppress(OSError, asyncio.CancelledError):
            target_reader, target_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
            writers.append(target_writer)
            await asyncio.gather(
                self._pump(reader, target_writer), self._pump(target_reader, writer, answers=True)
            )
        self._links.discard(task)
        for end in writers:
            end.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool = False
    ) -> None:
        while piece := await reader.read(_CHUNK):
            if answers and self.delay:
                await asyncio.sleep(self.delay)
            await self._passing.wait()
            writer.write(piece)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
