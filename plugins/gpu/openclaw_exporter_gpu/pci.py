"""GPUs on the PCI bus (Documentation/ABI/testing/sysfs-bus-pci of the Linux kernel)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NVIDIA: Final = 0x10DE
AMD: Final = 0x1002
INTEL: Final = 0x8086

HANDED_ON: Final = "vfio-pci"
"""The driver of a device that belongs to a virtual machine."""

_DISPLAY: Final = 0x03
_ACCELERATOR: Final = 0x12
_CLASSES: Final = {NVIDIA: (_DISPLAY,), AMD: (_DISPLAY, _ACCELERATOR), INTEL: (_DISPLAY,)}
"""What a vendor's GPUs are: AMD's Instinct MI300 is an accelerator, and Intel's NPUs are none of ours."""


def bus(root: Path) -> list[str]:
    """Return the addresses of all devices.

    Raises:
        OSError: The bus cannot be looked at.
    """
    try:
        return os.listdir(root / "sys/bus/pci/devices")  # noqa: PTH208 - the names are all that is needed
    except FileNotFoundError:  # a machine without PCI
        return []


def kind_of(device: Path) -> int | None:
    """Return the vendor of a device that is a GPU of one that is known, else None.

    Raises:
        OSError: The device cannot be looked at.
        ValueError: It does not tell what it is.
    """
    kind = int((device / "class").read_text(), 16) >> 16
    if kind not in (_DISPLAY, _ACCELERATOR):
        return None
    vendor = int((device / "vendor").read_text(), 16)
    return vendor if kind in _CLASSES.get(vendor, ()) else None


def displays(root: Path, vendor: int) -> Iterator[Path]:
    """Yield a vendor's GPUs, but for those that are handed to a virtual machine (vfio).

    Raises:
        OSError: The bus cannot be looked at.
        ValueError: A device does not tell what it is.
    """
    for name in sorted(bus(root)):
        device = root / "sys/bus/pci/devices" / name
        if kind_of(device) == vendor and driver(device) != HANDED_ON:
            yield device


def is_integrated(device: Path) -> bool:
    """Whether a device is Intel's integrated graphics: it sits on the root bus, `0000:00:02.0`."""
    return device.name.startswith("0000:00:") and int((device / "vendor").read_text(), 16) == INTEL


def driver(device: Path) -> str | None:
    """Return the name of the driver that has a device."""
    link = device / "driver"
    return link.resolve().name if link.is_symlink() else None
