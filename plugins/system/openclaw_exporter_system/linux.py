"""Linux, by one read of each of its files: less than half of what psutil takes for the same values.

Where a file is missing, or is not as documented, psutil is asked: it knows old kernels and odd ones.

Sources: proc(5); Documentation/filesystems/proc.rst and admin-guide/iostats.rst of the Linux kernel.
"""

from __future__ import annotations

import itertools
import os
import re
import time
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from openclaw_exporter_system.files import lines, read, unescaped
from openclaw_exporter_system.machine import AnyMachine, CpuTimes, Disk, Interface, Memory, Mount, Own

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Answer = TypeVar("Answer")

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_KIB: Final = 1024
_SECTOR: Final = 512
"""What /proc/diskstats counts in, whatever the device's own sectors are."""

_MODES: Final = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
_ALWAYS: Final = 4
"""So many of them every kernel tells."""
_MEMORY: Final = re.compile(
    rb"^(MemTotal|MemFree|Buffers|Cached|SReclaimable|SwapTotal|SwapFree): +(\d+) kB$", re.MULTILINE
)
_DISK_FIELDS: Final = 14
_DISK_FIELDS_SINCE_4_18: Final = 18
_INTERFACE_FIELDS: Final = 16
_INTERFACE_HEADER: Final = 2
_ROOT_NAMES: Final = frozenset({"/dev/root", "rootfs"})
"""What the kernel calls the root filesystem's device where it mounted that itself."""


def _or_psutil(method: Callable[[Any], Answer]) -> Callable[[Any], Answer]:
    """Ask psutil where a file of the kernel is missing or is not as documented."""
    general: Callable[[Any], Answer] = getattr(AnyMachine, method.__name__)

    @wraps(method)
    def answered(self: Any) -> Answer:
        try:
            return method(self)
        except (FileNotFoundError, ValueError, LookupError):
            return general(self)

    return answered


class Linux(AnyMachine):
    """Reads `/proc`.

    Args:
        root: Where `/proc`, `/sys` and `/dev` begin.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = str(root).rstrip("/")
        self._proc = f"{self._root}/proc"

    @_or_psutil
    def cpu_times(self) -> CpuTimes:
        """Return the time of all logical CPUs together."""
        name, _, rest = read(f"{self._proc}/stat").partition(b" ")
        if name != b"cpu":
            raise ValueError(name)
        return _modes(rest.partition(b"\n")[0].split())

    @_or_psutil
    def cpu_times_by_cpu(self) -> Mapping[int, CpuTimes]:
        """Return the time of each logical CPU by its number: there are gaps where some are offline."""
        cpus = (line[3:].split() for line in lines(f"{self._proc}/stat") if line.startswith(b"cpu"))
        return {int(fields[0]): _modes(fields[1:]) for fields in itertools.islice(cpus, 1, None)}

    @_or_psutil
    def memory(self) -> Memory:
        """Return memory and swap space."""
        found = {name: int(size) * _KIB for name, size in _MEMORY.findall(read(f"{self._proc}/meminfo"))}
        cached = found[b"Cached"] + found.get(b"SReclaimable", 0)
        swap = found[b"SwapTotal"], found[b"SwapFree"]
        return Memory(found[b"MemTotal"], found[b"MemFree"], found[b"Buffers"], cached, *swap)

    @_or_psutil
    def disks(self) -> Mapping[str, Disk]:
        """Return every block device, partitions too, by name."""
        found = {}
        for line in lines(f"{self._proc}/diskstats"):
            fields = line.split()
            if len(fields) != _DISK_FIELDS and len(fields) < _DISK_FIELDS_SINCE_4_18:
                raise ValueError(line)
            found[os.fsdecode(fields[2])] = Disk(int(fields[5]) * _SECTOR, int(fields[9]) * _SECTOR)
        return found

    @_or_psutil
    def interfaces(self) -> Mapping[str, Interface]:
        """Return every network interface of this process's network namespace by name."""
        found = {}
        for line in lines(f"{self._proc}/net/dev")[_INTERFACE_HEADER:]:
            name, _, counters = line.rpartition(b":")
            fields = counters.split()
            if len(fields) != _INTERFACE_FIELDS:
                raise ValueError(line)
            received, receive_errors, sent, transmit_errors = (int(fields[place]) for place in (0, 2, 8, 10))
            found[os.fsdecode(name.strip())] = Interface(received, sent, receive_errors, transmit_errors)
        return found

    @_or_psutil
    def own(self) -> Own:
        """Return this process."""
        times = os.times()
        resident = int(read(f"{self._proc}/self/statm").split()[1]) * _PAGE
        descriptors = len(os.listdir(f"{self._proc}/self/fd"))  # noqa: PTH208 - only their number is wanted
        return Own(times.user, times.system, resident, descriptors)

    @_or_psutil
    def own_age(self) -> float:
        """Return the seconds since this process started; no step of the wall clock moves it."""
        # The second field, the command's name, may hold anything.
        fields = read(f"{self._proc}/self/stat").rpartition(b")")[2].split()
        return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / _TICKS

    @_or_psutil
    def mounts(self) -> list[Mount]:
        """Return every mounted filesystem of this process's mount namespace."""
        found = []
        for line in lines(f"{self._proc}/self/mounts"):
            device, mountpoint, fstype = (unescaped(field) for field in os.fsdecode(line).split(" ")[:3])
            if device in _ROOT_NAMES:
                device = self._root_device() or device
            found.append(Mount("" if device == "none" else device, mountpoint, fstype))
        return found

    def _root_device(self) -> str | None:
        """Return the device of the root filesystem; None where the kernel does not show it."""
        number = Path(f"{self._root}/").stat().st_dev
        try:
            event = read(f"{self._root}/sys/dev/block/{os.major(number)}:{os.minor(number)}/uevent")
        except OSError:
            return None
        names = (line[8:] for line in event.split(b"\n") if line.startswith(b"DEVNAME="))
        device = f"/dev/{os.fsdecode(next(names, b''))}"
        return device if Path(f"{self._root}{device}").is_block_device() else None


def _modes(fields: list[bytes]) -> CpuTimes:
    """Return seconds by mode; old kernels have fewer of them.

    Raises:
        RuntimeError: Not even those that every kernel has; psutil cannot do without them either.
    """
    if len(fields) < _ALWAYS:
        message = "/proc/stat: a line of CPU times has fewer than four of them"
        raise RuntimeError(message)
    modes = {mode: int(ticks) / _TICKS for mode, ticks in zip(_MODES, fields, strict=False)}
    modes["interrupt"] = modes.pop("irq", 0.0) + modes.pop("softirq", 0.0)
    return modes
