"""Real directory trees in the layout of the kernel's GPU drivers: what AMD's and Intel's cards show in sysfs.

The layouts are those of the Linux kernel's Documentation: gpu/amdgpu/thermal.rst and driver-misc.rst
(sensors, `mem_info_vram_*`, `product_name`, `unique_id`), gpu/amdgpu/ras.rst (`ras/*_err_count`),
ABI/testing/sysfs-driver-intel-xe-hwmon and sysfs-driver-intel-i915-hwmon, hwmon/sysfs-interface.rst (units),
ABI/testing/sysfs-devices-power (`runtime_status`); `/sys/class/drm` holds links into `/sys/devices`, as in
admin-guide/sysfs-rules.rst.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

NAVI = {
    "product_name": "AMD Instinct MI210",
    "unique_id": "8ccdc6eec0e2b5d4",
    "gpu_busy_percent": "63",
    "mem_info_vram_total": "68702699520",
    "mem_info_vram_used": "10485760",
    "mem_info_gtt_total": "540835667968",
    "power/runtime_status": "active",
    "hwmon/hwmon4/name": "amdgpu",
    "hwmon/hwmon4/temp1_input": "41000",
    "hwmon/hwmon4/temp1_label": "edge",
    "hwmon/hwmon4/temp2_input": "47000",
    "hwmon/hwmon4/temp2_label": "junction",
    "hwmon/hwmon4/temp2_crit": "100000",
    "hwmon/hwmon4/temp3_input": "52000",
    "hwmon/hwmon4/temp3_label": "mem",
    "hwmon/hwmon4/power1_average": "42000000",
    "hwmon/hwmon4/power1_cap": "300000000",
    "ras/features": "feature mask: 0x5f",
    "ras/umc_err_count": "ue: 1\nce: 12\nde: 2",
    "ras/gfx_err_count": "ue: 0\nce: 3",
}
BATTLEMAGE = {
    "tile0/physical_vram_size_bytes": "12884901888",
    "tile0/gt0/gtidle/idle_residency_ms": "1000",
    "tile0/gt1/gtidle/idle_residency_ms": "1000",
    "power/runtime_status": "active",
    "hwmon/hwmon3/name": "xe",
    "hwmon/hwmon3/energy1_input": "7500000",
    "hwmon/hwmon3/energy1_label": "card",
    "hwmon/hwmon3/energy2_input": "5000000",
    "hwmon/hwmon3/energy2_label": "pkg",
    "hwmon/hwmon3/power1_max": "190000000",
    "hwmon/hwmon3/temp2_input": "52000",
    "hwmon/hwmon3/temp2_label": "pkg",
    "hwmon/hwmon3/temp3_input": "60000",
    "hwmon/hwmon3/temp3_label": "vram",
}
ALCHEMIST = {
    "power/runtime_status": "active",
    "hwmon/hwmon2/name": "i915",
    "hwmon/hwmon2/energy1_input": "32020000",
    "hwmon/hwmon2/power1_max": "43000000",
    "hwmon/hwmon2/temp1_input": "44000",
}


class Machine:
    """The `/sys` and `/dev` of a machine."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for place in ("sys/class/drm", "sys/bus/pci/devices", "sys/bus/pci/drivers", "dev/dri", "proc"):
            (root / place).mkdir(parents=True)
        (root / "dev/null").touch()

    def device(
        self, address: str, vendor: str, number: str, driver: str | None, files: dict[str, str] | None = None
    ) -> Path:
        """Plug a display controller into the PCI bus."""
        device = self.root / "sys/devices/pci0000:00" / address
        device.mkdir(parents=True)
        (self.root / "sys/bus/pci/devices" / address).symlink_to(device)
        if driver is not None:
            (self.root / "sys/bus/pci/drivers" / driver).mkdir(exist_ok=True)
            (device / "driver").symlink_to(self.root / "sys/bus/pci/drivers" / driver)
        for name, text in {"vendor": vendor, "device": number, "class": "0x030000", **(files or {})}.items():
            (device / name).parent.mkdir(parents=True, exist_ok=True)
            (device / name).write_text(f"{text}\n")
        return device

    def card(self, number: int, *device: Any) -> Path:
        """Plug in a controller whose driver made a card, with a connector and nodes in /dev/dri."""
        path = self.device(*device)
        for name in (f"card{number}", f"card{number}-DP-1", f"renderD{128 + number}"):
            node = path / "drm" / name
            node.mkdir(parents=True)
            (node / "device").symlink_to(path)
            (self.root / "sys/class/drm" / name).symlink_to(node)
        for name in (f"card{number}", f"renderD{128 + number}"):
            (self.root / "dev/dri" / name).touch()
        return path
