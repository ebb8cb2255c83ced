"""The process of a collector, as the agent sees it: started, spoken to, ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Final

from openclaw_exporter.agent.pipe import COLLECT, ChildError, pack, read_answer
from openclaw_exporter.agent.sources import Cost

if TYPE_CHECKING:
    from openclaw_exporter.agent.pipe import Answer, Start

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_COMMAND: Final = (sys.executable, "-P", "-m", "openclaw_exporter.agent.child")
_LEAVE: Final = 0.25


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
