"""The signs of a GPU that can be seen without asking a driver: enough to tell that there is none.

A node without any needs no process that loads NVML. A sign says only that a driver has to be asked.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final

from openclaw_exporter_gpu.pci import HANDED_ON, bus, driver, is_integrated, kind_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_LIBRARY: Final = "libnvidia-ml.so.1"
_LIBRARY_FOLDERS: Final = ("lib", "lib64", "usr/lib", "usr/lib64", "usr/local/lib", "usr/lib/wsl/lib")
_DEVICE_FILES: Final = ("nvidia", "nvhost-gpu", "nvgpu", "dxg")
"""What the names in `/dev` begin with: NVIDIA's own, those of its Tegra chips, and WSL's."""

LOOK_AGAIN: Final = 300.0
"""Seconds after which what seems unchanged is looked into all the same."""

_SETTLED: Final = 1_000_000_000
"""Nanoseconds after which a further change is sure to have another time: many ticks of the kernel's clock."""


class Signs:
    """What is looked for at each collection.

    `/dev` and the loader's cache are read again when they have changed, and now and then; the PCI bus and the
    places of the driver's library are looked at each time.

    Args:
        root: Where `/dev`, `/proc` and `/sys` begin.
        integrated: Take Intel's integrated graphics for a GPU too.
        clock: Monotonic seconds.
    """

    def __init__(self, root: Path, *, integrated: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._root = root
        self._integrated = integrated
        self._others: set[str] = set()
        self._devices = _Kept(f"{root}/dev", _has_device_file, clock)
        self._loader = _Kept(f"{root}/etc/ld.so.cache", _names_library, clock)
        self._driver = f"{root}/proc/driver/nvidia"
        self._libraries = tuple(f"{root}/{folder}/{_LIBRARY}" for folder in _LIBRARY_FOLDERS)

    def seen(self) -> bool:
        """Whether there is any sign of a GPU, of its driver or of NVML.

        Raises:
            OSError: A place cannot be looked at.
            ValueError: A device does not tell what it is.
        """
        return self._devices.seen() or _exists(self._driver) or self._has_library() or self._has_device()

    def _has_library(self) -> bool:
        """Whether the loader would find NVML: where it is told to look, in its cache, by itself."""
        told = os.environ.get("LD_LIBRARY_PATH", "").split(":")
        named = (f"{folder}/{_LIBRARY}" for folder in told if folder)
        if any(_exists(library) for library in (*named, *self._libraries)):
            return True
        try:
            return self._loader.seen()
        except FileNotFoundError:
            return False

    def _has_device(self) -> bool:
        """Whether the PCI bus shows a GPU of a vendor that this plugin knows."""
        names = set(bus(self._root))
        if not names:  # finding nothing means something only where one can look
            os.listdir(self._root / "sys")  # noqa: PTH208 - whether it can be done
        self._others &= names
        for name in sorted(names - self._others):
            device = self._root / "sys/bus/pci/devices" / name
            if kind_of(device) is None or (is_integrated(device) and not self._integrated):
                self._others.add(name)
            elif driver(device) != HANDED_ON:
                return True
        return False


class _Kept:
    """A look into a file or a folder that is kept until that changes.

    Args:
        path: The file or folder.
        look: Looks into it.
        clock: Monotonic seconds.
    """

    def __init__(self, path: str, look: Callable[[str], bool], clock: Callable[[], float]) -> None:
        self._path = path
        self._look = look
        self._clock = clock
        self._mark: tuple[int, ...] = ()
        self._until = 0.0
        self._seen = False

    def seen(self) -> bool:
        """Return what the look said, or says now.

        Raises:
            OSError: It cannot be looked at.
        """
        status = os.stat(self._path)  # noqa: PTH116 - at every collection
        mark = status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size
        now = self._clock()
        if mark != self._mark or now >= self._until:
            self._mark = ()
            self._seen = self._look(self._path)
            if time.time_ns() - status.st_mtime_ns > _SETTLED:
                self._mark, self._until = mark, now + LOOK_AGAIN
        return self._seen


def _has_device_file(folder: str) -> bool:
    return any(name.startswith(_DEVICE_FILES) for name in os.listdir(folder))  # noqa: PTH208 - only the names


def _names_library(cache: str) -> bool:
    with open(cache, "rb", buffering=0) as file:  # noqa: PTH123 - a path as text
        return _LIBRARY.encode() in file.read()


def _exists(path: str) -> bool:
    return os.path.exists(path)  # noqa: PTH110 - at every collection
