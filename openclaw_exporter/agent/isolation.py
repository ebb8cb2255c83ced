"""A collector in a process of its own: supervised, limited, ended at its deadline and started again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Final

from openclaw_exporter.agent.pipe import (
    COLLECT,
    ChildError,
    Collected,
    Failed,
    Ready,
    Start,
    pack,
    read_answer,
)
from openclaw_exporter.agent.sources import Cost
from openclaw_exporter.plugin.guard import Checked, Rejection

if TYPE_CHECKING:
    from openclaw_exporter.agent.pipe import Answer
    from openclaw_exporter.agent.settings import ProcessSettings
    from openclaw_exporter.plugin.guard import Guard
    from openclaw_exporter.plugin.host import LoadedCollector

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_COMMAND: Final = (sys.executable, "-P", "-m", "openclaw_exporter.agent.child")
_FIRST_BACKOFF: Final = 1.0
_LEAVE: Final = 0.25
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


class Child:
    """One process, from start to end. Used by one thread, but for `signal`.

    Attributes:
        abandoned: Whether it hung, was asked to end, and has not.
    """

    def __init__(self) -> None:
        self.abandoned = False
        self._process = subprocess.Popen(  # noqa: S603 - our own module, run by our own interpreter
            _COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
        )
        assert self._process.stdin is not None  # noqa: S101 - both are pipes, as asked for
        assert self._process.stdout is not None  # noqa: S101
        self._requests, self._answers = self._process.stdin, self._process.stdout
        os.set_blocking(self._answers.fileno(), False)
        self._ended = _pidfd(self._process.pid)
        self._cost = Cost(0.0, 0)

    @property
    def running(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def begin(self, start: Start, until: float) -> Answer:
        """Tell the process what to run, and return its answer.

        Raises:
            ChildError: It gave none in time, or ended.
        """
        return self._exchange(pack(start), until)

    def ask(self, until: float) -> Answer:
        """Ask for a collection, and return its answer.

        Raises:
            ChildError: It gave none in time, or ended.
        """
        return self._exchange(COLLECT, until)

    def cost(self) -> Cost:
        """Return CPU time and memory of the process: now, or when it was last seen."""
        with contextlib.suppress(OSError, IndexError, ValueError):
            with open(f"/proc/{self._process.pid}/stat", encoding="ascii", errors="replace") as file:  # noqa: PTH123 - a file of /proc, read each time
                fields = file.read().rpartition(")")[2].split()
            cpu = (int(fields[11]) + int(fields[12])) / _TICKS
            if cpu >= self._cost.cpu_seconds:
                self._cost = Cost(cpu, int(fields[21]) * _PAGE)
        return self._cost

    def epitaph(self) -> str:
        """Return in words how the process ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        code = self._process.returncode
        if code is None:
            return "its process closed its pipe"
        if code < 0:
            with contextlib.suppress(ValueError):
                return f"its process was ended by {signal.Signals(-code).name}"
        return f"its process exited with status {code}"

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process and all that it started."""
        with contextlib.suppress(OSError):
            os.killpg(self._process.pid, number)

    def end(self, *, grace: float, killable: bool) -> bool:
        """Ask the process to end, then force it to; tell whether it ended.

        Args:
            grace: Seconds that it has for the first.
            killable: Whether it may be forced; one that may not is abandoned.
        """
        self.cost()
        with contextlib.suppress(OSError):
            self._requests.close()
        if not self._wait(min(grace, _LEAVE)):  # one that does not hang ends by that alone
            self.signal(signal.SIGTERM)
            if not self._wait(grace) and killable:
                self.signal(signal.SIGKILL)
                self._wait(5.0)
        self.abandoned = self.running
        if not self.abandoned:
            self.signal(signal.SIGKILL)  # what it started and left behind
        self._answers.close()
        if self._ended is not None:
            os.close(self._ended)
            self._ended = None
        return not self.abandoned

    def _wait(self, timeout: float) -> bool:
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _exchange(self, request: bytes, until: float) -> Answer:
        try:
            self._requests.write(request)
            return read_answer(self._answers.fileno(), self._ended, until)
        except TimeoutError:
            raise ChildError("deadline", "its process did not answer in time") from None
        except (EOFError, OSError):
            self.cost()  # while it can still be read
            raise ChildError("exited", self.epitaph()) from None


def _pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except OSError:  # an old kernel, or a sandbox that forbids it
        return None
