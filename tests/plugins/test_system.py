"""The system plugin on the machine that runs the tests."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from opentelemetry.semconv._incubating.metrics import process_metrics, system_metrics

from openclaw_exporter.errors import ConfigError
from openclaw_exporter.plugin import Measurement, Observation, Uptime
from openclaw_exporter.plugin.guard import Guard
from openclaw_exporter.plugin.host import load_plugins
from openclaw_exporter.plugin.options import describe, read_table
from openclaw_exporter.telemetry.catalogue import CATALOGUE
from openclaw_exporter_system import Filesystem, Host, Options
from openclaw_exporter_system.linux import Linux
from openclaw_exporter_system.series import matcher
from support import skip

if TYPE_CHECKING:
    from collections.abc import Mapping


def collect(**table: Any) -> list[Observation]:
    """Collect once from every collector of the plugin, through the host's edge."""
    observations: list[Observation] = []
    loaded = load_plugins({"system": table}, only={"system"})
    assert loaded.failures == ()
    for collector in loaded.collectors:
        checked = Guard(collector.series_budget).check(collector.collector.collect())
        assert checked.rejected == ()
        observations.extend(checked.observations)
    return observations


def series(observations: list[Observation], name: str) -> dict[tuple[Any, ...], float]:
    """Return the values of one metric by their attributes' values."""
    return {
        tuple(o.attributes.values()): o.value
        for o in observations
        if isinstance(o, Measurement) and o.name == name
    }


def test_every_measurement_stands_in_the_catalogue_with_kind_unit_and_attributes() -> None:
    measured = [o for o in collect(per_cpu=True) if isinstance(o, Measurement)]
    assert len(measured) > 20
    for measurement in measured:
        instrument = CATALOGUE[measurement.name]
        assert (measurement.kind, measurement.unit) == (instrument.kind, instrument.unit), measurement.name
        assert set(measurement.attributes) <= set(instrument.attributes), measurement.name


def test_every_metric_of_the_specification_is_measured_here() -> None:
    names = {o.name for o in collect(exclude_devices=[], exclude_interfaces=[]) if isinstance(o, Measurement)}
    wanted = {name for name in CATALOGUE if name.startswith(("system.", "process."))}
    wanted -= {"system.disk.io"} if not psutil.disk_io_counters(perdisk=True) else set()
    assert wanted <= names | {"system.filesystem.usage", "system.filesystem.limit"}


def semantic_conventions() -> Mapping[str, tuple[str, str]]:
    """Return kind and unit of every system and process metric, from OpenTelemetry's own package."""
    found = {}
    for module in (system_metrics, process_metrics):
        for name, make in inspect.getmembers(module, inspect.isfunction):
            if name.startswith("create_"):
                meter = SimpleNamespace(
                    create_counter=lambda name, unit="", **_: (name, "counter", unit),
                    create_up_down_counter=lambda name, unit="", **_: (name, "updowncounter", unit),
                    create_observable_gauge=lambda name, unit="", **_: (name, "gauge", unit),
                    create_histogram=lambda name, unit="", **_: (name, "histogram", unit),
                )
                arguments = (meter, None) if len(inspect.signature(make).parameters) == 2 else (meter,)
                metric, kind, unit = make(*arguments)
                found[metric] = (kind, unit)
    return found


def test_names_kinds_and_units_are_those_of_the_semantic_conventions() -> None:
    conventions = semantic_conventions()
    for measurement in collect():
        if isinstance(measurement, Measurement) and ".load_average." not in measurement.name:
            assert conventions[measurement.name] == (measurement.kind, measurement.unit)


def test_memory_states_add_up_to_the_limit() -> None:
    observations = collect(groups=["memory"])
    (limit,) = series(observations, "system.memory.limit").values()
    usage = series(observations, "system.memory.usage")
    assert sum(usage.values()) == limit == psutil.virtual_memory().total
    assert set(usage) == {("used",), ("free",), ("buffers",), ("cached",)}


def test_cpu_time_grows_with_work_and_is_of_all_cpus() -> None:
    host = Host(Options(groups=("cpu",)))

    def busy() -> float:
        return series(list(host.collect()), "system.cpu.time")[("user",)]

    before, started = busy(), time.process_time()
    while time.process_time() < started + 0.05:
        sum(range(10_000))
    assert busy() > before
    (count,) = series(collect(groups=["cpu"]), "system.cpu.logical.count").values()
    assert count == os.cpu_count()


