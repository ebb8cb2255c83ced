"""Host metrics by the OpenTelemetry semantic conventions, and the machine's uptime.

Two collectors: `host` reads counters that the kernel keeps and cannot block; `filesystem` asks each mounted
filesystem, which can hang with its device, and so costs only itself when it does.
"""

from __future__ import annotations

import fnmatch
import os
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from openclaw_exporter.plugin import Measurement, Observation, Uptime, hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import ModuleType

Group: TypeAlias = Literal["cpu", "memory", "load", "disk", "network", "process", "uptime", "filesystem"]

_NETWORK_FILESYSTEMS: Final = (
    *("9p", "afs", "beegfs", "ceph", "cifs", "davfs", "fuse.*", "gfs2", "glusterfs", "gpfs", "lustre"),
    *("ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "smb3", "smbfs", "virtiofs"),
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """The table `[plugins.system]`. Filters are shell patterns; what matches one is left out.

    Attributes:
        groups: Which groups of metrics to read.
        per_cpu: Give CPU time for each logical CPU (attribute `cpu.logical_number`) rather than for all.
        uptime: Whose uptime goes into the heartbeat: the machine's, or that of the exporter's own process.
        exclude_filesystem_types: Filesystem types to leave out.
        exclude_mountpoints: Mount points to leave out.
        exclude_devices: Block devices to leave out, by their kernel names; partitions are by default.
        exclude_interfaces: Network interfaces to leave out.
        network_filesystems: Ask network filesystems too. One whose server is away then stops the
            collector `filesystem` until the server is back.
    """

    groups: tuple[Group, ...] = (
        *("cpu", "memory", "load", "disk", "network", "process", "uptime", "filesystem"),
    )
    per_cpu: bool = False
    uptime: Literal["host", "process"] = "host"
    exclude_filesystem_types: tuple[str, ...] = (
        *("autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "devtmpfs"),
        *("efivarfs", "erofs", "fusectl", "hugetlbfs", "iso9660", "mqueue", "nsfs", "overlay", "proc"),
        *(
            "pstore",
            "ramfs",
            "rpc_pipefs",
            "securityfs",
            "selinuxfs",
            "squashfs",
            "sysfs",
            "tmpfs",
            "tracefs",
        ),
    )
    exclude_mountpoints: tuple[str, ...] = (
        *("/dev", "/dev/*", "/proc", "/proc/*", "/sys", "/sys/*", "/run/credentials/*", "/snap/*"),
        *("/var/lib/containers/storage/*", "/var/lib/docker/*", "/var/lib/kubelet/*", "/etc/*"),
    )
    exclude_devices: tuple[str, ...] = (
        *("loop*", "ram*", "zram*", "fd[0-9]*", "sr[0-9]*", "[hsv]d[a-z]*[0-9]", "xvd[a-z]*[0-9]"),
        *("nvme*n*p[0-9]*", "mmcblk*p[0-9]*", "mmcblk*boot*"),
    )
    exclude_interfaces: tuple[str, ...] = (
        *("lo", "veth*", "docker[0-9]*", "br-*", "virbr*", "cali*", "cni*", "flannel*", "cilium*", "lxc*"),
        *("tap*", "dummy*", "ifb*", "sit[0-9]*", "tunl[0-9]*", "kube-ipvs*", "nodelocaldns"),
    )
    network_filesystems: bool = False


@hookimpl
def openclaw_collectors(options: Options) -> list[Host | Filesystem]:
    """Return the collectors of the groups that are asked for."""
    collectors: list[Host | Filesystem] = []
    if set(options.groups) - {"filesystem"}:
        collectors.append(Host(options))
    if "filesystem" in options.groups:
        collectors.append(Filesystem(options))
    return collectors


class Host:
    """Everything that the kernel answers from memory."""

    name = "host"

    def __init__(self, options: Options) -> None:
        self._per_cpu = options.per_cpu
        self._own_uptime = options.uptime == "process"
        self._no_device = _matcher(options.exclude_devices)
        self._no_interface = _matcher(options.exclude_interfaces)
        readers: dict[Group, Callable[[ModuleType], Iterator[Observation]]] = {
            "cpu": self._cpu,
            "memory": self._memory,
            "load": self._load,
            "disk": self._disk,
            "network": self._network,
            "process": self._process,
            "uptime": self._uptime,
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
        failed: Exception | None = None
        answered = False
        for read in self._readers:
            try:
                observations = list(read(psutil))
            except (OSError, RuntimeError, psutil.Error) as error:
                failed = error
                yield error
            else:
                answered = True
                yield from observations
        if failed is not None and not answered:
            raise failed

    def _cpu(self, psutil: ModuleType) -> Iterator[Observation]:
        yield Measurement("system.cpu.logical.count", psutil.cpu_count() or 1, "{cpu}", "updowncounter")
        if self._per_cpu:
            for number, times in enumerate(psutil.cpu_times(percpu=True)):
                yield from _cpu_times(times, {"cpu.logical_number": number})
        else:
            yield from _cpu_times(psutil.cpu_times(), {})

    def _memory(self, psutil: ModuleType) -> Iterator[Observation]:
        memory = psutil.virtual_memory()
        buffers, cached = getattr(memory, "buffers", 0), getattr(memory, "cached", 0)
        # The states have to add up to the limit, which psutil's own "used" does not promise.
        used = max(memory.total - memory.free - buffers - cached, 0)
        states = {"used": used, "free": memory.free, "buffers": buffers, "cached": cached}
        yield Measurement("system.memory.limit", memory.total, "By", "updowncounter")
        yield from _by_state("system.memory.usage", "system.memory.state", states)
        swap = psutil.swap_memory()
        yield from _by_state(
            "system.paging.usage", "system.paging.state", {"used": swap.used, "free": swap.free}
        )

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


class Filesystem:
    """Usage and size of each mounted filesystem, each device once."""

    name = "filesystem"

    def __init__(self, options: Options) -> None:
        left_out = options.exclude_filesystem_types
        if not options.network_filesystems:
            left_out = (*left_out, *_NETWORK_FILESYSTEMS)
        self._no_type = _matcher(left_out)
        self._no_mountpoint = _matcher(options.exclude_mountpoints)

    def collect(self) -> Iterator[Observation | Exception]:
        """Yield every filesystem; one that cannot be asked costs only itself."""
        import psutil  # noqa: PLC0415 - 40 ms that the agent's start need not wait for

        seen: set[str] = set()
        for mount in sorted(psutil.disk_partitions(all=True), key=lambda mount: len(mount.mountpoint)):
            if mount.device in seen or self._no_type(mount.fstype) or self._no_mountpoint(mount.mountpoint):
                continue
            try:
                status = os.statvfs(mount.mountpoint)
            except OSError as error:
                yield error
                continue
            if status.f_blocks:
                seen.add(mount.device)
                yield from _filesystem(mount, status)


def _filesystem(mount: Any, status: os.statvfs_result) -> Iterator[Measurement]:
    attributes = {
        "system.device": mount.device,
        "system.filesystem.mountpoint": mount.mountpoint,
        "system.filesystem.type": mount.fstype,
    }
    block = status.f_frsize
    states = {
        "used": (status.f_blocks - status.f_bfree) * block,
        "free": status.f_bavail * block,
        "reserved": max(status.f_bfree - status.f_bavail, 0) * block,
    }
    yield Measurement("system.filesystem.limit", status.f_blocks * block, "By", "updowncounter", attributes)
    yield from _by_state("system.filesystem.usage", "system.filesystem.state", states, attributes)


def _cpu_times(times: Any, attributes: dict[str, int]) -> Iterator[Measurement]:
    """Yield CPU seconds by mode. Linux counts a guest's time in `user` and `nice` already."""
    modes = {mode: getattr(times, mode) for mode in ("user", "nice", "system", "idle")}
    modes |= {mode: getattr(times, mode) for mode in ("iowait", "steal") if hasattr(times, mode)}
    modes["interrupt"] = getattr(times, "irq", 0.0) + getattr(times, "softirq", 0.0)
    for mode, seconds in modes.items():
        yield Measurement("system.cpu.time", seconds, "s", "counter", {"cpu.mode": mode, **attributes})


def _by_state(
    name: str, key: str, states: dict[str, int], attributes: dict[str, str] | None = None
) -> Iterator[Measurement]:
    for state, amount in states.items():
        yield Measurement(name, amount, "By", "updowncounter", {key: state, **(attributes or {})})


def _matcher(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Return whether a name matches one of the shell patterns."""
    joined = "|".join(fnmatch.translate(pattern) for pattern in patterns)
    matches = re.compile(joined).match if joined else None
    return (lambda name: matches(name) is not None) if matches else (lambda _name: False)
