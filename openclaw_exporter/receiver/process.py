"""What the receiver's own processes cost, read from `/proc` when the exporters collect."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from openclaw_exporter.telemetry.instruments import Instruments, Series

_PROC: Final = Path("/proc/self")
_TICKS: Final = os.sysconf("SC_CLK_TCK")


def observe_process(
    instruments: Instruments, proc: Path = _PROC, *, children: Callable[[], Iterable[int]] = tuple
) -> None:
    """Export the CPU time, resident memory, open descriptors and uptime of this process and its children.

    Args:
        instruments: Where they are made.
        proc: The process's directory in `/proc`; what cannot be read there is not exported.
        children: Returns the process ids of those children that have not ended.
    """
    started = time.monotonic()
    page = os.sysconf("SC_PAGE_SIZE")

    def directories() -> list[Path]:
        return [proc, *(proc.parent / str(child) for child in children())]

    most: dict[str, float] = {}
    instruments.observe("process.cpu.time", lambda: _cpu(directories()[1:], most))
    instruments.observe("process.memory.usage", lambda: _sum(_memory(one, page) for one in directories()))
    instruments.observe(
        "process.unix.file_descriptor.count", lambda: _sum(_descriptors(one) for one in directories())
    )
    instruments.observe("process.uptime", lambda: [(time.monotonic() - started, {})])


def _cpu(children: Iterable[Path], most: dict[str, float]) -> Iterable[Series]:
    times = os.times()
    # A child that has ended is counted with its parent from then on (times(2)).
    user, system = times.user + times.children_user, times.system + times.children_system
    for child in children:
        try:
            fields = (child / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        user += int(fields[11]) / _TICKS
        system += int(fields[12]) / _TICKS
    for mode, seconds in (("user", user), ("system", system)):
        # One that ends between the two readings is in neither of them: the sum must not go back for it.
        most[mode] = max(most.get(mode, 0.0), seconds)
    return [(seconds, {"cpu.mode": mode}) for mode, seconds in most.items()]


def _sum(amounts: Iterable[int | None]) -> Iterable[Series]:
    known = [amount for amount in amounts if amount is not None]
    return [(sum(known), {})] if known else []


def _memory(process: Path, page: int) -> int | None:
    # proc_pid_statm(5): the second field is the resident set size in pages.
    try:
        return int((process / "statm").read_text().split()[1]) * page
    except OSError:
        return None


def _descriptors(process: Path) -> int | None:
    try:
        return len(os.listdir(process / "fd"))  # noqa: PTH208 - names only, no Path for each
    except OSError:
        return None