def test_cpu_time_by_cpu_has_a_series_for_each() -> None:
    times = series(collect(groups=["cpu"], per_cpu=True), "system.cpu.time")
    online = re.findall(r"^cpu(\d+) ", Path("/proc/stat").read_text(), re.MULTILINE)
    assert {key[1] for key in times} == set(map(int, online))


def test_filesystem_sizes_are_those_that_the_kernel_tells() -> None:
    observations = collect(
        groups=["filesystem"], exclude_filesystem_types=["proc"], exclude_mountpoints=["/proc*"]
    )
    limits = series(observations, "system.filesystem.limit")
    assert limits
    for (_, mountpoint, _), limit in limits.items():
        status = os.statvfs(mountpoint)
        assert limit == status.f_blocks * status.f_frsize
    devices = [key[0] for key in limits if key[0].startswith("/")]
    assert len(set(devices)) == len(devices)


def test_a_filesystem_that_cannot_be_asked_costs_only_itself(tmp_path: Path) -> None:
    table = tmp_path / "proc/self/mounts"
    table.parent.mkdir(parents=True)
    table.write_text(
        "/dev/gone /no/such/mount ext4 rw 0 0\n"
        "/dev/here / ext4 rw 0 0\n"
        "/dev/here /tmp ext4 rw 0 0\n"
        "server:/x /tmp nfs4 rw 0 0\n"
    )
    machine = Linux(tmp_path)
    checked = Guard().check(Filesystem(Options(), machine).collect())
    assert {o.attributes["system.device"] for o in checked.observations if isinstance(o, Measurement)} == {
        "/dev/here"
    }
    assert [rejection.reason for rejection in checked.rejected] == ["partial"]
    asked = Guard().check(Filesystem(Options(network_filesystems=True), machine).collect())
    devices = {o.attributes["system.device"] for o in asked.observations if isinstance(o, Measurement)}
    assert devices == {"/dev/here", "server:/x"}


def test_a_group_that_the_machine_does_not_offer_costs_only_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def missing(**_: object) -> None:
        raise FileNotFoundError(2, "No such file", "/proc/diskstats")

    monkeypatch.setattr(psutil, "disk_io_counters", missing)
    checked = Guard().check(Host(Options(groups=("disk", "load")), tmp_path).collect())
    assert len(checked.observations) == 3
    assert [rejection.reason for rejection in checked.rejected] == ["partial"]
    with pytest.raises(FileNotFoundError):
        list(Host(Options(groups=("disk",)), tmp_path).collect())


def test_disks_and_interfaces_are_counted_as_the_kernel_does() -> None:
    everything = collect(groups=["disk", "network"], exclude_devices=[], exclude_interfaces=[])
    received = series(everything, "system.network.io")
    assert ("receive", "lo") in received
    assert {key[1] for key in received} == set(psutil.net_io_counters(pernic=True))
    assert not series(collect(groups=["network"]), "system.network.io").keys() & {("receive", "lo")}


def test_the_exporters_own_process() -> None:
    observations = collect(groups=["process"])
    (uptime,) = series(observations, "process.uptime").values()
    (memory,) = series(observations, "process.memory.usage").values()
    (descriptors,) = series(observations, "process.unix.file_descriptor.count").values()
    assert 0 <= uptime < time.time() - psutil.Process().create_time() + 1
    assert memory > 1_000_000
    assert descriptors >= 3
    assert set(series(observations, "process.cpu.time")) == {("user",), ("system",)}


def test_uptime_is_the_machines_or_the_processes() -> None:
    (host,) = [o.seconds for o in collect(groups=["uptime"]) if isinstance(o, Uptime)]
    (process,) = [o.seconds for o in collect(groups=["uptime"], uptime="process") if isinstance(o, Uptime)]
    assert abs(host - (time.time() - psutil.boot_time())) < 5
    assert process < host


