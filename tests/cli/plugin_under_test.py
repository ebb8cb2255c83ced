"""A plugin of the tests' own, brought in by an entry point that the tests write."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from openclaw_exporter.plugin import Capacity, Measurement, QueueDepth, Tag, Uptime, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openclaw_exporter.plugin import Observation


@dataclass(frozen=True)
class Options:
    """The table `[plugins.probe]`.

    Attributes:
        fault: What is to go wrong.
    """

    fault: str = ""


class Probe:
    name = "probe"
    deadline = 0.3
    interval = 1.0

    def __init__(self, options: Options) -> None:
        self._fault = options.fault

    def collect(self) -> Iterator[Observation]:
        if self._fault == "raise":
            raise OSError("the disk is gone")
        if self._fault == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if self._fault == "hang":
            time.sleep(2)
        yield Capacity("workers", 4)
        yield QueueDepth("worker", -1 if self._fault == "garbage" else 7, oldest_age=1.5)
        yield Uptime(12.0)
        yield Tag("gpu", "true")
        yield Measurement("probe.temperature", 21.5, "Cel", attributes={"place": "rack"})


@hookimpl
def openclaw_collectors(options: Options) -> list[Probe]:
    return [Probe(options)]
