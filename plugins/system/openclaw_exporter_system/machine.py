"""What is asked of a machine, and psutil's answers."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import NamedTuple, Protocol, TypeAlias

CpuTimes: TypeAlias = Mapping[str, float]
"""Seconds of CPU time by mode; a guest's are in `user` and `nice`."""


class Memory(NamedTuple):
    """Memory and swap space in bytes; `cached` is the page cache and what of the slabs can be reclaimed."""

    total: int
    free: int
    buffers: int
    cached: int
    swap_total: int
    swap_free: int


class Disk(NamedTuple):
    """Bytes that a block device has moved."""

    read: int
    written: int


class Interface(NamedTuple):
    """Bytes that a network interface has moved, and what it could not."""

    received: int
    sent: int
    receive_errors: int
    transmit_errors: int


class Own(NamedTuple):
    """This process: seconds of CPU time, bytes of resident memory, descriptors."""

    user: float
    system: float
    resident: int
    descriptors: int


class Mount(NamedTuple):
    """A mounted filesystem."""

    device: str
    mountpoint: str
    fstype: str


class Machine(Protocol):
    """Answers now.

    Every method may raise `OSError`, `RuntimeError`, `ValueError` or `KeyError` where the machine does not
    offer that.
    """

    def cpu_times(self) -> CpuTimes:
        """Return the time of all logical CPUs together."""
        ...

    def cpu_times_by_cpu(self) -> Mapping[int, CpuTimes]:
        """Return the time of each logical CPU by its number."""
        ...

    def memory(self) -> Memory:
        """Return memory and swap space."""
        ...

    def disks(self) -> Mapping[str, Disk]:
        """Return every block device, partitions too, by name."""
        ...

    def interfaces(self) -> Mapping[str, Interface]:
        """Return every network interface by name."""
        ...

    def own(self) -> Own:
        """Return this process."""
        ...

    def own_age(self) -> float:
        """Return the seconds since this process started."""
        ...

    def mounts(self) -> list[Mount]:
        """Return every mounted filesystem."""
        ...


class AnyMachine:
    """Asks psutil, which takes 20 ms and a MiB to import and is imported when it is first asked."""

    def cpu_times(self) -> CpuTimes:
        """Return the time of all logical CPUs together."""
        import psutil  # noqa: PLC0415 - see the class

        return _modes(psutil.cpu_times())

    def cpu_times_by_cpu(self) -> Mapping[int, CpuTimes]:
        """Return the time of each logical CPU by its number."""
        import psutil  # noqa: PLC0415

        return {number: _modes(times) for number, times in enumerate(psutil.cpu_times(percpu=True))}

    def memory(self) -> Memory:
        """Return memory and swap space."""
        import psutil  # noqa: PLC0415

        memory, swap = psutil.virtual_memory(), psutil.swap_memory()
        buffers, cached = getattr(memory, "buffers", 0), getattr(memory, "cached", 0)
        return Memory(memory.total, memory.free, buffers, cached, swap.total, swap.free)

    def disks(self) -> Mapping[str, Disk]:
        """Return every block device, partitions too, by name."""
        import psutil  # noqa: PLC0415

        # The kernel's counters are of 64 bits: psutil's own guard against wrapping is only cost.
        found = psutil.disk_io_counters(perdisk=True, nowrap=False) or {}
        return {name: Disk(counters.read_bytes, counters.write_bytes) for name, counters in found.items()}

    def interfaces(self) -> Mapping[str, Interface]:
        """Return every network interface by name."""
        import psutil  # noqa: PLC0415

        return {
            name: Interface(counters.bytes_recv, counters.bytes_sent, counters.errin, counters.errout)
            for name, counters in psutil.net_io_counters(pernic=True, nowrap=False).items()
        }

    def own(self) -> Own:
        """Return this process."""
        import psutil  # noqa: PLC0415

        times = os.times()
        try:
            process = psutil.Process()
            return Own(times.user, times.system, process.memory_info().rss, process.num_fds())
        except psutil.Error as error:
            raise OSError(str(error)) from None

    def own_age(self) -> float:
        """Return the seconds since this process started."""
        import psutil  # noqa: PLC0415

        try:
            return time.time() - psutil.Process().create_time()
        except psutil.Error as error:
            raise OSError(str(error)) from None

    def mounts(self) -> list[Mount]:
        """Return every mounted filesystem."""
        import psutil  # noqa: PLC0415

        return [
            Mount(mount.device, mount.mountpoint, mount.fstype) for mount in psutil.disk_partitions(all=True)
        ]


def _modes(times: object) -> CpuTimes:
    modes: dict[str, float] = {mode: getattr(times, mode) for mode in ("user", "nice", "system", "idle")}
    modes |= {mode: getattr(times, mode) for mode in ("iowait", "steal") if hasattr(times, mode)}
    modes["interrupt"] = getattr(times, "irq", 0.0) + getattr(times, "softirq", 0.0)
    return modes
