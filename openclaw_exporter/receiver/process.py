"""What the receiver's own process costs, read from `/proc` when the exporters collect."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from openclaw_exporter.telemetry.instruments import Instruments, Series

_PROC: Final = Path("/proc/self")


def observe_process(instruments: Instruments, proc: Path = _PROC) -> None:
    """Export the CPU time, resident memory, open descriptors and uptime of this process.

    Args:
        instruments: Where they are made.
        proc: The process's directory in `/proc`; what cannot be read there is not exported.
    """
    started = time.monotonic()
    page = os.sysconf("SC_PAGE_SIZE")
    instruments.observe("process.cpu.time", _cpu)
    instruments.observe("process.memory.usage", lambda: _memory(proc / "statm", page))
    instruments.observe("process.unix.file_descriptor.count", lambda: _descriptors(proc / "fd"))
    instruments.observe("process.uptime", lambda: [(time.monotonic() - started, {})])


def _cpu() -> Iterable[Series]:
    times = os.times()
    return [(times.user, {"cpu.mode": "user"}), (times.system, {"cpu.mode": "system"})]


def _memory(statm: Path, page: int) -> Iterable[Series]:
    # proc_pid_statm(5): the second field is the resident set size in pages.
    try:
        return [(int(statm.read_text().split()[1]) * page, {})]
    except OSError:
        return []


def _descriptors(directory: Path) -> Iterable[Series]:
    try:
        return [(len(os.listdir(directory)), {})]  # noqa: PTH208 - names only, no Path for each
    except OSError:
        return []
