"""What the kernel answers from memory."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openclaw_exporter.plugin import Measurement, Observation, Uptime
from openclaw_exporter_system.cgroup import Cgroup, Limits
from openclaw_exporter_system.series import by_state, cpu_times, matcher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    from openclaw_exporter_system.options import Group, Options


class Host:
    """Everything that the kernel answers from memory.

    Args:
        options: What to read.
        root: Where the cgroups' files begin.
    """

    name = "host"

    def __init__(self, options: Options, root: Path = Path("/")) -> None:
        follows = options.limits == "cgroup"
        self._cgroup = Cgroup(root, own_service=options.service_limits) if follows else None
        self._limits: Limits | None = None
        self._per_cpu = options.per_cpu
        self._own_uptime = options.uptime == "process"
        self._no_device = matcher(options.exclude_devices)
        self._no_interface = matcher(options.exclude_interfaces)
        readers: dict[Group, Callable[[ModuleType], Iterator[Observation]]] = {
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
        self._own: Any = None
        self._started = 0.0

    def collect(self) -> Iterator[Observation | Exception]:
        """Yield every group; one that this machine does not offer costs only itself."""
        import psutil  # noqa: PLC0415 - 40 ms that the agent's start need not wait for

        if self._own is None:
            self._own = psutil.Process()
            self._started = time.monotonic() - (time.time() - self._own.create_time())
        self._limits = None
        failed: Exception | None = None
        answered = False
        for read in self._readers:
            try:
                observations = list(read(psutil))
            except (OSError, RuntimeError, ValueError, KeyError, psutil.Error) as error:
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

    def _cpu(self, psutil: ModuleType) -> Iterator[Observation]:
        bounds = self._bounds()
        count = bounds.cpus or psutil.cpu_count() or 1
        limit = bounds.cpu
        binds = limit is not None and limit.cpus < count
        if limit is not None:
            yield Measurement("cgroup.cpu.limit", limit.cpus, "{cpu}", "updowncounter")
            yield Measurement("cgroup.cpu.throttled.time", limit.throttled, "s", "counter")
            count = min(count, math.ceil(limit.cpus))
        yield Measurement("system.cpu.logical.count", count, "{cpu}", "updowncounter")
        if limit is not None and binds:
            for mode, seconds in limit.modes.items():
                yield Measurement("system.cpu.time", seconds, "s", "counter", {"cpu.mode": mode})
        elif self._per_cpu:
            for number, times in enumerate(psutil.cpu_times(percpu=True)):
                yield from cpu_times(times, {"cpu.logical_number": number})
        else:
            yield from cpu_times(psutil.cpu_times(), {})

    def _memory(self, psutil: ModuleType) -> Iterator[Observation]:
        memory, swap = psutil.virtual_memory(), psutil.swap_memory()
        total, paging = memory.total, {"used": swap.used, "free": swap.free}
        bound = self._bounds().memory
        if bound is not None and bound.limit < total:
            total = bound.limit
            free = max(bound.limit - bound.current, 0)
            states = {"used": total - free - bound.cached, "free": free, "cached": bound.cached}
            if bound.swap_current is not None:
                swap_limit = min(swap.total, swap.total if bound.swap_limit is None else bound.swap_limit)
                paging = {"used": bound.swap_current, "free": max(swap_limit - bound.swap_current, 0)}
        else:
            buffers, cached = getattr(memory, "buffers", 0), getattr(memory, "cached", 0)
            # The states have to add up to the limit, which psutil's own "used" does not promise.
            used = max(total - memory.free - buffers - cached, 0)
            states = {"used": used, "free": memory.free, "buffers": buffers, "cached": cached}
        yield Measurement("system.memory.limit", total, "By", "updowncounter")
        yield from by_state("system.memory.usage", "system.memory.state", states)
        yield from by_state("system.paging.usage", "system.paging.state", paging)

    def _pids(self, _psutil: ModuleType) -> Iterator[Observation]:
        tasks = self._bounds().tasks
        if tasks is not None:
            yield Measurement("cgroup.pids.usage", tasks.current, "{task}", "updowncounter")
            yield Measurement("cgroup.pids.limit", tasks.limit, "{task}", "updowncounter")

    def _load(self, _psutil: ModuleType) -> Iterator[Observation]:
        for minutes, load in zip(("1m", "5m", "15m"), os.getloadavg(), strict=True):
            yield Measurement(f"system.cpu.load_average.{minutes}", load, "{thread}")

    def _disk(self, psutil: ModuleType) -> Iterator[Observation]:
        # The kernel's counters are of 64 bits: psutil's own guard against wrapping is only cost.
        for device, counters in (psutil.disk_io_counters(perdisk=True, nowrap=False) or {}).items():
            if not self._no_device(device):
                moved = {"read": counters.read_bytes, "write": counters.write_bytes}
                for direction, amount in moved.items():
                    attributes = {"disk.io.direction": direction, "system.device": device}
                    yield Measurement("system.disk.io", amount, "By", "counter", attributes)

    def _network(self, psutil: ModuleType) -> Iterator[Observation]:
        for interface, counters in psutil.net_io_counters(pernic=True, nowrap=False).items():
            if self._no_interface(interface):
                continue
            moved = {
                "receive": (counters.bytes_recv, counters.errin),
                "transmit": (counters.bytes_sent, counters.errout),
            }
            for direction, (amount, errors) in moved.items():
                attributes = {"network.io.direction": direction, "network.interface.name": interface}
                yield Measurement("system.network.io", amount, "By", "counter", attributes)
                yield Measurement("system.network.errors", errors, "{error}", "counter", attributes)

    def _process(self, _psutil: ModuleType) -> Iterator[Observation]:
        with self._own.oneshot():
            times, memory = self._own.cpu_times(), self._own.memory_info()
            descriptors = self._own.num_fds()
        for mode in ("user", "system"):
            seconds = getattr(times, mode)
            yield Measurement("process.cpu.time", seconds, "s", "counter", {"cpu.mode": mode})
        yield Measurement("process.memory.usage", memory.rss, "By", "updowncounter")
        yield Measurement(
            "process.unix.file_descriptor.count", descriptors, "{file_descriptor}", "updowncounter"
        )
        yield Measurement("process.uptime", time.monotonic() - self._started, "s")

    def _uptime(self, _psutil: ModuleType) -> Iterator[Observation]:
        if self._own_uptime:
            yield Uptime(time.monotonic() - self._started)
        else:
            # Counts suspended time too, and no step of the wall clock moves it.
            yield Uptime(time.clock_gettime(time.CLOCK_BOOTTIME))
