"""What a worker's `Front` records heartbeats with: the registry's process."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final

from openclaw_exporter.errors import StoreUnavailableError
from openclaw_exporter.receiver.workers.messages import Submitted

if TYPE_CHECKING:
    from collections.abc import Callable

    from openclaw_exporter.receiver.liveness import Arrival, Outcome
    from openclaw_exporter.receiver.workers.channel import Channel
    from openclaw_exporter.receiver.workers.messages import Decided

_GATHER: Final = 0.002
"""Seconds for which arrivals gather: a message costs as much as some of what is in it."""


class RemoteRecorder:
    """A `Recorder` that submits to the registry's process, many arrivals a message.

    Args:
        channel: To the registry's process.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._arrivals: list[Arrival] = []
        self._waiting: list[Callable[[Outcome | None], None]] = []
        self._under_way: dict[int, list[Callable[[Outcome | None], None]]] = {}
        self._number = 0
        self._shed = False

    def submit(self, arrival: Arrival, done: Callable[[Outcome | None], None]) -> None:
        """Record an arrival; see `Recorder.submit`. It never raises: the registry decides on everything."""
        if not self._arrivals:
            asyncio.get_running_loop().call_later(_GATHER, self._send)
        self._arrivals.append(arrival)
        self._waiting.append(done)

    def record(self, arrival: Arrival) -> asyncio.Future[Outcome]:
        """Record an arrival; see `Recorder.record`."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.submit(arrival, partial(_settle, future))
        return future

    def shed(self) -> None:
        """Note that somebody was turned away."""
        self._shed = True

    def take_shed(self) -> bool:
        """Return whether somebody was turned away since the last call."""
        shed, self._shed = self._shed, False
        return shed

    def decided(self, decided: Decided) -> None:
        """Give those who wait the outcomes of one message."""
        waiting = self._under_way.pop(decided.number)
        for done, outcome in zip(waiting, decided.outcomes, strict=True):
            done(outcome)

    def _send(self) -> None:
        self._number += 1
        self._under_way[self._number], self._waiting = self._waiting, []
        arrivals, self._arrivals = self._arrivals, []
        self._channel.send(Submitted(self._number, arrivals))


def _settle(future: asyncio.Future[Outcome], outcome: Outcome | None) -> None:
    if future.done():
        return
    if outcome is None:
        future.set_exception(StoreUnavailableError("the registry's store cannot be reached now"))
    else:
        future.set_result(outcome)
