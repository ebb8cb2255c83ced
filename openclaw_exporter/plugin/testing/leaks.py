"""What is left behind by many collections: memory, threads, file descriptors."""

from __future__ import annotations

import gc
import os
import threading
import tracemalloc
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

from openclaw_exporter.plugin.testing.findings import Finding, Findings, or_passed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from openclaw_exporter.plugin.runner import Runner

_PHASES: Final = 3
_LOOKS: Final = 4
_LEAST_BYTES: Final = 16
"""Bytes a collection that are growth: the smallest Python object."""

_NOISE: Final = 1024
"""Bytes that a phase may leave however many collections it has: free lists, this module's own figures."""

_PHASE_SECONDS: Final = 0.05
_MOST_RUNS: Final = 100
"""A phase of a fast collector has more runs than it was asked for, so that a leak stands out."""

_LEAST_RESIDENT: Final = 256 * 1024
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_NOT_ITS_OWN: Final = (__file__, tracemalloc.__file__, threading.__file__, "*/coverage/*", "*/_pytest/*")
"""Files whose memory is no collector's: this module, and what measures and runs tests."""
_PROCESS: Final = Path("/proc/self")


@dataclass(frozen=True, slots=True)
class Held:
    """What this process holds now.

    Attributes:
        traced: Bytes of Python's memory, as tracemalloc counts; 0 while it does not.
        resident: Bytes of resident memory; None where the system does not tell.
        threads: Threads, native ones too; None where the system does not tell.
        descriptors: Open file descriptors; None where the system does not tell.
    """

    traced: int
    resident: int | None
    threads: int | None
    descriptors: int | None

    @classmethod
    def now(cls) -> Held:
        """Look, after a garbage collection."""
        gc.collect()
        return cls(_traced_bytes(), _resident(), _entries("task"), _entries("fd"))


