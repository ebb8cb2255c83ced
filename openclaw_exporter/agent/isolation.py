"""A collector in a process of its own: supervised, limited, ended at its deadline and started again."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Final

from openclaw_exporter.agent.pipe import ChildError, Collected, Failed, Ready, Start
from openclaw_exporter.agent.sources import Cost
from openclaw_exporter.plugin.guard import Checked, Rejection

if TYPE_CHECKING:
    from openclaw_exporter.agent.process import Child
    from openclaw_exporter.agent.settings import ProcessSettings
    from openclaw_exporter.plugin.guard import Guard
    from openclaw_exporter.plugin.host import LoadedCollector

_FIRST_BACKOFF: Final = 1.0
_NEVER_KILLED: Final = frozenset({"gpu"})
"""Plugins whose hung process is left behind: SIGKILL in the middle of a driver's call can freeze a GPU."""


def may_be_killed(loaded: LoadedCollector) -> bool:
    """Whether a hung process of this collector may be ended by SIGKILL.

    A collector says `abandon_when_hung = True` where it may not; the bundled GPU plugin never may.
    """
    return loaded.plugin not in _NEVER_KILLED and not getattr(loaded.collector, "abandon_when_hung", False)


class ChildSource:
    """Runs one collector in a child process.

    The process is started when it is first needed, and again, after a growing pause, when it has failed. It
    leads a process group of its own, so that what it starts ends with it.

    Args:
        loaded: The collector; the child loads its plugin again from `options_table`.
        guard: Checks what the child sends.
        settings: Limits and patience.
    """

    def __init__(self, loaded: LoadedCollector, guard: Guard, settings: ProcessSettings) -> None:
        self._loaded = loaded
        self._guard = guard
        self._settings = settings
        self._killable = may_be_killed(loaded)
        self._lock = threading.Lock()
        self._child: Child | None = None
        self._cancelled = False
        self._failures = 0
        self._not_before = 0.0
        self._cpu_of_ended = 0.0

    def run(self) -> Checked:
        """Collect once.

        Raises:
            ChildError: The process failed, or waits to be started again.
        """
        spared = self._spared()
        if spared is not None:
            return spared
        try:
            child = self._ready()
            answer = child.ask(time.monotonic() + self._loaded.deadline)
        except ChildError:
            self._give_up()
            raise
        if isinstance(answer, Failed):
            # The collector raised, and its process is as good as before.
            self._failures = 0
            raise ChildError(answer.error_type, answer.text)
        if not isinstance(answer, Collected):
            self._give_up()
            raise ChildError("protocol", "its process answered something else than it was asked")
        self._failures = 0
        checked = self._guard.check(answer.observations())
        refused = tuple(Rejection(reason, detail) for reason, detail in answer.rejected)
        return Checked(checked.observations, (*refused, *checked.rejected))

    def cost(self) -> Cost | None:
        """Return what the processes have cost so far."""
        child = self._child
        now = child.cost() if child else Cost(0.0, 0)
        return Cost(self._cpu_of_ended + now.cpu_seconds, now.memory_bytes)

    def cancel(self) -> None:
        """End the process without waiting for it."""
        with self._lock:
            self._cancelled = True
            if self._child is not None:
                self._child.signal(signal.SIGKILL if self._killable else signal.SIGTERM)

    def close(self) -> None:
        """End the process and free its pipes."""
        child, self._child = self._child, None
        if child is not None:
            child.end(grace=0.2, killable=self._killable)

    def _spared(self) -> Checked | None:
        """Return what the collector says where it has nothing to measure: no process has to run for that."""
        absent = getattr(self._loaded.collector, "absent", None)
        if absent is None or (self._child is not None and self._child.abandoned):
            return None
        observations = absent()
        if observations is None:
            return None
        self._failures, self._not_before = 0, 0.0
        with self._lock:
            child, self._child = self._child, None
        if child is not None:
            child.end(grace=self._settings.grace, killable=self._killable)
            self._cpu_of_ended += child.cost().cpu_seconds
        return self._guard.check(observations)

    def _ready(self) -> Child:
        """Return a process that waits for a request.

        Raises:
            ChildError: There is none, and none can be started now.
        """
        child = self._child
        if child is not None and child.abandoned:
            if child.running:
                raise ChildError("hung", "its process hangs and must not be killed: waiting for it to end")
            self._forget(child)
            child = None
        if child is not None and child.running:
            return child
        if child is not None:
            text = child.epitaph()
            self._give_up()
            raise ChildError("exited", text)
        wait = self._not_before - time.monotonic()
        if wait > 0:
            raise ChildError("restarting", f"its process is started again in {wait:.0f} s")
        return self._spawn()

    def _spawn(self) -> Child:
        from openclaw_exporter.agent.process import Child  # noqa: PLC0415 - brings subprocess, only when used

        with self._lock:
            if self._cancelled:
                raise ChildError("cancelled", "the agent is ending")
            child = self._child = Child()
        loaded, settings = self._loaded, self._settings
        start = Start(
            plugin=loaded.plugin,
            collector=loaded.name,
            table=dict(loaded.options_table),
            path=list(sys.path),
            parent=os.getpid(),
            death_signal=signal.SIGKILL if self._killable else signal.SIGTERM,
            series_budget=loaded.series_budget,
            memory_limit=settings.memory_limit,
            cpu_limit=settings.cpu_limit,
            load_deadline=settings.start_deadline,
        )
        answer = child.begin(start, time.monotonic() + settings.start_deadline)
        if isinstance(answer, Failed):
            raise ChildError(answer.error_type, answer.text)
        if not isinstance(answer, Ready):
            raise ChildError("protocol", "its process began with something else than that it is ready")
        return child

    def _give_up(self) -> None:
        """End the process, and set when the next may start: after a pause that doubles each time."""
        child = self._child
        if child is None or child.abandoned:
            return
        pause = min(self._settings.backoff_limit, _FIRST_BACKOFF * 2.0 ** min(self._failures, 20))
        self._failures += 1
        self._not_before = time.monotonic() + pause
        grace = self._settings.grace if self._killable else self._settings.long_grace
        if child.end(grace=grace, killable=self._killable):
            self._forget(child)

    def _forget(self, child: Child) -> None:
        self._cpu_of_ended += child.cost().cpu_seconds
        self._child = None
