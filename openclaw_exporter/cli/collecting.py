"""Running collectors once, each on a thread of its own and no longer than its deadline."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from openclaw_exporter.plugin.guard import Checked, Guard, Rejection
from openclaw_exporter.plugin.observations import Observation
from openclaw_exporter.plugin.redaction import describe_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openclaw_exporter.plugin.host import LoadedCollector


@dataclass(frozen=True, slots=True)
class Collected:
    """What one collector yielded.

    Attributes:
        plugin: Its plugin's name.
        name: Its own name.
        seconds: How long it took.
        observations: What passed the host's guard.
        rejected: What did not.
        error: Why there is nothing; None after a good run.
    """

    plugin: str
    name: str
    seconds: float
    observations: tuple[Observation, ...] = ()
    rejected: tuple[Rejection, ...] = ()
    error: str | None = None

    @property
    def failed(self) -> bool:
        """Whether it raised, took too long, or yielded something that was refused."""
        return self.error is not None or bool(self.rejected)


class _Run:
    """One collector at work on a daemon thread, so that one that hangs cannot hold the exit."""

    def __init__(self, loaded: LoadedCollector) -> None:
        self._loaded = loaded
        self._outcome: Checked | str | None = None
        self._started = time.monotonic()
        self._seconds = 0.0
        self._thread = threading.Thread(target=self._work, name=f"collect-{loaded.name}", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        collector = self._loaded.collector
        try:
            outcome: Checked | str = Guard(self._loaded.series_budget).check(collector.collect())
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a plugin does is told as its error
            outcome = describe_error(error)
        self._seconds = time.monotonic() - self._started
        self._outcome = outcome
        close = getattr(collector, "close", None)
        if callable(close):
            with contextlib.suppress(Exception):
                close()

    def result(self) -> Collected:
        deadline = self._loaded.deadline
        self._thread.join(max(0.0, self._started + deadline - time.monotonic()))
        plugin, name, outcome = self._loaded.plugin, self._loaded.name, self._outcome
        if outcome is None:
            waited = time.monotonic() - self._started
            return Collected(plugin, name, waited, error=f"not done within its deadline of {deadline:g} s")
        if isinstance(outcome, str):
            return Collected(plugin, name, self._seconds, error=outcome)
        return Collected(plugin, name, self._seconds, outcome.observations, outcome.rejected)


def collect_once(collectors: Sequence[LoadedCollector]) -> list[Collected]:
    """Run all collectors side by side and return what each yielded, in their order."""
    runs = [_Run(loaded) for loaded in collectors]
    return [run.result() for run in runs]
