"""Display controllers on the PCI bus (Documentation/ABI/testing/sysfs-bus-pci of the Linux kernel)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_DISPLAY_CLASS: Final = 0x03


def displays(root: Path, vendor: int) -> Iterator[Path]:
    """Yield a vendor's display controllers, but for those that are handed to a virtual machine (vfio).

    Raises:
        OSError: The bus cannot be looked at.
        ValueError: A device does not tell what it is.
    """
    bus = root / "sys/bus/pci/devices"
    for device in sorted(bus.iterdir()) if bus.is_dir() else ():
        maker, kind = (int((device / name).read_text(), 16) for name in ("vendor", "class"))
        if maker == vendor and kind >> 16 == _DISPLAY_CLASS and driver(device) != "vfio-pci":
            yield device


def driver(device: Path) -> str | None:
    """Return the name of the driver that has a device."""
    link = device / "driver"
    return link.resolve().name if link.is_symlink() else None
