"""The limits of the cgroups (version 2) that this process runs in, and what is used of them.

A limit holds for everything below the cgroup that has it, so the way goes up from the process's own cgroup to
the root that is mounted here, and the tightest limit counts, with what *its* cgroup uses. Inside a container
the mounted root is the container's own.

Source: Documentation/admin-guide/cgroup-v2.rst of the Linux kernel.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from openclaw_exporter_system.files import read, unescaped

_MICRO: Final = 1e-6


class CpuLimit(msgspec.Struct, frozen=True):
    """CPU time that a cgroup may use.

    Attributes:
        cpus: Seconds of CPU for a second of time.
        modes: Seconds that its processes have used, by mode.
        throttled: Seconds that they were held back.
    """

    cpus: float
    modes: Mapping[str, float]
    throttled: float


class MemoryLimit(msgspec.Struct, frozen=True):
    """Memory that a cgroup may use, in bytes.

    Attributes:
        limit: All of it.
        current: What is in use, with the page cache.
        cached: What of that can be reclaimed: page cache and such slabs.
        swap_limit: Swap space that it may use; None where that is not limited.
        swap_current: Swap space in use; None where the kernel does not count it.
    """

    limit: int
    current: int
    cached: int
    swap_limit: int | None
    swap_current: int | None


class TaskLimit(msgspec.Struct, frozen=True):
    """Processes and threads that a cgroup may have, and has."""

    limit: int
    current: int


class Limits(msgspec.Struct, frozen=True):
    """What the cgroups limit; None for what they do not.

    Attributes:
        cpu: The tightest bandwidth limit.
        cpus: CPUs of the cpuset.
        memory: The tightest memory limit.
        tasks: The tightest limit of tasks.
    """

    cpu: CpuLimit | None = None
    cpus: int | None = None
    memory: MemoryLimit | None = None
    tasks: TaskLimit | None = None


class Cgroup:
    """Reads the limits of this process's cgroups.

    Args:
        root: Where `/proc` and the mount of the cgroups begin.
        own_service: Count the limits of the systemd service itself, which are the exporter's own.
    """

    def __init__(self, root: Path = Path("/"), *, own_service: bool = False) -> None:
        self._root = str(root).rstrip("/")
        self._own_service = own_service
        self._mount: tuple[str, str] | None = None

    def read(self) -> Limits:
        """Return the limits now; none where no cgroup of version 2 is mounted.

        Raises:
            OSError: There may be limits, and they cannot be read.
            ValueError: One of the kernel's files is not as documented.
        """
        levels = self._levels()
        return Limits(_cpu(levels), _cpus(levels), _memory(levels), _tasks(levels))

    def _levels(self) -> list[str]:
        """Return the directories of the cgroups, from the process's own one to the mounted root."""
        own = self._own()
        if self._mount is None:
            self._mount = self._mounted()
        if own is None or self._mount is None:
            return []
        mount, top = self._mount
        if not self._own_service:
            own = _without_service(own)
        # A path outside of the namespace ("/../x") or of the mount: all that can be seen is the mounted root.
        inside = own == top or own.startswith(f"{top.rstrip('/')}/")
        names = [name for name in own[len(top) :].split("/") if name] if inside and "/.." not in own else []
        return ["/".join((mount, *names[:depth])) for depth in range(len(names), -1, -1)]

    def _own(self) -> str | None:
        text = _text(f"{self._root}/proc/self/cgroup") or ""
        return next((line[3:] for line in text.splitlines() if line.startswith("0::")), None)

    def _mounted(self) -> tuple[str, str] | None:
        """Return the mount point of the cgroups and which cgroup is mounted there (proc(5), mountinfo)."""
        for line in (_text(f"{self._root}/proc/self/mountinfo") or "").splitlines():
            mounted, _, kind = line.partition(" - ")
            if kind.startswith("cgroup2 "):
                top, place = (unescaped(field) for field in mounted.split(" ")[3:5])
                return f"{self._root}/{place.strip('/')}", top
        return None


def _without_service(path: str) -> str:
    """Return the path above the systemd service that a process runs in, or the path itself outside of one."""
    names = path.split("/")
    for index in range(len(names) - 1, -1, -1):
        if names[index].endswith(".slice"):
            break
        if names[index].endswith(".service"):
            return "/".join(names[:index]) or "/"
    return path


def _cpu(levels: list[str]) -> CpuLimit | None:
    found: tuple[float, str] | None = None
    for level in levels:
        text = _text(f"{level}/cpu.max")
        quota, _, period = (text or "max").strip().partition(" ")
        if quota != "max" and (found is None or int(quota) / int(period) <= found[0]):
            found = int(quota) / int(period), level
    if found is None:
        return None
    stat = _table(f"{found[1]}/cpu.stat")
    # user_usec counts a nice process's time too; kernels before 6.13 do not tell it apart.
    nice = stat.get("nice_usec", 0)
    modes = {"user": (stat["user_usec"] - nice) * _MICRO, "system": stat["system_usec"] * _MICRO}
    if "nice_usec" in stat:
        modes["nice"] = nice * _MICRO
    return CpuLimit(found[0], modes, stat.get("throttled_usec", 0) * _MICRO)


def _cpus(levels: list[str]) -> int | None:
    for level in levels:
        text = (_text(f"{level}/cpuset.cpus.effective") or "").strip()
        if text:
            bounds = [part.partition("-") for part in text.split(",")]
            return sum(int(last or first) - int(first) + 1 for first, _, last in bounds)
    return None


def _memory(levels: list[str]) -> MemoryLimit | None:
    found = _tightest(levels, "memory")
    if found is None:
        return None
    limit, level = found
    current = _number(f"{level}/memory.current") or 0
    stat = _table(f"{level}/memory.stat")
    cached = min(stat.get("file", 0) + stat.get("slab_reclaimable", 0), current)
    swap_limit, swap_current = _number(f"{level}/memory.swap.max"), _number(f"{level}/memory.swap.current")
    return MemoryLimit(limit, current, cached, swap_limit, swap_current)


def _tasks(levels: list[str]) -> TaskLimit | None:
    found = _tightest(levels, "pids")
    return None if found is None else TaskLimit(found[0], _number(f"{found[1]}/pids.current") or 0)


def _tightest(levels: list[str], controller: str) -> tuple[int, str] | None:
    """Return the smallest limit and who has it; of equal ones, the cgroup furthest up, which more share."""
    limits = [(_number(f"{level}/{controller}.max"), level) for level in levels]
    given = [(limit, level) for limit, level in reversed(limits) if limit is not None]
    return min(given, key=lambda pair: pair[0], default=None)


def _number(path: str) -> int | None:
    """Return the number in a file; None for `max`, and where there is no such file."""
    text = (_text(path) or "max").strip()
    return None if text == "max" else int(text)


def _table(path: str) -> dict[str, int]:
    """Return a flat keyed file."""
    lines = (_text(path) or "").splitlines()
    return {name: int(value) for name, _, value in (line.partition(" ") for line in lines)}


def _text(path: str) -> str | None:
    """Return what a file holds, or None where it does not exist, as without the controller."""
    try:
        return os.fsdecode(read(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ENODEV:  # the cgroup was removed while its file was open
            return None
        raise
