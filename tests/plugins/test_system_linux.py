"""The system plugin's own reading of Linux's files beside psutil's, on the same files."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from openclaw_exporter_system.linux import Linux
from openclaw_exporter_system.machine import AnyMachine, Disk, Interface, Memory, Mount

if TYPE_CHECKING:
    from collections.abc import Callable

TICKS = os.sysconf("SC_CLK_TCK")
FILES = ("stat", "meminfo", "vmstat", "diskstats", "net/dev", "self/mounts", "self/statm", "partitions")
ANSWERS = ("cpu_times", "cpu_times_by_cpu", "memory", "disks", "interfaces", "mounts")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What this machine's kernel said at one moment, for both to read."""
    for name in FILES:
        (tmp_path / "proc" / name).parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # a kernel without disks has no list of them
            shutil.copyfile(Path("/proc") / name, tmp_path / "proc" / name)
    # What the kernel means by them is asked of /sys, and has a test of its own.
    mounts = tmp_path / "proc/self/mounts"
    mounts.write_text(re.sub(r"^(rootfs|/dev/root) ", "/dev/other ", mounts.read_text(), flags=re.MULTILINE))
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path / "proc"))
    return tmp_path


@pytest.fixture
def say(root: Path) -> Callable[[str, str], Linux]:
    """Let a file of the kernel say something else."""

    def said(name: str, text: str) -> Linux:
        (root / "proc" / name).write_text(text)
        return Linux(root)

    return said


@pytest.mark.parametrize("answer", ANSWERS)
def test_everything_that_this_machine_says_is_what_psutil_makes_of_it(root: Path, answer: str) -> None:
    said = getattr(Linux(root), answer)()
    assert said == getattr(AnyMachine(), answer)()
    assert said or answer == "disks"


def test_this_process_is_what_psutil_makes_of_it() -> None:
    before, own, after = AnyMachine().own(), Linux().own(), AnyMachine().own()
    assert before.user <= own.user <= after.user
    assert before.system <= own.system <= after.system
    assert own.descriptors == before.descriptors
    assert abs(own.resident - after.resident) < 8 << 20
    # psutil reckons from a clock of whole seconds.
    assert abs(Linux().own_age() - AnyMachine().own_age()) < 2


def test_psutil_is_not_even_imported() -> None:
    code = """
import sys
from openclaw_exporter_system import Filesystem, Host, Options
everywhere = Options(exclude_filesystem_types=(), exclude_mountpoints=())
assert list(Host(Options()).collect()) and list(Filesystem(everywhere).collect())
print(*(name for name in sys.modules if name.startswith("psutil")))
"""
    ended = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, check=True)
    assert ended.stdout == "\n"


def test_cpus_that_are_offline_keep_their_numbers(say: Callable[[str, str], Linux]) -> None:
    machine = say(
        "stat",
        "cpu  700 10 300 9000 50 4 6 20 99 1\n"
        "cpu0 400 5 100 4000 20 1 2 10 99 1\n"
        "cpu2 300 5 200 5000 30 3 4 10 0 0\n"
        "intr 12 1 2 3\nctxt 5\nbtime 1\n",
    )
    assert machine.cpu_times() == {
        "user": 700 / TICKS,
        "nice": 10 / TICKS,
        "system": 300 / TICKS,
        "idle": 9000 / TICKS,
        "iowait": 50 / TICKS,
        "interrupt": 4 / TICKS + 6 / TICKS,
        "steal": 20 / TICKS,
    }
    by_cpu = machine.cpu_times_by_cpu()
    assert {number: modes["user"] for number, modes in by_cpu.items()} == {0: 400 / TICKS, 2: 300 / TICKS}


def test_modes_that_a_kernel_does_not_tell_apart_are_left_out(say: Callable[[str, str], Linux]) -> None:
    times = say("stat", "cpu  700 10 300 9000\ncpu0 700 10 300 9000\nintr 1\n").cpu_times()
    assert set(times) == {"user", "nice", "system", "idle", "interrupt"}


@pytest.mark.parametrize("text", ["cpu  \n", "cpu  1 2 3\ncpu0 1 2 3\n"])
def test_times_that_are_too_few_are_told(say: Callable[[str, str], Linux], text: str) -> None:
    with pytest.raises(RuntimeError, match="fewer than four"):
        say("stat", text).cpu_times()


def test_memory_without_what_newer_kernels_tell(say: Callable[[str, str], Linux]) -> None:
    machine = say(
        "meminfo",
        "MemTotal:       1000 kB\nMemFree:         200 kB\nBuffers:          30 kB\nCached:          400 kB\n"
        "SwapCached:        5 kB\nSwapTotal:        50 kB\nSwapFree:         40 kB\nHugePages_Total:   0\n",
    )
    kib = 1024
    assert machine.memory() == Memory(1000 * kib, 200 * kib, 30 * kib, 400 * kib, 50 * kib, 40 * kib)


