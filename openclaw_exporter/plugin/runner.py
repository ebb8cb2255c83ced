"""One collector on a thread of its own, run by run, as the agent does it; for tests and commands."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from openclaw_exporter.plugin.guard import Checked, Guard
from openclaw_exporter.plugin.host_keys import Defaults
from openclaw_exporter.plugin.redaction import describe_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from openclaw_exporter.plugin.guard import Rejection
    from openclaw_exporter.plugin.hooks import Collector
    from openclaw_exporter.plugin.observations import Observation

_NOTHING: Final = Checked((), ())


@dataclass(frozen=True, slots=True)
class Run:
    """The outcome of one collection, or of closing the collector.

    Attributes:
        seconds: How long it took, or how long it was waited for.
        cpu_seconds: CPU time of the collector's thread.
        checked: What passed the host's guard and what did not; empty after a failure.
        error: What was raised, in one line; None where nothing was.
        error_type: The name of the exception's class; empty where there is none.
        overdue: Whether it did not end within the deadline.
    """

    seconds: float
    cpu_seconds: float = 0.0
    checked: Checked = _NOTHING
    error: str | None = None
    error_type: str = ""
    overdue: bool = False

    @property
    def observations(self) -> tuple[Observation, ...]:
        """What passed the guard."""
        return self.checked.observations

    @property
    def rejected(self) -> tuple[Rejection, ...]:
        """What did not."""
        return self.checked.rejected

    @property
    def failed(self) -> bool:
        """Whether it raised or did not end in time; nothing is known then."""
        return self.overdue or self.error is not None


class Runner:
    """Runs one collector on a daemon thread, always the same, so that one that hangs cannot hold the exit.

    Not for several threads at once.

    Args:
        collector: The collector.
        deadline: Seconds that one run, or `close()`, may take.
        series_budget: Different series that it may export over the runner's life.

    Attributes:
        overdue: Whether the last run did not end within its deadline.
    """

    def __init__(self, collector: Collector, *, deadline: float, series_budget: int) -> None:
        self.collector = collector
        self.deadline = deadline
        self.series_budget = series_budget
        self.guard = Guard(series_budget)
        self.overdue = False
        self._number = 0
        self._tasks: SimpleQueue[tuple[int, Callable[[], Checked] | None]] = SimpleQueue()
        self._outcomes: SimpleQueue[tuple[int, Run]] = SimpleQueue()
        name = f"collect-{getattr(collector, 'name', '')}"
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    @property
    def hangs(self) -> bool:
        """Whether the thread is still there after `close`, because the collector holds it."""
        return self._thread.is_alive()

    def run(self) -> Run:
        """Collect once; at its deadline the run is given up, and the next one waits for its end."""
        return self._ask(self._collect)

    def close(self) -> Run:
        """Close the collector on its own thread, where it can be closed, and end the thread.

        One that hangs is closed when it ends, and not waited for.
        """
        if self.overdue:
            self._number += 1
            self._tasks.put((self._number, self._close))
            self._tasks.put((0, None))
            return Run(0.0, overdue=True)
        outcome = self._ask(self._close)
        self._tasks.put((0, None))
        if not outcome.overdue:
            self._thread.join(self.deadline)
        return outcome

    def _ask(self, task: Callable[[], Checked]) -> Run:
        started = time.monotonic()
        self._number += 1
        self._tasks.put((self._number, task))
        while True:
            try:
                left = max(0.0, started + self.deadline - time.monotonic())
                number, outcome = self._outcomes.get(timeout=left)
            except Empty:
                self.overdue = True
                return Run(time.monotonic() - started, overdue=True)
            if number == self._number:
                self.overdue = False
                return outcome

    def _work(self) -> None:
        while True:
            number, task = self._tasks.get()
            if task is None:
                return
            if number == self._number:
                self._outcomes.put((number, _timed(task)))

    def _collect(self) -> Checked:
        return self.guard.check(self.collector.collect())

    def _close(self) -> Checked:
        close = getattr(self.collector, "close", None)
        if callable(close):
            close()
        return _NOTHING


def runner_for(collector: Collector, *, deadline: float | None = None, budget: int | None = None) -> Runner:
    """Return a runner with the limits that are given, or that the collector's class states, or the host's."""
    defaults = Defaults()

    def first(given: Any, key: str) -> Any:
        return next(
            value
            for value in (given, getattr(collector, key, None), getattr(defaults, key))
            if value is not None
        )

    return Runner(
        collector, deadline=first(deadline, "deadline"), series_budget=first(budget, "series_budget")
    )


def _timed(task: Callable[[], Checked]) -> Run:
    started, cpu = time.monotonic(), time.thread_time()
    try:
        checked, error = task(), None
    except BaseException as raised:  # noqa: BLE001 - a plugin may raise anything, SystemExit too
        checked, error = _NOTHING, raised
    return Run(
        seconds=time.monotonic() - started,
        cpu_seconds=time.thread_time() - cpu,
        checked=checked,
        error=describe_error(error) if error is not None else None,
        error_type=type(error).__name__ if error is not None else "",
    )
