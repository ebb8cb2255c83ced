"""The signs of a GPU that can be seen without asking a driver: enough to tell that there is none.

A node without any needs no process that loads NVML. A sign says only that a driver has to be asked.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from openclaw_exporter_gpu.pci import HANDED_ON, bus, driver, is_integrated, kind_of

if TYPE_CHECKING:
    from pathlib import Path

_LIBRARY: Final = "libnvidia-ml.so.1"
_LIBRARY_FOLDERS: Final = ("lib", "lib64", "usr/lib", "usr/lib64", "usr/local/lib", "usr/lib/wsl/lib")
_DEVICE_FILES: Final = ("nvidia", "nvhost-gpu", "nvgpu", "dxg")
"""What the names in `/dev` begin with: NVIDIA's own, those of its Tegra chips, and WSL's."""


class Signs:
    """What is looked for at each collection; the PCI devices that are no GPUs are looked at once.

    Args:
        root: Where `/dev`, `/proc` and `/sys` begin.
        integrated: Take Intel's integrated graphics for a GPU too.
    """

    def __init__(self, root: Path, *, integrated: bool) -> None:
        self._root = root
        self._integrated = integrated
        self._others: set[str] = set()

    def seen(self) -> bool:
        """Whether there is any sign of a GPU, of its driver or of NVML.

        Raises:
            OSError: A place cannot be looked at.
            ValueError: A device does not tell what it is.
        """
        names, _ = (os.listdir(self._root / place) for place in ("dev", "sys"))  # noqa: PTH208 - only the names
        if any(name.startswith(_DEVICE_FILES) for name in names):
            return True
        return (self._root / "proc/driver/nvidia").exists() or self._has_library() or self._has_device()

    def _has_library(self) -> bool:
        """Whether the loader would find NVML: where it is told to look, in its cache, by itself."""
        told = os.environ.get("LD_LIBRARY_PATH", "").split(":")
        own = (str(self._root / folder) for folder in _LIBRARY_FOLDERS)
        if any(folder and os.path.exists(f"{folder}/{_LIBRARY}") for folder in (*told, *own)):  # noqa: PTH110 - at every collection
            return True
        with suppress(FileNotFoundError):
            return _LIBRARY.encode() in (self._root / "etc/ld.so.cache").read_bytes()
        return False

    def _has_device(self) -> bool:
        """Whether the PCI bus shows a GPU of a vendor that this plugin knows."""
        names = set(bus(self._root))
        self._others &= names
        for name in sorted(names - self._others):
            device = self._root / "sys/bus/pci/devices" / name
            if kind_of(device) is None or (is_integrated(device) and not self._integrated):
                self._others.add(name)
            elif driver(device) != HANDED_ON:
                return True
        return False
