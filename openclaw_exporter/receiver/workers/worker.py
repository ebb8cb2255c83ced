"""A worker process: a `Front` of its own, and the registry at the other end of a channel."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import uvloop
from opentelemetry.metrics import NoOpMeterProvider

from openclaw_exporter.errors import UserError
from openclaw_exporter.receiver.clock import SystemClock
from openclaw_exporter.receiver.entrance import Entrance
from openclaw_exporter.receiver.front import Front
from openclaw_exporter.receiver.garbage import relax
from openclaw_exporter.receiver.key_sources import FetchError
from openclaw_exporter.receiver.metrics import ReceiverMetrics
from openclaw_exporter.receiver.pulse import Pulse
from openclaw_exporter.receiver.quiet import quiet_handshakes
from openclaw_exporter.receiver.shedding import Shedding
from openclaw_exporter.receiver.workers.channel import Channel
from openclaw_exporter.receiver.workers.door import next_passed
from openclaw_exporter.receiver.workers.messages import (
    TO_WORKER,
    Answered,
    Begun,
    Counted,
    Cut,
    Decided,
    Greeting,
    KeysAsked,
    KeysFetched,
    Logged,
    Piece,
    Ready,
    Reload,
    Status,
    Stop,
    unpack_settings,
)
from openclaw_exporter.receiver.workers.reading import RemoteReading
from openclaw_exporter.receiver.workers.recorder import RemoteRecorder

if TYPE_CHECKING:
    from openclaw_exporter.receiver.kept import Kept
    from openclaw_exporter.receiver.settings import ReceiverSettings
    from openclaw_exporter.receiver.workers.messages import ToWorker


_logger = logging.getLogger(__name__)

_EXTRA: tuple[str, ...] = ("condition", "cause")
"""What is told of an episode, see `Episodes`."""


def main(channel: int, passed: int) -> None:
    """Run a worker.

    Args:
        channel: The descriptor of the channel to the registry's process.
        passed: The descriptor over which connections are passed.
    """
    relax()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        status = runner.run(_run(socket.socket(fileno=channel), socket.socket(fileno=passed)))
    sys.exit(status)


async def _run(connected: socket.socket, passed: socket.socket) -> int:
    first: asyncio.Queue[ToWorker] = asyncio.Queue()
    channel = Channel(TO_WORKER, first.put_nowait, _leave)
    await channel.open(connected)
    greeting = await first.get()
    assert isinstance(greeting, Greeting)  # noqa: S101 - what the registry's process says first
    logging.getLogger().handlers[:] = [_Reporter(channel)]
    logging.getLogger().setLevel(greeting.log_level)
    try:
        worker = Worker(unpack_settings(greeting.settings), channel, greeting.kept)
        channel.hand_to(worker.received)
        while not first.empty():
            worker.received(first.get_nowait())
        with quiet_handshakes():
            await worker.run(passed)
    except UserError as error:
        # A file that was good when the receiver started; it is tried again.
        _logger.error("a worker cannot start: %s", error)  # noqa: TRY400 - a user's mistake
        status = 1
    else:
        status = 0
    await channel.close()
    return status


def _leave() -> None:
    """Leave at once: the registry's process has gone, and nothing can be promised any more."""
    os._exit(0)


class Worker:
    """The parts of one worker.

    Args:
        settings: The configuration, its limits this worker's share.
        channel: To the registry's process.
        kept: What to go on with where certificates or keys cannot be read now.
    """

    def __init__(self, settings: ReceiverSettings, channel: Channel, kept: Kept) -> None:
        self._channel = channel
        self._recorder = RemoteRecorder(channel)
        self._reading = RemoteReading(channel)
        self._metrics = ReceiverMetrics(NoOpMeterProvider().get_meter("openclaw_exporter"), "")
        clock = SystemClock()
        limits = settings.limits
        self._shedding = Shedding(clock, max_lag=limits.loop_lag, readmissions=limits.readmissions)
        self._fetches: dict[str, asyncio.Future[KeysFetched]] = {}
        self._front = Front(
            settings,
            clock,
            self._shedding,
            self._metrics,
            self._recorder,
            self._reading.handlers,
            self._fetch,
            kept,
        )
        self._pulse = Pulse(self._tick, self._second)
        self._stopping = asyncio.Event()
        self._entrance: Entrance | None = None

    async def run(self, passed: socket.socket) -> None:
        """Take connections until told to stop."""
        loop = asyncio.get_running_loop()
        # The registry's process hears these for all; one that is told alone makes room for another.
        loop.add_signal_handler(signal.SIGTERM, self._stopping.set)
        loop.add_signal_handler(signal.SIGINT, lambda: None)
        loop.add_signal_handler(signal.SIGHUP, self._front.reload)
        await self._front.open()
        await self._front.start(None)
        passed.setblocking(False)
        listener = self._front.listener
        self._entrance = Entrance(passed, partial(next_passed, passed), listener.take, listener.has_room)
        pulse = asyncio.create_task(self._pulse.run(), name="openclaw-pulse")
        self._tick()
        self._channel.send(Ready())
        await self._stopping.wait()
        await self._entrance.close()
        passed.close()
        await self._front.stop()
        pulse.cancel()
        await self._front.close()
        self._second()

    def received(self, message: ToWorker) -> None:
        """Take a message of the registry's process."""
        if isinstance(message, Decided):
            self._recorder.decided(message)
        elif isinstance(message, Answered | Begun):
            self._reading.answered(message)
        elif isinstance(message, Piece | Cut):
            self._reading.continued(message)
        elif isinstance(message, KeysFetched):
            self._fetches.pop(message.url).set_result(message)
        elif isinstance(message, Reload):
            self._front.reload()
        elif isinstance(message, Stop):
            self._stopping.set()

    async def _fetch(self, url: str) -> bytes:
        """Let the registry's process fetch a key set: once for all workers."""
        if url not in self._fetches:
            self._fetches[url] = asyncio.get_running_loop().create_future()
            self._channel.send(KeysAsked(url))
        fetched = await asyncio.shield(self._fetches[url])
        if fetched.cause:
            raise FetchError(fetched.cause, fetched.error)
        return fetched.document

    def _tick(self) -> None:
        self._front.tick(self._pulse.last_lag)
        entrance = self._entrance
        assert entrance is not None  # noqa: S101 - the pulse begins after it
        if entrance.has_turned_away():
            self._recorder.shed()
        self._channel.send(
            Status(
                self._front.listener.connections + entrance.handshakes,
                entrance.count,
                self._pulse.lag,
                self._recorder.take_shed(),
                dict(self._front.checks()),
                self._shedding.due,
            )
        )

    def _second(self) -> None:
        self._front.second()
        refused, requests = self._metrics.take()
        if refused or requests:
            self._channel.send(Counted(list(refused.items()), list(requests.items())))


class _Reporter(logging.Handler):
    """Lets the registry's process log: one place, one form, one order."""

    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel = channel
        self._formatter = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        """Hand a record over; one that cannot be must not disturb whoever logs."""
        try:
            self._channel.send(self._logged(record))
        except Exception:  # noqa: BLE001 - as every handler of the standard library
            self.handleError(record)

    def _logged(self, record: logging.LogRecord) -> Logged:
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + self._formatter.formatException(record.exc_info)
        named: dict[str, Any] = vars(record)
        extra: dict[str, str] = {name: str(named[name]) for name in _EXTRA if name in named}
        # The name of a file may be no UTF-8.
        text = text.encode(errors="backslashreplace").decode()
        return Logged(record.levelno, record.name, text, extra)
