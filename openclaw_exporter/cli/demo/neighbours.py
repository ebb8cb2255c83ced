"""Simulated neighbours: real publishers with certificates of their own, driven by a few threads.

Some of them fall silent now and then, as a frozen machine does, so that one can watch late → expired →
returned; one goes for good.
"""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from openclaw_exporter.cli.demo.watch import Delivered
from openclaw_exporter.cli.driving import Driver
from openclaw_exporter.client import ClientSettings, Publisher, Report

if TYPE_CHECKING:
    from collections.abc import Sequence

_REGIONS: Final = ("us-east-1", "eu-west-1", "ap-south-1")
_SHARE: Final = 4
"""One neighbour in so many is flaky."""
_CYCLE: Final = 10.0
_SILENCE: Final = 4.0
"""Intervals of silence in each cycle: late after 1.5, expired after 2, and time to see that."""
_FIRST: Final = 2.0
_GONE: Final = 6.0


@dataclass(frozen=True, slots=True)
class Silence:
    """When a neighbour says nothing, in intervals since the start.

    Attributes:
        begins: When its first silence begins; infinite for one that never falls silent.
        lasts: How long each silence is; infinite for one that goes for good.
    """

    begins: float = math.inf
    lasts: float = _SILENCE

    def until(self, at: float) -> float | None:
        """Return when the silence ends that holds at a time; None where none does."""
        if at < self.begins:
            return None
        if math.isinf(self.lasts):
            return math.inf
        cycle, within = divmod(at - self.begins, _CYCLE)
        return self.begins + cycle * _CYCLE + self.lasts if within < self.lasts else None


def silences(count: int) -> list[Silence]:
    """Return the silences of so many neighbours: one in four is flaky, and one of those goes for good.

    Never as many at once as would look like a receiver that hears nothing (55 %, the contract's brake).
    """
    flaky = max(1, count // _SHARE) if count else 0
    plans = [Silence(_FIRST + (2 * index) % 7) for index in range(flaky)]
    if flaky > 1:
        plans[-1] = Silence(_GONE, math.inf)
    return [*plans, *(Silence() for _ in range(count - flaky))]


class Neighbour:
    """One simulated node.

    Args:
        number: Its number, from 1.
        settings: Its publisher's settings.
        silence: When it says nothing.
    """

    def __init__(self, number: int, settings: ClientSettings, silence: Silence) -> None:
        self.silence = silence
        self._workers = 4 * (1 + number % 6)
        self._chance = random.Random(number)  # noqa: S311 - figures of a simulated node
        self._started = time.monotonic()
        gpu = "true" if number % 3 == 0 else "false"
        self._tags = (
            f"region:{_REGIONS[number % len(_REGIONS)]}",
            f"gpu:{gpu}",
            "env:demo",
            "swarm:neighbours",
        )
        self.publisher = Publisher(settings, self._report)

    def _report(self) -> Report:
        busy = self._chance.randrange(self._workers + 1)
        return Report(
            version="0.1.0",
            capacity={"workers": self._workers, "available_slots": self._workers - busy},
            queue_depth={"worker": self._chance.randrange(20)},
            tags=self._tags,
            uptime_seconds=int(time.monotonic() - self._started),
        )


class Neighbours:
    """All neighbours and the threads that drive them.

    Args:
        neighbours: The simulated nodes.
        interval: Seconds between two heartbeats of one.
    """

    def __init__(self, neighbours: Sequence[Neighbour], *, interval: float) -> None:
        self._neighbours = neighbours
        self._interval = interval
        self._driver = Driver(min(8, 1 + len(neighbours) // 10))
        self._began = 0.0

    @property
    def delivered(self) -> Delivered:
        """How all their heartbeats were delivered; those of a neighbour that is silent now do not wait."""
        return sum(map(self._delivered, self._neighbours), Delivered())

    def start(self) -> None:
        """Start the threads; the neighbours' first heartbeats are spread over one interval."""
        self._began = time.monotonic()
        step = self._interval / max(1, len(self._neighbours))
        for index, neighbour in enumerate(self._neighbours):
            self._driver.add(partial(self._turn, neighbour), self._began + index * step)
        self._driver.start()

    def stop(self) -> None:
        """End the threads and close the publishers, as machines that lose their power."""
        self._driver.stop()
        for neighbour in self._neighbours:
            neighbour.publisher.stop(draining=False)

    def _delivered(self, neighbour: Neighbour) -> Delivered:
        stats = neighbour.publisher.stats
        waiting = stats.buffered if self._silent_until(neighbour) is None else 0
        return Delivered(stats.failure, waiting, stats.dropped)

    def _silent_until(self, neighbour: Neighbour) -> float | None:
        return neighbour.silence.until((time.monotonic() - self._began) / self._interval)

    def _turn(self, neighbour: Neighbour) -> float:
        until = self._silent_until(neighbour)
        return neighbour.publisher.tick() if until is None else self._began + until * self._interval