def check_leaks(runner: Runner, *, runs: int) -> Findings:
    """Collect in four phases and compare what the process holds after each.

    These are about `runs` collections, more of a fast collector. The first phase warms up caches and
    connections. Memory that grows in each of the other three, and does so in three more looks over as many
    runs each, is a failure; a thread or a descriptor for many of the runs is one as well. Other threads of
    the process should be at rest meanwhile.
    """
    size = _phase_size(runner, max(2, runs // (_PHASES + 1)))
    with _traced():
        if not _collect(runner, size):
            return _unchecked()
        # Caches that fill slowly, and the interpreter's own tables, look like a leak once or twice; a leak
        # always does.
        for _ in range(_LOOKS):
            first = tracemalloc.take_snapshot()
            held = list(_phases(runner, size))
            if len(held) <= _PHASES:
                return _unchecked()
            if not _grows(held, size):
                break
        where = _where(first) if _grows(held, size) else ""
    measured = size * _PHASES
    return (*_memory(held, size, where), *_threads(held, measured), *_descriptors(held, measured))


def check_left_behind(
    before: Held, after: Held, threads: frozenset[threading.Thread], *, closes: bool
) -> Findings:
    """Tell what a collector leaves after its end.

    Args:
        before: What the process held before the first collection.
        after: What it holds now.
        threads: The threads of Python that were not there before.
        closes: Whether the collector has a `close()`.
    """
    found = []
    remedy = "close() has to end them" if closes else "it wants a close() that ends them"
    if threads:
        names = ", ".join(sorted({thread.name for thread in threads}))
        found.append(Finding("close", "failure", f"threads go on after the end ({names}): {remedy}"))
    left = (after.descriptors or 0) - (before.descriptors or 0)
    if left > 0:
        found.append(
            Finding("close", "warning", f"{left} file descriptors stay open after the end: {remedy}")
        )
    return tuple(found)


def python_threads() -> frozenset[threading.Thread]:
    """Return the threads that Python knows."""
    return frozenset(threading.enumerate())


def _phase_size(runner: Runner, least: int) -> int:
    seconds = max(runner.run().seconds, 1e-6)
    return max(least, min(_MOST_RUNS, int(_PHASE_SECONDS / seconds)))


def _collect(runner: Runner, runs: int) -> bool:
    """Collect so many times; False where a run hangs."""
    return not any(runner.run().overdue for _ in range(runs))


def _phases(runner: Runner, size: int) -> Iterator[Held]:
    yield Held.now()
    for _ in range(_PHASES):
        if not _collect(runner, size):
            return
        yield Held.now()


def _grows(held: list[Held], size: int) -> bool:
    least = _NOISE + _LEAST_BYTES * size
    return all(after.traced - before.traced >= least for before, after in pairwise(held))


def _memory(held: list[Held], size: int, where: str) -> Findings:
    runs = size * (len(held) - 1)
    growth = held[-1].traced - held[0].traced
    if where:
        text = f"{growth / runs:.0f} bytes more after each of {runs} collections, most from {where}"
        return (Finding("memory", "failure", text),)
    resident = [one.resident for one in held]
    steps = [after - before for before, after in pairwise(resident) if before and after]
    if len(steps) == _PHASES and min(steps) >= _LEAST_RESIDENT:
        text = f"resident memory grows ({sum(steps) / 1024 / runs:.0f} KiB a collection), not Python's own"
        return (Finding("memory", "warning", text),)
    return (Finding("memory", "passed", f"no growth over {runs} collections"),)


def _threads(held: list[Held], runs: int) -> Findings:
    return _count("threads", "threads", lambda one: one.threads, held, runs)


def _descriptors(held: list[Held], runs: int) -> Findings:
    return _count("descriptors", "file descriptors", lambda one: one.descriptors, held, runs)


def _count(check: str, what: str, of: Callable[[Held], int | None], held: list[Held], runs: int) -> Findings:
    before, after = of(held[0]), of(held[-1])
    if before is None or after is None:
        return (Finding(check, "note", "this system does not tell"),)
    grown = after - before
    found = []
    if grown >= max(2, runs // 4):
        found.append(Finding(check, "failure", f"{grown} more {what} after {runs} collections"))
    elif grown > 0:
        found.append(Finding(check, "warning", f"{grown} more {what} after {runs} collections"))
    return or_passed(check, found, f"no growth over {runs} collections")


def _unchecked() -> Findings:
    return (Finding("memory", "warning", "a collection hung, so leaks could not be looked for"),)


@contextmanager
def _traced() -> Iterator[None]:
    """Have Python's memory counted, and leave a tracing that is going on already as it is."""
    if tracemalloc.is_tracing():
        yield
        return
    tracemalloc.start(1)
    try:
        yield
    finally:
        tracemalloc.stop()


def _where(first: tracemalloc.Snapshot) -> str:
    """Return the line of code whose allocations have grown most."""
    gc.collect()
    top = _own(tracemalloc.take_snapshot()).compare_to(_own(first), "lineno")
    frames = [entry.traceback[0] for entry in top if entry.size_diff > 0]
    return f"{Path(frames[0].filename).name}:{frames[0].lineno}" if frames else "an unknown line"


def _traced_bytes() -> int:
    if not tracemalloc.is_tracing():
        return 0
    return sum(trace.size for trace in _own(tracemalloc.take_snapshot()).traces)


def _own(snapshot: tracemalloc.Snapshot) -> tracemalloc.Snapshot:
    """Leave out what no collector has allocated."""
    return snapshot.filter_traces(
        [tracemalloc.Filter(inclusive=False, filename_pattern=p) for p in _NOT_ITS_OWN]
    )


def _resident() -> int | None:
    try:
        return int((_PROCESS / "statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return None


def _entries(folder: str) -> int | None:
    try:
        return len(os.listdir(_PROCESS / folder))  # noqa: PTH208 - iterdir() holds a descriptor of its own
    except OSError:
        return None
