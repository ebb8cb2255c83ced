"""Telling the processes of a load test to end early, whatever becomes of any of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.connection import Connection


class Stop:
    """Set when the other end of a pipe is closed, or its process is gone.

    An event of `multiprocessing` counts who waits for it: `set` waits for ever for a process that was killed.

    Args:
        pipe: The end to read from.
    """

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def is_set(self) -> bool:
        """Whether it is time to end."""
        return self._pipe.poll()

    def wait(self, seconds: float) -> bool:
        """Wait so long at most; tell whether it is time to end."""
        return self._pipe.poll(seconds)
