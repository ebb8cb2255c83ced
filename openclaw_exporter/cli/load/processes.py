"""What a process and its children have used, from /proc."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, NamedTuple

from openclaw_exporter.errors import UserError

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class Used(NamedTuple):
    """What a tree of processes has used.

    Attributes:
        cpu: Seconds of CPU, user and system.
        memory: Bytes that are resident now.
    """

    cpu: float
    memory: int


def used_by(pid: int) -> Used:
    """Return what a process and its descendants have used.

    Raises:
        UserError: There is no such process, or it cannot be looked at.
    """
    parents: dict[int, int] = {}
    used: dict[int, Used] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            # The name of the program, in brackets, may hold anything.
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        number = int(entry.name)
        parents[number] = int(fields[1])
        used[number] = Used((int(fields[11]) + int(fields[12])) / _TICKS, int(fields[21]) * _PAGE)
    if pid not in used:
        raise UserError(f"there is no process {pid}; --pid wants the receiver's")
    tree = [number for number in used if _descends(number, pid, parents)]
    return Used(sum(used[number].cpu for number in tree), sum(used[number].memory for number in tree))


def _descends(number: int, pid: int, parents: dict[int, int]) -> bool:
    while number and number != pid:
        number = parents.get(number, 0)
    return number == pid
