"""The gpu plugin's look at a machine that spares it a process: trees of files as the kernel shows them."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from openclaw_exporter.plugin import Capacity, Tag
from openclaw_exporter_gpu import Gpus, Options
from openclaw_exporter_gpu.presence import LOOK_AGAIN, Signs

if TYPE_CHECKING:
    from pathlib import Path

NONE = [Tag("gpu", "false"), Capacity("gpus", 0)]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with a display of QEMU's and a network card of NVIDIA's."""
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    for place in ("dev", "proc", "etc", "usr/lib"):
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "dev/null").touch()
    device(tmp_path, "0000:00:01.0", "0x1af4", "0x030000")
    device(tmp_path, "0000:03:00.0", "0x10de", "0x020000")
    return tmp_path


def device(root: Path, address: str, vendor: str, kind: str, *, driver: str = "") -> Path:
    """Put a device on the PCI bus."""
    place = root / "sys/bus/pci/devices" / address
    place.mkdir(parents=True)
    (place / "vendor").write_text(f"{vendor}\n")
    (place / "class").write_text(f"{kind}\n")
    if driver:
        bound = root / "sys/bus/pci/drivers" / driver
        bound.mkdir(parents=True, exist_ok=True)
        (place / "driver").symlink_to(bound)
    return place


def test_a_machine_without_any_sign_has_no_gpu(machine: Path) -> None:
    assert Gpus(Options(), machine).absent() == NONE
    assert Gpus(Options(tag=False, capacity=False), machine).absent() == []


def test_a_machine_without_a_pci_bus_has_no_gpu(machine: Path) -> None:
    (machine / "sys/bus").rename(machine / "sys/other")
    assert Gpus(Options(), machine).absent() == NONE


@pytest.mark.parametrize(
    "sign",
    [
        "dev/nvidia0",
        "dev/nvidiactl",
        "dev/nvhost-gpu",
        "dev/dxg",
        "proc/driver/nvidia",
        "usr/lib/libnvidia-ml.so.1",
    ],
)
def test_a_driver_its_devices_and_its_library_need_a_look(machine: Path, sign: str) -> None:
    gpus = Gpus(Options(), machine)
    assert gpus.absent() == NONE
    (machine / sign).parent.mkdir(parents=True, exist_ok=True)
    (machine / sign).touch()
    assert gpus.absent() is None
    (machine / sign).unlink()
    assert gpus.absent() == NONE


def test_a_library_that_the_loader_knows_needs_a_look(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = Gpus(Options(), machine)
    (machine / "etc/ld.so.cache").write_bytes(b"glibc-ld.so.cache1.1\0libz.so.1\0")
    assert gpus.absent() == NONE
    (machine / "etc/ld.so.cache").write_bytes(b"glibc-ld.so.cache1.1\0libnvidia-ml.so.1\0")
    assert gpus.absent() is None
    (machine / "etc/ld.so.cache").unlink()
    (machine / "own").mkdir()
    (machine / "own/libnvidia-ml.so.1").touch()
    monkeypatch.setenv("LD_LIBRARY_PATH", f"/nowhere:{machine}/own")
    assert gpus.absent() is None


@pytest.mark.parametrize(
    ("vendor", "kind"),
    [("0x10de", "0x030200"), ("0x1002", "0x038000"), ("0x1002", "0x120000"), ("0x8086", "0x030000")],
)
def test_a_gpu_that_is_plugged_in_needs_a_look_until_it_is_handed_on(
    machine: Path, vendor: str, kind: str
) -> None:
    gpus = Gpus(Options(), machine)
    assert gpus.absent() == NONE
    place = device(machine, "0000:41:00.0", vendor, kind)
    assert gpus.absent() is None
    handed_on = machine / "sys/bus/pci/drivers/vfio-pci"
    handed_on.mkdir(parents=True)
    (place / "driver").symlink_to(handed_on)
    assert gpus.absent() == NONE
    (place / "driver").unlink()
    assert gpus.absent() is None


def test_integrated_graphics_need_a_look_when_asked_for_and_an_npu_never(machine: Path) -> None:
    device(machine, "0000:00:02.0", "0x8086", "0x030000", driver="i915")
    device(machine, "0000:00:0b.0", "0x8086", "0x120000", driver="intel_vpu")
    assert Gpus(Options(), machine).absent() == NONE
    assert Gpus(Options(integrated=True), machine).absent() is None


def test_a_machine_that_cannot_be_looked_at_needs_a_look(machine: Path) -> None:
    (machine / "sys/bus/pci/devices/0000:03:00.0/class").write_text("gone\n")
    assert Gpus(Options(), machine).absent() is None
    (machine / "dev/null").unlink()
    (machine / "dev").rmdir()
    assert Gpus(Options(), machine).absent() is None


def aged(path: Path, seconds: float) -> int:
    """Let a file or folder have changed last so long ago; return when, in nanoseconds."""
    changed = time.time_ns() - int(seconds * 1e9)
    os.utime(path, ns=(changed, changed))
    return changed


@pytest.mark.parametrize("file", ["dev/nvidia0", "etc/ld.so.cache"])
def test_what_seems_unchanged_is_looked_into_again_after_a_while(machine: Path, file: str) -> None:
    now = 0.0
    signs = Signs(machine, integrated=False, clock=lambda: now)
    (machine / "etc/ld.so.cache").write_bytes(b"glibc-ld.so.cache1.1\0libnothing-at-a.so\0")
    place = machine / file if file.startswith("etc") else machine / "dev"
    changed = aged(place, 60)
    assert not signs.seen()
    # A file system that does not tell: the time of the last change stays what it was.
    (machine / file).write_bytes(b"glibc-ld.so.cache1.1\0libnvidia-ml.so.1\0\0")
    os.utime(place, ns=(changed, changed))
    now = LOOK_AGAIN - 1
    assert not signs.seen()
    now = LOOK_AGAIN
    assert signs.seen()


@pytest.mark.parametrize("seconds", [60, -5, -60])
def test_a_device_file_is_found_at_once_however_the_last_change_is_dated(
    machine: Path, seconds: float
) -> None:
    signs = Signs(machine, integrated=False)
    changed = aged(machine / "dev", seconds)
    assert not signs.seen()
    (machine / "dev/nvidia0").touch()
    if seconds < 0:  # dated ahead: a clock was set back
        os.utime(machine / "dev", ns=(changed, changed))
    assert signs.seen()
    (machine / "dev/nvidia0").unlink()
    assert not signs.seen()


def test_a_machine_whose_sysfs_cannot_be_looked_at_needs_a_look(machine: Path) -> None:
    (machine / "sys").rename(machine / "other")
    assert Gpus(Options(), machine).absent() is None
