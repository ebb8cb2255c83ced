"""The limits of cgroups: on real ones of a real kernel, and on directory trees as the kernel shows them.

Cgroups of version 2 with controllers belong to whoever runs the machine, so the real ones are made in a Linux
kernel that runs as a process (user-mode Linux), with this machine's files as its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from openclaw_exporter.plugin import Measurement
from openclaw_exporter.plugin.guard import Guard
from openclaw_exporter_system import Host, Options
from openclaw_exporter_system.cgroup import Cgroup, Limits, TaskLimit
from support import skip

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20

GUEST = """
import ctypes, json, os, pathlib, sys, time, traceback
sys.path[:0] = PATHS
from openclaw_exporter_system import Host, Options

libc, out = ctypes.CDLL(None, use_errno=True), pathlib.Path(OUT)
top = pathlib.Path("/sys/fs/cgroup")

def mount(kind, place):
    assert libc.mount(kind.encode(), place.encode(), kind.encode(), 0, None) == 0, (kind, ctypes.get_errno())

def collected(**options):
    host = Host(Options(groups=("cpu", "memory", "pids"), **options))
    return [[o.name, sorted(o.attributes.values()), o.value] for o in host.collect()]

def raw(place, *names):
    return {name: (place / name).read_text() for name in names}

def main():
    for kind, place in (("proc", "/proc"), ("sysfs", "/sys"), ("cgroup2", str(top))):
        mount(kind, place)
    (out / "started").touch()
    answers = {"cpus": os.cpu_count(), "unlimited": collected()}
    controllers = "+cpu +memory +pids"
    (top / "cgroup.subtree_control").write_text(controllers)
    part = top / "chimera.slice"
    service = part / "openclaw-exporter.service"
    service.mkdir(parents=True)
    (part / "cgroup.subtree_control").write_text(controllers)
    (part / "memory.max").write_text("128M")
    (part / "cpu.max").write_text("50000 100000")
    (part / "pids.max").write_text("50")
    (service / "memory.max").write_text("96M")
    (service / "pids.max").write_text("40")
    (service / "cgroup.procs").write_text("0")
    held = bytearray(os.urandom(20 << 20))
    started = time.process_time()
    while time.process_time() < started + 0.3:
        pass
    answers["slice"] = collected()
    answers["raw"] = raw(part, "memory.current", "memory.max", "cpu.stat", "pids.current")
    answers["service"] = collected(service_limits=True)
    answers["host"] = collected(limits="host")
    (part / "memory.max").write_text("256M")
    (part / "cpu.max").write_text("max")
    answers["raised"] = collected()
    (part / "cpu.max").write_text("50000 100000")
    # As a container has it: a namespace whose root is its own cgroup, and a mount of that root only.
    assert libc.unshare(0x02000000 | 0x00020000) == 0  # CLONE_NEWCGROUP, CLONE_NEWNS
    assert libc.umount(str(top).encode()) == 0
    mount("cgroup2", str(top))
    answers["own path"] = pathlib.Path("/proc/self/cgroup").read_text()
    answers["container"] = collected()
    del held
    (out / "answers").write_text(json.dumps(answers))

try:
    main()
except BaseException:
    (out / "failed").write_text(traceback.format_exc())
