"""What the bundled plugins measure of the host and its GPUs, by OpenTelemetry's semantic conventions.

Load averages bear the names of the OpenTelemetry Collector's host receiver: the conventions have none.
"""

from __future__ import annotations

from typing import Final

from openclaw_exporter.telemetry.instrument import Instrument

_FILESYSTEM: Final = (
    "system.device",
    "system.filesystem.mode",
    "system.filesystem.mountpoint",
    "system.filesystem.type",
)
_INTERFACE: Final = ("network.interface.name", "network.io.direction")
_HARDWARE: Final = ("hw.id", "hw.name", "hw.vendor", "hw.type", "hw.model", "hw.parent")

_SYSTEM: Final[tuple[Instrument, ...]] = (
    Instrument(
        "system.cpu.time",
        "counter",
        "s",
        "Time that the CPUs spent in each mode",
        attributes=("cpu.mode", "cpu.logical_number"),
    ),
    Instrument("system.cpu.logical.count", "updowncounter", "{cpu}", "Logical CPUs that may be used"),
    Instrument("system.cpu.load_average.1m", "gauge", "{thread}", "Load average over 1 minute"),
    Instrument("system.cpu.load_average.5m", "gauge", "{thread}", "Load average over 5 minutes"),
    Instrument("system.cpu.load_average.15m", "gauge", "{thread}", "Load average over 15 minutes"),
    Instrument(
        "system.memory.usage",
        "updowncounter",
        "By",
        "Memory in each state",
        attributes=("system.memory.state",),
    ),
    Instrument("system.memory.limit", "updowncounter", "By", "Memory that may be used"),
    Instrument(
        "system.paging.usage",
        "updowncounter",
        "By",
        "Swap space in each state",
        attributes=("system.device", "system.paging.state"),
    ),
    Instrument(
        "system.filesystem.usage",
        "updowncounter",
        "By",
        "Space of a filesystem in each state",
        attributes=(*_FILESYSTEM, "system.filesystem.state"),
    ),
    Instrument(
        "system.filesystem.limit",
        "updowncounter",
        "By",
        "Space that a filesystem has in all",
        attributes=_FILESYSTEM,
    ),
    Instrument(
        "system.disk.io",
        "counter",
        "By",
        "Bytes read from and written to a disk",
        attributes=("system.device", "disk.io.direction"),
    ),
    Instrument(
        "system.network.io",
        "counter",
        "By",
        "Bytes received and transmitted by an interface",
        attributes=_INTERFACE,
    ),
    Instrument(
        "system.network.errors",
        "counter",
        "{error}",
        "Errors of an interface",
        attributes=_INTERFACE,
    ),
    Instrument(
        "process.cpu.time",
        "counter",
        "s",
        "CPU time of this process in each mode",
        attributes=("cpu.mode",),
    ),
    Instrument("process.memory.usage", "updowncounter", "By", "Resident memory of this process"),
    Instrument(
        "process.unix.file_descriptor.count",
        "updowncounter",
        "{file_descriptor}",
        "File descriptors that this process has open",
    ),
    Instrument("process.uptime", "gauge", "s", "Time that this process has run"),
)

_CGROUP: Final[tuple[Instrument, ...]] = (
    Instrument("cgroup.cpu.limit", "updowncounter", "{cpu}", "CPUs that the cgroup may use"),
    Instrument("cgroup.cpu.throttled.time", "counter", "s", "Time that the cgroup waited for its next quota"),
    Instrument("cgroup.pids.usage", "updowncounter", "{task}", "Tasks in the cgroup"),
    Instrument("cgroup.pids.limit", "updowncounter", "{task}", "Tasks that the cgroup may have"),
)

_HARDWARE_TABLE: Final[tuple[Instrument, ...]] = (
    Instrument(
        "hw.gpu.utilization",
        "gauge",
        "1",
        "Share of time that the GPU was busy with a task",
        attributes=(*_HARDWARE, "hw.driver_version", "hw.gpu.task"),
    ),
    Instrument(
        "hw.gpu.memory.usage",
        "updowncounter",
        "By",
        "Memory of the GPU in use",
        attributes=(*_HARDWARE, "hw.driver_version"),
    ),
    Instrument(
        "hw.gpu.memory.limit",
        "updowncounter",
        "By",
        "Memory that the GPU has",
        attributes=(*_HARDWARE, "hw.driver_version"),
    ),
    Instrument(
        "hw.temperature",
        "gauge",
        "Cel",
        "Temperature of the component",
        attributes=(*_HARDWARE, "hw.sensor_location"),
    ),
    Instrument("hw.power", "gauge", "W", "Power that the component draws", attributes=_HARDWARE),
    Instrument("hw.energy", "counter", "J", "Energy that the component has used", attributes=_HARDWARE),
    Instrument(
        "hw.errors",
        "counter",
        "{error}",
        "Errors of the component",
        attributes=(*_HARDWARE, "error.type"),
    ),
)

TABLE: Final[tuple[Instrument, ...]] = (*_SYSTEM, *_CGROUP, *_HARDWARE_TABLE)