def test_groups_choose_the_collectors() -> None:
    loaded = load_plugins({"system": {"groups": ["filesystem"]}}, only={"system"})
    assert [collector.name for collector in loaded.collectors] == ["filesystem"]
    assert collect(groups=[]) == []
    assert {o.name for o in collect(groups=["load"]) if isinstance(o, Measurement)} == {
        f"system.cpu.load_average.{minutes}" for minutes in ("1m", "5m", "15m")
    }


DEFAULTS = Options()


@pytest.mark.parametrize(
    ("patterns", "left_out", "kept"),
    [
        (
            DEFAULTS.exclude_devices,
            "loop0 ram1 zram0 sda1 vdb12 xvda1 nvme0n1p2 mmcblk0p1 sr0 fd0",
            "sda vdb xvda nvme0n1 mmcblk0 dm-0 md0",
        ),
        (
            DEFAULTS.exclude_interfaces,
            "lo veth12ab docker0 br-1a virbr0 cali12 cni0",
            "eth0 ens5 wlan0 bond0 wg0",
        ),
        (DEFAULTS.exclude_filesystem_types, "overlay proc cgroup2 squashfs", "ext4 xfs btrfs zfs vfat tmpfs"),
        (
            DEFAULTS.exclude_mountpoints,
            "/dev/shm /proc/x /var/lib/docker/overlay2/1/merged /etc/hosts /run/credentials/x.service",  # noqa: S108
            "/ /home /var/lib/docker /boot/efi /data",
        ),
    ],
)
def test_the_default_filters(patterns: tuple[str, ...], left_out: str, kept: str) -> None:
    matches = matcher(patterns)
    assert [name for name in left_out.split() if not matches(name)] == []
    assert [name for name in kept.split() if matches(name)] == []


def node_exporters(flag: str) -> re.Pattern[str]:
    """Return the default of a filter of the installed node_exporter."""
    program = skip.binary("prometheus-node-exporter", "prometheus-node-exporter")
    shown = subprocess.run((program, "--help"), capture_output=True, text=True, check=False)
    found = re.search(rf'--collector\.{flag}-exclude="(.*)"', shown.stdout + shown.stderr)
    assert found is not None
    return re.compile(found[1].replace("\\\\", "\\"))


DEVICES = """ram0 loop7 fd0 hda hda1 sda sda1 sdaa vda vda3 xvda xvda1 nvme0n1 nvme0n1p1 nvme10n2p12
dm-0 md127 mmcblk0 zd0 rbd0 bcache0"""
TYPES = """autofs binfmt_misc bpf cgroup cgroup2 configfs debugfs devpts devtmpfs fusectl hugetlbfs iso9660
mqueue nsfs overlay proc procfs pstore rpc_pipefs securityfs selinuxfs squashfs sysfs tracefs ext4 xfs btrfs
zfs vfat tmpfs ramfs f2fs ntfs3"""
PLACES = """/ /home /var /var/lib/docker /var/lib/docker/overlay2/x/merged /dev /dev/shm /proc /proc/fs/nfsd
/sys /sys/kernel/debug /run /run/lock /run/user/0 /boot/efi /data /devel /system /tmp
/var/lib/containers/storage/overlay/x"""


@pytest.mark.parametrize(
    ("flag", "patterns", "names"),
    [
        ("diskstats.device", DEFAULTS.exclude_devices, DEVICES),
        ("filesystem.fs-types", DEFAULTS.exclude_filesystem_types, TYPES),
        ("filesystem.mount-points", DEFAULTS.exclude_mountpoints, PLACES),
    ],
)
def test_the_default_filters_are_those_of_node_exporter(
    flag: str, patterns: tuple[str, ...], names: str
) -> None:
    """Debian's node_exporter leaves out /mnt and /media too, where a worker's data may well be."""
    theirs, ours = node_exporters(flag), matcher(patterns)
    differently = {name for name in names.split() if ours(name) != bool(theirs.search(name))}
    assert differently == set()


def test_options_are_documented_and_wrong_ones_are_named() -> None:
    assert [info.key for info in describe(Options) if not info.description] == []
    with pytest.raises(ConfigError, match=r"groups\[0\]: got 'cpus'; allowed: one of 'cpu', 'memory'"):
        read_table(Options, {"groups": ["cpus"]}, key="plugins.system")
