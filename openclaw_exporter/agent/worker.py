"""One collector on its own thread: when it runs, what became of it, and what is said about that."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

from openclaw_exporter.agent.snapshot import CollectorState
from openclaw_exporter.plugin.redaction import describe_error

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from openclaw_exporter.agent.snapshot import Board
    from openclaw_exporter.agent.sources import Source
    from openclaw_exporter.logs import Episodes
    from openclaw_exporter.plugin.guard import Checked, Rejection
    from openclaw_exporter.plugin.host import LoadedCollector

DEADLINE: Final = "deadline"
MAX_ERROR_TYPES: Final = 20
OTHER: Final = "_OTHER"
"""The `error.type` of the semantic conventions for what has no type of its own."""

_CONSEQUENCES: Final = frozenset({"restarting", "hung"})
"""Failures that only follow from an earlier one: counted, but no news."""

_SHOWN: Final = 3
_PARTIAL: Final = "partial"


class Worker:
    """Runs one collector, at its interval, on a daemon thread.

    The thread of the `Collection` calls `attend` when it is time; the collector itself runs on the worker's
    own thread. A run that is not done at its deadline is given up at that moment: its observations leave the
    snapshot, what it yields later is thrown away, and it is skipped until it ends.

    Args:
        loaded: The collector.
        source: What runs it.
        board: Where results go.
        episodes: Where lasting conditions are logged.
        on_run: Called with the collector's key and the duration in seconds of each run that ended.
    """

    def __init__(
        self,
        loaded: LoadedCollector,
        source: Source,
        board: Board,
        episodes: Episodes,
        on_run: Callable[[LoadedCollector, float], None],
    ) -> None:
        self.loaded = loaded
        self.first_result = threading.Event()
        self._source = source
        self._board = board
        self._episodes = episodes
        self._on_run = on_run
        self._label = f"collector {loaded.plugin}/{loaded.name}"
        self._fresh_for = max(2 * loaded.interval, loaded.interval + loaded.deadline)
        self._lock = threading.Lock()
        self._go = threading.Semaphore(0)
        self._due = self._grid = time.monotonic()
        self._started: float | None = None
        self._overdue = False
        self._closing = False
        self._errors: Counter[str] = Counter()
        self._last_success: float | None = None
        self._thread = threading.Thread(
            target=self._work, name=f"collect-{loaded.plugin}-{loaded.name}", daemon=True
        )

    @property
    def running(self) -> bool:
        """Whether a run is going on now."""
        return self._started is not None

    @property
    def present(self) -> bool:
        """Whether its thread goes on."""
        return self._thread.is_alive()

    def start(self, *, due: float, grid: float) -> None:
        """Start the thread.

        Args:
            due: When to collect first, monotonic seconds.
            grid: Monotonic seconds; all later collections are due whole intervals after it.
        """
        self._due, self._grid = due, grid
        self._thread.start()

    def attend(self, now: float) -> float:
        """Begin a run that is due, give up one that is overdue, and return when to come again."""
        overdue = False
        with self._lock:
            if self._started is not None:
                deadline = self._started + self.loaded.deadline
                overdue = now >= deadline and not self._overdue
                self._overdue = self._overdue or overdue
                self._skip(now)
                next_time = self._due if self._overdue else min(deadline, self._due)
            elif now >= self._due:
                self._started = now
                self._skip(now)
                self._go.release()
                next_time = min(now + self.loaded.deadline, self._due)
            else:
                next_time = self._due
        if overdue:
            text = f"did not end within its deadline of {self.loaded.deadline:g} s"
            self._failed(DEADLINE, text)
        return next_time

    def cancel(self) -> None:
        """End the thread after its run, and the run where that is possible. Never blocks."""
        self._closing = True
        self._source.cancel()
        self._go.release()

    def join(self, timeout: float) -> None:
        """Wait for the thread a bounded time."""
        self._thread.join(timeout)

    def _skip(self, now: float) -> None:
        """Move a due time that has come to the next one, past every run that was missed.

        From the first collection, which comes at any time, that is half an interval to one and a half.
        """
        if self._due <= now:
            interval = self.loaded.interval
            self._due = self._grid + (math.floor((now - self._grid) / interval + 0.5) + 1) * interval

    def _work(self) -> None:
        while True:
            self._go.acquire()
            if self._closing:
                self._started = None
                break
            try:
                self._run()
            except Exception as error:  # noqa: BLE001 - our own fault, and the next run may be better
                text = f"{self._label}: its result could not be taken ({describe_error(error)})"
                self._episodes.begin(f"{self._label} result", type(error).__name__, text)
        try:
            self._source.close()
        except BaseException as error:  # noqa: BLE001 - whatever a plugin raises, its thread ends here
            self._episodes.begin(f"{self._label} close", "close", f"{self._label}: {describe_error(error)}")

    def _run(self) -> None:
        began = time.monotonic()
        checked: Checked | None = None
        failure: tuple[str, str] | None = None
        try:
            checked = self._source.run()
        except BaseException as error:  # noqa: BLE001 - a plugin may raise anything, SystemExit too
            # Its words are the plugin's own code as well: its deadline is not over yet.
            failure = _words_of(error)
        self._on_run(self.loaded, time.monotonic() - began)
        with self._lock:
            given_up, self._started, self._overdue = self._overdue, None, False
        if given_up or self._closing:
            return
        if checked is not None:
            self._ended(checked)
        elif failure is not None:
            self._failed(*failure)

    def _ended(self, checked: Checked) -> None:
        for rejection in checked.rejected:
            self._count(rejection.reason)
        now = time.time()
        healthy = not checked.rejected
        if healthy:
            self._last_success = now
        refused = self._board.put(
            self._state(
                healthy=healthy,
                observations=checked.observations,
                taken_at=now,
                fresh_until=time.monotonic() + self._fresh_for,
                error_type=checked.rejected[0].reason if checked.rejected else None,
            )
        )
        self.first_result.set()
        self._episodes.end(self._label, f"{self._label} collects again")
        both = (*checked.rejected, *refused)
        parts = [rejection for rejection in both if rejection.reason == _PARTIAL]
        self._tell("unread", "could not read everything", parts)
        self._tell("refused", "yields what is refused", [item for item in both if item not in parts])

    def _failed(self, error_type: str, text: str) -> None:
        counted = self._count(error_type)
        self._board.put(self._state(healthy=False, error_type=counted))
        self.first_result.set()
        if error_type in _CONSEQUENCES and self._episodes.holds(self._label):
            return
        self._episodes.begin(self._label, counted, f"{self._label} failed: {text}")

    def _tell(self, what: str, text: str, items: Sequence[Rejection]) -> None:
        condition = f"{self._label} {what}"
        if not items:
            self._episodes.end(condition, f"{self._label}: what it yields is whole again")
            return
        cause = ", ".join(sorted({item.reason for item in items}))
        shown = "; ".join(item.detail for item in items[:_SHOWN])
        more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
        self._episodes.begin(condition, cause, f"{self._label} {text}: {shown}{more}")

    def _count(self, error_type: str) -> str:
        """Count an error, and return the type that it was counted under: there are only so many."""
        if error_type not in self._errors and len(self._errors) >= MAX_ERROR_TYPES:
            error_type = OTHER
        self._errors[error_type] += 1
        return error_type

    def _state(self, **known: object) -> CollectorState:
        cost = self._source.cost()
        return CollectorState(
            plugin=self.loaded.plugin,
            name=self.loaded.name,
            last_success=self._last_success,
            errors=dict(self._errors),
            cpu_seconds=cost.cpu_seconds if cost else None,
            memory_bytes=cost.memory_bytes if cost else None,
            series_budget=self.loaded.series_budget,
            **known,  # type: ignore[arg-type] # the two callers' literal keywords
        )


def _words_of(error: BaseException) -> tuple[str, str]:
    """Return the type and the text of what a plugin raised; its class' name where they cannot be had."""
    name = type(error).__name__
    try:
        error_type = str(getattr(error, "error_type", None) or name)
    except BaseException:  # noqa: BLE001 - the plugin's own code, as where it was raised
        error_type = name
    return error_type, describe_error(error)