def test_memory_that_is_not_as_documented_is_left_to_psutil(say: Callable[[str, str], Linux]) -> None:
    """A kernel without buffers (psutil's issue 1010), and one without swap space, which sysinfo(2) knows."""
    machine = say(
        "meminfo",
        "MemTotal: 1000 kB\nMemFree: 200 kB\nMemAvailable: 500 kB\nCached: 400 kB\nShmem: 1 kB\n"
        "Active: 1 kB\nInactive: 1 kB\nSlab: 1 kB\n",
    )
    with pytest.warns(RuntimeWarning, match="buffers memory stats"):
        memory = machine.memory()
    assert memory[:4] == (1000 * 1024, 200 * 1024, 0, 400 * 1024)
    assert memory.swap_total == psutil.swap_memory().total


@pytest.mark.parametrize(
    "line",
    [
        "   8       0 sda 5 1 80 9 7 2 160 9 0 9 9",
        "   8       0 sda 5 1 80 9 7 2 160 9 0 9 9 1 1 1 1",
        " 259       0 sda 5 1 80 9 7 2 160 9 0 9 9 1 1 1 1 3 3",
        "   8       1 sda 5 80 7 160",  # a partition in the days of Linux 2.6
        "   8       0 5 sda 5 1 80 9 7 2 160 9 0 9 9",  # Linux 2.4
    ],
)
def test_disks_of_every_kernel(say: Callable[[str, str], Linux], line: str) -> None:
    other = "   8      16 sdb 1 1 2 1 1 1 4 1 0 1 1 0 0 0 0"
    machine = say("diskstats", f"{other}\n{line}\n")
    assert machine.disks() == AnyMachine().disks()
    assert machine.disks()["sdb"] == Disk(1024, 2048)
    assert set(machine.disks()) == {"sda", "sdb"}


def test_disks_whose_lines_nobody_can_read_are_an_error(say: Callable[[str, str], Linux]) -> None:
    with pytest.raises(ValueError, match="not sure how to interpret line"):
        say("diskstats", "   8 0 sda 5 1 80\n").disks()


HEADER = "Inter-|   Receive  |  Transmit\n face |bytes    packets |bytes\n"


def test_interfaces_with_counters_that_stick_to_their_names(say: Callable[[str, str], Linux]) -> None:
    machine = say(
        "net/dev",
        f"{HEADER}"
        "    lo: 100 1 0 0 0 0 0 0 100 1 0 0 0 0 0 0\n"
        "  eth0:18446744073709551615 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n"
        "eth0:1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n",
    )
    assert machine.interfaces() == AnyMachine().interfaces()
    assert machine.interfaces()["eth0"] == Interface(2**64 - 1, 9, 3, 11)
    assert machine.interfaces()["eth0:1"] == Interface(1, 9, 3, 11)


def test_a_machine_without_interfaces_says_so(say: Callable[[str, str], Linux]) -> None:
    assert say("net/dev", HEADER).interfaces() == {}


def test_mounts_with_every_kind_of_name(say: Callable[[str, str], Linux]) -> None:
    machine = say(
        "self/mounts",
        "none /mnt tmpfs rw 0 0\n"
        "/dev/sdb1 /media/two\\040words\\011and\\134more ext4 rw 0 0\n"
        "//server/share /net/\u00e4\rb cifs rw 0 0\n",
    )
    assert machine.mounts() == [
        Mount("", "/mnt", "tmpfs"),
        Mount("/dev/sdb1", "/media/two words\tand\\more", "ext4"),
        Mount("//server/share", "/net/\u00e4\rb", "cifs"),
    ]
    assert machine.mounts() == AnyMachine().mounts()


def test_the_root_filesystems_device_is_called_by_its_name(root: Path) -> None:
    (root / "proc/self/mounts").write_text("/dev/root / ext4 rw 0 0\n")
    assert Linux(root).mounts() == [Mount("/dev/root", "/", "ext4")]
    number = root.stat().st_dev
    place = root / f"sys/dev/block/{os.major(number)}:{os.minor(number)}"
    place.mkdir(parents=True)
    (place / "uevent").write_text("MAJOR=8\nMINOR=1\nDEVNAME=sda1\nDEVTYPE=partition\n")
    assert Linux(root).mounts() == [Mount("/dev/root", "/", "ext4")]  # there is no such device file
    block = next((disk for disk in Path("/dev").iterdir() if disk.is_block_device()), None)
    if block is None:
        pytest.skip("no block device in /dev")
    (root / "dev").mkdir()
    (root / "dev/sda1").symlink_to(block)
    assert Linux(root).mounts() == [Mount("/dev/sda1", "/", "ext4")]


@pytest.mark.parametrize("answer", ANSWERS)
def test_files_that_are_not_there_are_left_to_psutil(
    root: Path, answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "PROCFS_PATH", "/proc")
    shutil.rmtree(root / "proc")
    assert getattr(Linux(root), answer)()