os.sync()
libc.reboot(0x4321FEDC)  # power off
"""

Answer = dict[tuple[str, ...], float]


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the plugin said in the cgroups of a kernel of its own."""
    kernel = skip.binary("linux.uml", "user-mode-linux")
    folder = tmp_path_factory.mktemp("guest")
    init = folder / "init"
    paths = f"PATHS = {[path for path in sys.path if path]!r}\nOUT = {str(folder)!r}\n"
    init.write_text(f"#!{sys.executable} -B\n{paths}{GUEST}")
    init.chmod(0o755)
    command = (kernel, "rootfstype=hostfs", "rootflags=/", "rw", f"init={init}", "mem=512M", "con=null")
    console = subprocess.run(
        (*command, "con0=fd:0,fd:1", f"uml_dir={folder}"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=180,
        check=False,
    ).stdout.decode(errors="replace")
    if not (folder / "started").exists():
        pytest.skip(f"user-mode Linux does not start here: {console[-300:]}")
    failed = folder / "failed"
    assert not failed.exists(), failed.read_text()
    answers: dict[str, Any] = json.loads((folder / "answers").read_text())
    return answers


def answer(guest: dict[str, Any], scene: str) -> Answer:
    return {(name, *map(str, attributes)): value for name, attributes, value in guest[scene]}


KERNEL = pytest.mark.hardware("a kernel that can be started as a process (user-mode Linux)")


@KERNEL
def test_in_a_real_slice_its_limits_count_and_not_the_hosts(guest: dict[str, Any]) -> None:
    found = answer(guest, "slice")
    assert found["system.memory.limit",] == 128 * MIB
    states = {state: found["system.memory.usage", state] for state in ("used", "free", "cached")}
    assert sum(states.values()) == 128 * MIB
    assert 20 * MIB <= states["used"] < 128 * MIB
    assert ("system.memory.usage", "buffers") not in found
    assert abs(128 * MIB - states["free"] - int(guest["raw"]["memory.current"])) < 8 * MIB
    assert found["cgroup.cpu.limit",] == 0.5
    assert found["system.cpu.logical.count",] == 1
    stat = dict(line.split() for line in guest["raw"]["cpu.stat"].splitlines())
    assert 0.1 < found["system.cpu.time", "user"] <= int(stat["user_usec"]) / 1e6
    assert 0 < found["cgroup.cpu.throttled.time",] <= int(stat["throttled_usec"]) / 1e6
    assert ("system.cpu.time", "idle") not in found
    assert found["cgroup.pids.limit",] == 50
    assert found["cgroup.pids.usage",] == int(guest["raw"]["pids.current"]) == 1


@KERNEL
def test_the_exporters_own_service_counts_only_when_asked(guest: dict[str, Any]) -> None:
    found = answer(guest, "service")
    assert (found["system.memory.limit",], found["cgroup.pids.limit",]) == (96 * MIB, 40)
    assert found["cgroup.cpu.limit",] == 0.5


@KERNEL
def test_the_hosts_own_figures_can_be_had(guest: dict[str, Any]) -> None:
    for scene in ("host", "unlimited"):
        found = answer(guest, scene)
        assert found["system.memory.limit",] > 300 * MIB
        assert found["system.cpu.logical.count",] == guest["cpus"]
        assert ("system.cpu.time", "idle") in found
        assert not [key for key in found if key[0].startswith("cgroup.")]


@KERNEL
def test_a_limit_that_is_changed_counts_at_once(guest: dict[str, Any]) -> None:
    found = answer(guest, "raised")
    assert found["system.memory.limit",] == 256 * MIB
    assert ("cgroup.cpu.limit",) not in found
    assert ("system.cpu.time", "idle") in found


@KERNEL
def test_in_a_namespace_as_containers_have_it_the_mounted_root_counts(guest: dict[str, Any]) -> None:
    assert guest["own path"] == "0::/\n"
    found = answer(guest, "container")
    assert (found["system.memory.limit",], found["cgroup.pids.limit",]) == (96 * MIB, 40)


class Tree:
    """A machine's `/proc/self` and cgroups, in the words of cgroup-v2.rst and proc(5)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "proc/self").mkdir(parents=True)
        self.mounted()

    def process(self, path: str) -> None:
        (self.root / "proc/self/cgroup").write_text(f"1:name=systemd:/other\n0::{path}\n")

    def mounted(self, top: str = "/", place: str = "/sys/fs/cgroup") -> None:
        lines = (
            "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda1 rw",
            "24 22 0:22 / /sys/fs/cgroup/cpu rw,nosuid shared:8 - cgroup cgroup rw,cpu",
            f"25 22 0:23 {top} {place} ro,nosuid,noexec,relatime shared:9 - cgroup2 cgroup2 rw",
        )
        (self.root / "proc/self/mountinfo").write_text("".join(f"{line}\n" for line in lines))

    def cgroup(self, path: str, **files: str) -> None:
        folder = self.root / "sys/fs/cgroup" / path.strip("/")
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name.replace("_", ".", 1)).write_text(f"{content}\n")

    def read(self, **options: bool) -> Limits:
        return Cgroup(self.root, **options).read()

    def collect(self, **options: Any) -> dict[tuple[str, ...], float]:
        host = Host(Options(groups=("cpu", "memory", "pids"), **options), self.root)
        checked = Guard().check(host.collect())
        assert checked.rejected == ()
        measured = [o for o in checked.observations if isinstance(o, Measurement)]
        return {(o.name, *map(str, o.attributes.values())): o.value for o in measured}


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


CPU_STAT = "usage_usec 9000000\nuser_usec 6000000\nsystem_usec 3000000\nnr_periods 9\nthrottled_usec 500000"


def test_the_tightest_limit_of_all_levels_counts_with_what_is_used_there(tree: Tree) -> None:
    tree.process("/chimera.slice/run.scope/inner")
    tree.cgroup("/", cgroup_controllers="cpu memory pids")
    tree.cgroup(
        "/chimera.slice", memory_max="1000000", memory_current="700000", pids_max="20", pids_current="7"
    )
    tree.cgroup("/chimera.slice/run.scope", memory_max="2000000", memory_current="600000", pids_max="max")
    tree.cgroup("/chimera.slice/run.scope", cpu_max="150000 100000", cpu_stat=CPU_STAT)
    tree.cgroup("/chimera.slice/run.scope/inner", memory_max="max", cpu_max="max 100000", pids_max="20")
    limits = tree.read()
    assert limits.memory is not None
    assert (limits.memory.limit, limits.memory.current) == (1_000_000, 700_000)
    assert limits.cpu is not None
    assert (limits.cpu.cpus, limits.cpu.throttled) == (1.5, 0.5)
    assert limits.cpu.modes == {"user": 6.0, "system": 3.0}
    assert limits.tasks == TaskLimit(20, 7)  # of equal limits, the one that more processes share


def test_the_states_of_limited_memory_add_up(tree: Tree) -> None:
    tree.process("/")
    stat = "anon 500000\nfile 150000\nslab_reclaimable 50000\nslab_unreclaimable 1"
    tree.cgroup("/", memory_max="1000000", memory_current="700000", memory_stat=stat)
    tree.cgroup("/", memory_swap_max="0", memory_swap_current="0")
    folder = tree.root / "sys/fs/cgroup"
    for name in ("max", "current"):
        (folder / f"memory.swap_{name}").rename(folder / f"memory.swap.{name}")
    found = tree.collect()
    assert found["system.memory.limit",] == 1_000_000
    assert found["system.memory.usage", "used"] == 500_000
    assert found["system.memory.usage", "cached"] == 200_000
    assert found["system.memory.usage", "free"] == 300_000
    assert (found["system.paging.usage", "used"], found["system.paging.usage", "free"]) == (0, 0)


def test_a_limit_beyond_what_the_machine_has_is_none(tree: Tree) -> None:
    tree.process("/")
    tree.cgroup(
        "/", memory_max=str(1 << 60), memory_current="5", cpu_max="100000000 100000", cpu_stat=CPU_STAT
    )
    found = tree.collect()
    assert found["system.memory.limit",] == psutil.virtual_memory().total
    assert found["system.cpu.logical.count",] == os.cpu_count()
    assert found["cgroup.cpu.limit",] == 1_000
    assert ("system.cpu.time", "idle") in found


@pytest.mark.parametrize(("cpus", "count"), [("0", 1), ("0-3", 4), ("0-1,4,6-7", 5), ("", os.cpu_count())])
def test_a_cpuset_counts_its_cpus(tree: Tree, cpus: str, count: int) -> None:
    tree.process("/a")
    tree.cgroup("/a", cpuset_cpus_effective=cpus)
    folder = tree.root / "sys/fs/cgroup/a"
    (folder / "cpuset.cpus_effective").rename(folder / "cpuset.cpus.effective")
    assert tree.collect()["system.cpu.logical.count",] == count


@pytest.mark.parametrize(
    ("path", "limit"),
    [
        ("/system.slice/openclaw-exporter.service", 3),
        ("/system.slice/openclaw-exporter.service/inner", 3),
        ("/system.slice/docker-1.scope", 2),
        ("/user.slice/user-1.slice/user@1.service/app.slice/x.scope", 2),
        ("/user.slice/user-1.slice/user@1.service/app.slice/x.service", 3),
        ("/alone.service", None),
    ],
)
def test_limits_of_a_systemd_service_are_its_own(tree: Tree, path: str, limit: int | None) -> None:
    """The service's own limit keeps the exporter small; it says nothing about the node."""
    tree.process(path)
    tree.cgroup(path, pids_max="2", pids_current="1")
    tree.cgroup(path.removesuffix("/inner").rpartition("/")[0], pids_max="3", pids_current="1")
    if path == "/alone.service":
        (tree.root / "sys/fs/cgroup/pids.max").unlink()
    tasks = tree.read().tasks
    assert (tasks.limit if tasks else None) == limit
    own = tree.read(own_service=True).tasks
    assert own is not None
    assert own.limit == 2


@pytest.mark.parametrize(
    ("top", "path", "limit"),
    [
        ("/", "/a/b", 1),
        ("/", "/a", 2),
        ("/docker/abc", "/docker/abc", 3),  # the host's namespace, a mount of the container's cgroup
        ("/docker/abc", "/docker/abc/a", 2),
        ("/docker/abc", "/docker/abcdef", 3),
        ("/..", "/", 3),
        ("/", "/../other", 3),  # moved out of its namespace: only the root can be seen
        ("/", "/gone/for/good", 3),
    ],
)
def test_the_way_from_the_process_to_the_mount(tree: Tree, top: str, path: str, limit: int) -> None:
    tree.mounted(top, "/sys/fs/cgroup")
    tree.process(path)
    for place, number in (("/", 3), ("/a", 2), ("/a/b", 1)):
        tree.cgroup(place, pids_max=str(number), pids_current="0")
    assert tree.read().tasks == TaskLimit(limit, 0)


def test_a_mount_point_with_a_space(tree: Tree) -> None:
    tree.mounted(place="/sys/fs/my\\040cgroup")
    tree.process("/")
    tree.cgroup("/", pids_max="5", pids_current="1")
    (tree.root / "sys/fs/cgroup").rename(tree.root / "sys/fs/my cgroup")
    assert tree.read().tasks == TaskLimit(5, 1)


def test_without_cgroups_of_version_2_there_are_no_limits(tree: Tree) -> None:
    (tree.root / "proc/self/cgroup").write_text("4:memory:/x\n1:cpu:/\n")
    assert tree.read() == Limits()
    (tree.root / "proc/self/mountinfo").write_text("")
    tree.process("/")
    assert tree.read() == Limits()
    (tree.root / "proc/self/cgroup").unlink()
    assert tree.read() == Limits()


def test_limits_that_cannot_be_read_are_unknown_and_not_the_hosts(tree: Tree) -> None:
    tree.process("/")
    tree.cgroup("/", memory_max="garbage")
    checked = Guard().check(Host(Options(groups=("memory", "load")), tree.root).collect())
    assert [rejection.reason for rejection in checked.rejected] == ["partial"]
    names = {o.name for o in checked.observations if isinstance(o, Measurement)}
    assert names == {f"system.cpu.load_average.{minutes}" for minutes in ("1m", "5m", "15m")}


def test_a_cgroup_of_this_machine_is_found() -> None:
    """Whatever this machine is, its own files can be read."""
    limits = Cgroup().read()
    assert limits.memory is None or 0 <= limits.memory.cached <= limits.memory.current
    assert limits.cpu is None or limits.cpu.cpus > 0
