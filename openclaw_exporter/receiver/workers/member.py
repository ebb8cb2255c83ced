"""One worker process, as the registry's process sees it: started, spoken to, ended."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from openclaw_exporter.receiver.workers.channel import Channel
from openclaw_exporter.receiver.workers.messages import (
    FROM_WORKER,
    Greeting,
    Ready,
    Status,
    Stop,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from openclaw_exporter.receiver.workers.messages import FromWorker, Message

_LEAVE_SECONDS: Final = 10.0
"""How long a process may take to end once it has closed its channel; it has nothing left to lose."""

_COMMAND: Final = (sys.executable, "-P", "-m", "openclaw_exporter.receiver.workers")


class Member:
    """One process, from its start to its end.

    Args:
        greeting: The first message to it.
        received: Called with it and what it says, but for what concerns itself alone.
        ended: Called once when it has ended.

    Attributes:
        ready: Whether it takes connections.
        status: What it last told of itself.
        silence: Ticks since it last said anything.
        started_at: Seconds of a monotonic clock.
    """

    def __init__(
        self,
        greeting: Greeting,
        received: Callable[[Member, FromWorker], None],
        ended: Callable[[Member], None],
    ) -> None:
        self._greeting = greeting
        self._received = received
        self._ended = ended
        self._channel = Channel(FROM_WORKER, self._hear, self._lost)
        self._passed = 0
        self._burying: asyncio.Task[None] | None = None
        self.ready = False
        self.status = Status(0, 0, 0.0, shedding=False, checks={}, due=0.0)
        self.silence = 0
        self.started_at = time.monotonic()
        self.gone = asyncio.Event()

    async def start(self) -> None:
        """Start the process.

        Raises:
            OSError: It cannot be started.
        """
        ours, theirs = socket.socketpair()
        self._passing, passed = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._passing.setblocking(False)
        with theirs, passed:
            descriptors = (theirs.fileno(), passed.fileno())
            try:
                self._process = subprocess.Popen(  # noqa: ASYNC220, S603 - a fork; our own module
                    (*_COMMAND, *map(str, descriptors)), stdin=subprocess.DEVNULL, pass_fds=descriptors
                )
            except BaseException:
                ours.close()
                self._passing.close()
                raise
        await self._channel.open(ours)
        self.send(self._greeting)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def exit_status(self) -> int | None:
        """How it ended, as `subprocess` says it; None: it has not."""
        return self._process.returncode

    @property
    def load(self) -> int:
        """How many connections it has, with those that are on their way to it."""
        return self.status.connections + self._passed - self.status.passed

    @property
    def is_of_use(self) -> bool:
        """Whether it has all that it needs to answer nodes."""
        return all(self.status.checks.values())

    def send(self, message: Message) -> None:
        """Send it a message."""
        self._channel.send(message)

    def pass_on(self, connection: socket.socket) -> bool:
        """Pass it a connection; False: it has as many to take as fit."""
        try:
            socket.send_fds(self._passing, [b"\0"], [connection.fileno()])
        except OSError:
            return False
        self._passed += 1
        return True

    def stop(self) -> None:
        """Ask it to let requests end and leave."""
        self.ready = False
        self.send(Stop())

    def kill(self) -> None:
        """End it at once."""
        self.ready = False
        self._process.kill()

    def _hear(self, message: FromWorker) -> None:
        self.silence = 0
        if isinstance(message, Ready):
            self.ready = True
        elif isinstance(message, Status):
            self.status = message
        self._received(self, message)

    def _lost(self) -> None:
        self.ready = False
        self._burying = asyncio.create_task(self._bury(), name="openclaw-worker-end")

    async def _bury(self) -> None:
        # It leaves by itself where it closed the channel; where it did not, it has nobody left to talk to.
        with suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(self._process.wait, _LEAVE_SECONDS)
        if self._process.returncode is None:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
        self._passing.close()
        self.gone.set()
        self._ended(self)
