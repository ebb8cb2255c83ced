"""One thread that does blocking work in order, for an event loop that waits for each result."""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

T = TypeVar("T")

_Job = tuple["Callable[[], Any]", "asyncio.Future[Any]"]


class Writer:
    """A daemon thread with a queue of work.

    Args:
        loop: The event loop in which the results are awaited.
        name: The thread's name.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str) -> None:
        self._loop = loop
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Do some work after all that was submitted before; the future has its result or exception."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put((work, future))
        return future

    async def stop(self) -> None:
        """End the thread after all that was submitted."""
        stopped = self.submit(lambda: None)
        self._jobs.put(None)
        await stopped
        self._thread.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            work, future = job
            try:
                result, error = work(), None
            except Exception as raised:  # noqa: BLE001 - whoever awaits the future judges it
                result, error = None, raised
            self._loop.call_soon_threadsafe(_deliver, future, result, error)
            # The next job may be long in coming, and would keep this one's objects for as long.
            del job, work, future, result, error


def _deliver(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
