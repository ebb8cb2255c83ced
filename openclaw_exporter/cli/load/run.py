"""A load test from outside: its processes, its progress, and its end."""

from __future__ import annotations

import contextlib
import multiprocessing
import secrets
import signal
import sys
import tempfile
import time
from dataclasses import replace
from multiprocessing import connection
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from openclaw_exporter.cli.authority import Authority, reader_uri
from openclaw_exporter.cli.load.plan import make_room
from openclaw_exporter.cli.load.processes import used_by
from openclaw_exporter.cli.load.report import Report
from openclaw_exporter.cli.load.tally import Tally
from openclaw_exporter.cli.load.worker import issue, open_registry, work
from openclaw_exporter.errors import CredentialError, OpenClawError, UserError

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.process import BaseProcess

    from openclaw_exporter.cli.load.plan import Plan
    from openclaw_exporter.cli.pki_files import PkiDirectory

_GRACE: Final = 60.0
"""Seconds that workers get to compare and leave once the time is over."""

_BURIAL: Final = 5.0
"""Seconds for the end of a process that has closed its pipe."""


def run(
    plan: Plan, pki: PkiDirectory, *, pid: int | None, progress: Callable[[float, Tally], None]
) -> Report:
    """Run a load test to its end, or to Ctrl-C; nothing is left behind but the receiver's own registry.

    Args:
        plan: What to do.
        pki: Its keys.
        pid: The receiver's process, whose CPU and memory are measured; None: they are not.
        progress: Called now and then with the seconds that have passed and what has happened.

    Raises:
        UserError: It cannot begin.
    """
    make_room(plan)
    plan = replace(plan, run=plan.run or secrets.token_hex(4))
    _check_receiver(plan, pki)
    before = None if pid is None else used_by(pid)
    with (
        tempfile.TemporaryDirectory(prefix="openclaw-loadtest-") as directory,
        _Workers(plan, Path(directory)) as workers,
    ):
        began = time.monotonic()
        try:
            tally = workers.wait(progress)
        except KeyboardInterrupt:
            tally = workers.end(progress)
        seconds, deaths = time.monotonic() - began, workers.deaths
    after = None if pid is None else used_by(pid)
    return Report(plan, tally, seconds, before, after, deaths)


def _check_receiver(plan: Plan, pki: PkiDirectory) -> None:
    """Say at once, and once, what would else fail for every node."""
    key = pki.path / "ca.key"
    if not key.exists():
        raise CredentialError(f"{key} is not there: it has to sign the nodes' certificates")
    with tempfile.TemporaryDirectory(prefix="openclaw-loadtest-") as directory:
        try:
            authority = Authority.load(pki.ca, key)
            uri = reader_uri(pki.trust_domain, f"{plan.run}-check")
            reader = issue(authority, Path(directory) / "reader.pem", uri)
            with open_registry(plan, pki, reader) as registry:
                registry.node("00000000-0000-4000-8000-000000000000")
        except (OpenClawError, OSError, ValueError) as error:
            raise UserError(f"the receiver cannot be tested: {error}") from error


class _Workers:
    """The processes of a load test; a context manager that leaves none behind.

    Attributes:
        deaths: Which have ended before their work was done, and how, in words.
    """

    def __init__(self, plan: Plan, directory: Path) -> None:
        self._plan = plan
        # Not a fork: threads and sockets of this process are none of theirs.
        spawning = multiprocessing.get_context("spawn")
        stop, self._stopping = spawning.Pipe(duplex=False)
        self.deaths: list[str] = []
        self._latest: dict[connection.Connection, Tally] = {}
        self._open: list[connection.Connection] = []
        self._processes: dict[connection.Connection, BaseProcess] = {}
        for number in range(plan.processes):
            place = directory / str(number)
            place.mkdir(mode=0o700)
            ours, theirs = spawning.Pipe(duplex=False)
            arguments = (plan, number, place, theirs, stop)
            process = spawning.Process(target=work, args=arguments, name=f"load-{number}", daemon=True)
            process.start()
            theirs.close()
            self._open.append(ours)
            self._processes[ours] = process
        stop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.close()
        for pipe, process in self._processes.items():
            process.join(_GRACE)
            if process.is_alive():
                process.kill()
                process.join()
            pipe.close()

    def wait(self, progress: Callable[[float, Tally], None]) -> Tally:
        """Wait until every worker has told its last; where one dies, the others end early."""
        began = time.monotonic()
        patience = self._plan.seconds + self._plan.ramp + _GRACE + self._plan.nodes / 20
        while self._open and time.monotonic() - began < patience:
            if self.deaths and not self._stopping.closed:
                self._stopping.close()
                patience = time.monotonic() - began + _GRACE
            ready = connection.wait(self._open, timeout=0.5)
            for pipe in [pipe for pipe in self._open if pipe in ready]:
                self._take(pipe)
            progress(time.monotonic() - began, self._sum())
        return self._sum()

    def end(self, progress: Callable[[float, Tally], None]) -> Tally:
        """Let every worker end early."""
        self._stopping.close()
        with contextlib.suppress(KeyboardInterrupt):
            return self.wait(progress)
        return self._sum()

    def _take(self, pipe: connection.Connection) -> None:
        try:
            told = pipe.recv()
        except (EOFError, OSError):
            # In the middle of what it told, or before.
            self._open.remove(pipe)
            self._bury(self._processes[pipe])
            return
        if told is None:
            self._open.remove(pipe)
        else:
            self._latest[pipe] = told

    def _bury(self, process: BaseProcess) -> None:
        process.join(_BURIAL)
        code = process.exitcode
        how = f"ended with {code}" if code is None or code >= 0 else f"was killed by {_signal(-code)}"
        self.deaths.append(f"the process {process.name} (pid {process.pid}) {how}")

    def _sum(self) -> Tally:
        total = Tally()
        for tally in self._latest.values():
            total.add(tally)
        return total


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class Progress:
    """A bar on the terminal; nothing elsewhere.

    Args:
        seconds: How long the load test lasts.
    """

    def __init__(self, seconds: float) -> None:
        from rich.console import Console  # noqa: PLC0415 - 60 ms that other commands do not need
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415
        from rich.progress import Progress as Bar  # noqa: PLC0415

        console = Console(stderr=True)
        text = "{task.fields[text]}"
        columns = (BarColumn(), TimeRemainingColumn(), TextColumn(text))
        self._bar = Bar(*columns, console=console, transient=True, disable=not sys.stderr.isatty())
        self._task = self._bar.add_task("", total=seconds, text="making certificates")

    def __enter__(self) -> Callable[[float, Tally], None]:
        self._bar.start()
        return self._show

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def _show(self, passed: float, tally: Tally) -> None:
        if not tally.sent:
            return
        p99 = tally.latencies.percentile(99)
        failed = tally.refused.total() + tally.unanswered.total()
        slow = "" if p99 is None else f", p99 {1000 * p99:.0f} ms"
        text = f"{tally.accepted.total()} accepted, {failed} failed{slow}"
        self._bar.update(self._task, completed=passed, text=text)
