"""What the kernel answers from memory."""

from __future__ import annotations

import math
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from openclaw_exporter.plugin import Measurement, Observation, Uptime
from openclaw_exporter_system.cgroup import Cgroup, Limits
from openclaw_exporter_system.machine import AnyMachine
from openclaw_exporter_system.series import by_state, matcher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from openclaw_exporter_system.machine import CpuTimes, Machine
    from openclaw_exporter_system.options import Group, Options


def machine_at(root: Path) -> Machine:
    """Return what answers for this machine.

    Args:
        root: Where `/proc` begins, on Linux.
    """
    if sys.platform != "linux":
        return AnyMachine()
    from openclaw_exporter_system.linux import Linux  # noqa: PLC0415 - nothing for other systems

    return Linux(root)


class Host:
    """Everything that the kernel answers from memory.

    Args:
        options: What to read.
        root: Where `/proc` and the mount of the cgroups begin.
    """

    name = "host"

    def __init__(self, options: Options, root: Path = Path("/")) -> None:
        follows = options.limits == "cgroup"
        self._machine = machine_at(root)
        self._cgroup = Cgroup(root, own_service=options.service_limits) if follows else None
        self._limits: Limits | None = None
        self._per_cpu = options.per_cpu
        self._own_uptime = options.uptime == "process"
        self._no_device = matcher(options.exclude_devices)
        self._no_interface = matcher(options.exclude_interfaces)
        readers: dict[Group, Callable[[], Iterator[Observation]]] = {
            "cpu": self._cpu,
            "memory": self._memory,
            "load": self._load,
            "disk": self._disk,
            "network": self._network,
            "process": self._process,
            "uptime": self._uptime,
            "pids": self._pids,
        }
        self._readers = [readers[group] for group in dict.fromkeys(options.groups) if group in readers]
        self._started: float | None = None

    def collect(self) -> Iterator[Observation | Exception]:
        """Yield every group; one that this machine does not offer costs only itself."""
        self._limits = None
        failed: Exception | None = None
        answered = False
        for read in self._readers:
            try:
                observations = list(read())
            except (OSError, RuntimeError, ValueError, KeyError) as error:
                failed = error
                yield error
            else:
                answered = True
                yield from observations
        if failed is not None and not answered:
            raise failed

    def _bounds(self) -> Limits:
        """Return the cgroups' limits, read once a collection."""
        if self._limits is None:
            self._limits = self._cgroup.read() if self._cgroup is not None else Limits()
        return self._limits

    def _cpu(self) -> Iterator[Observation]:
        bounds = self._bounds()
        count = bounds.cpus or os.sysconf("SC_NPROCESSORS_ONLN")
        limit = bounds.cpu
        binds = limit is not None and limit.cpus < count
        if limit is not None:
            yield Measurement("cgroup.cpu.limit", limit.cpus, "{cpu}", "updowncounter")
            yield Measurement("cgroup.cpu.throttled.time", limit.throttled, "s", "counter")
            count = min(count, math.ceil(limit.cpus))
        yield Measurement("system.cpu.logical.count", count, "{cpu}", "updowncounter")
        if limit is not None and binds:
            yield from _cpu_time(limit.modes)
        elif self._per_cpu:
            for number, modes in self._machine.cpu_times_by_cpu().items():
                yield from _cpu_time(modes, {"cpu.logical_number": number})
        else:
            yield from _cpu_time(self._machine.cpu_times())

    def _memory(self) -> Iterator[Observation]:
        memory = self._machine.memory()
        total, swap = memory.total, memory.swap_total
        paging = {"used": swap - memory.swap_free, "free": memory.swap_free}
        bound = self._bounds().memory
        if bound is not None and bound.limit < total:
            total = bound.limit
            free = max(bound.limit - bound.current, 0)
            states = {"used": total - free - bound.cached, "free": free, "cached": bound.cached}
            if bound.swap_current is not None:
                swap_limit = min(swap, swap if bound.swap_limit is None else bound.swap_limit)
                paging = {"used": bound.swap_current, "free": max(swap_limit - bound.swap_current, 0)}
        else:
            used = max(total - memory.free - memory.buffers - memory.cached, 0)
            states = {"used": used, "free": memory.free}
            states |= {"buffers": memory.buffers, "cached": memory.cached}
        yield Measurement("system.memory.limit", total, "By", "updowncounter")
        yield from by_state("system.memory.usage", "system.memory.state", states)
        yield from by_state("system.paging.usage", "system.paging.state", paging)

    def _pids(self) -> Iterator[Observation]:
        tasks = self._bounds().tasks
        if tasks is not None:
            yield Measurement("cgroup.pids.usage", tasks.current, "{task}", "updowncounter")
            yield Measurement("cgroup.pids.limit", tasks.limit, "{task}", "updowncounter")

    def _load(self) -> Iterator[Observation]:
        for minutes, load in zip(("1m", "5m", "15m"), os.getloadavg(), strict=True):
            yield Measurement(f"system.cpu.load_average.{minutes}", load, "{thread}")

    def _disk(self) -> Iterator[Observation]:
        for device, disk in self._machine.disks().items():
            if not self._no_device(device):
                for direction, amount in (("read", disk.read), ("write", disk.written)):
                    attributes = {"disk.io.direction": direction, "system.device": device}
                    yield Measurement("system.disk.io", amount, "By", "counter", attributes)

    def _network(self) -> Iterator[Observation]:
        for name, interface in self._machine.interfaces().items():
            if self._no_interface(name):
                continue
            moved = {
                "receive": (interface.received, interface.receive_errors),
                "transmit": (interface.sent, interface.transmit_errors),
            }
            for direction, (amount, errors) in moved.items():
                attributes = {"network.io.direction": direction, "network.interface.name": name}
                yield Measurement("system.network.io", amount, "By", "counter", attributes)
                yield Measurement("system.network.errors", errors, "{error}", "counter", attributes)

    def _process(self) -> Iterator[Observation]:
        own = self._machine.own()
        for mode, seconds in (("user", own.user), ("system", own.system)):
            yield Measurement("process.cpu.time", seconds, "s", "counter", {"cpu.mode": mode})
        yield Measurement("process.memory.usage", own.resident, "By", "updowncounter")
        yield Measurement(
            "process.unix.file_descriptor.count", own.descriptors, "{file_descriptor}", "updowncounter"
        )
        yield Measurement("process.uptime", self._own_age(), "s")

    def _uptime(self) -> Iterator[Observation]:
        if self._own_uptime:
            yield Uptime(self._own_age())
        else:
            # Counts suspended time too, and no step of the wall clock moves it.
            yield Uptime(time.clock_gettime(time.CLOCK_BOOTTIME))

    def _own_age(self) -> float:
        if self._started is None:
            self._started = time.monotonic() - self._machine.own_age()
        return time.monotonic() - self._started


def _cpu_time(modes: CpuTimes, attributes: dict[str, int] | None = None) -> Iterator[Measurement]:
    """Yield CPU seconds by mode."""
    for mode, seconds in modes.items():
        own: dict[str, str | int] = {"cpu.mode": mode, **(attributes or {})}
        yield Measurement("system.cpu.time", seconds, "s", "counter", own)
