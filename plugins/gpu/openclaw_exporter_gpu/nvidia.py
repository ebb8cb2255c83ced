"""NVIDIA's GPUs, by NVML (the library of the driver; the calls are those of its API reference)."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from openclaw_exporter.plugin import Measurement
from openclaw_exporter_gpu.found import Found, GpuFaultError, GpuUnknownError
from openclaw_exporter_gpu.pci import NVIDIA, displays
from openclaw_exporter_gpu.readings import identity, instances, measured, subscribed, waiting

if TYPE_CHECKING:
    from pathlib import Path

    from openclaw_exporter_gpu.readings import Attributes

_DEVICE_FILES: Final = ("nvidia[0-9]*", "nvidiactl", "nvhost-gpu", "nvgpu")


class Nvidia:
    """Every GPU that NVML lists.

    Args:
        root: Where `/dev`, `/proc` and `/sys` begin.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._nvml: Any = None
        self._events: Any = None
        self._faults: dict[str, int] = {}

    def read(self) -> Found:
        """Return the GPUs and their series.

        Raises:
            GpuUnknownError: There may be a GPU, and NVML does not tell about any.
        """
        found = Found()
        try:
            found.count = self._count()
            if found.count:
                self._devices(found)
        except ImportError:
            self._absent("the Python module pynvml is not installed (nvidia-ml-py)")
        except GpuUnknownError:
            self.close()
            raise
        if found.problems:
            self.close()  # the next collection begins anew
        return found

    def close(self) -> None:
        """Give NVML back; the next collection begins anew, with the driver that is loaded then."""
        nvml, self._nvml = self._nvml, None
        events, self._events = self._events, None
        if nvml is not None:
            with suppress(nvml.NVMLError):
                if events is not None:
                    nvml.nvmlEventSetFree(events)
            with suppress(nvml.NVMLError):
                nvml.nvmlShutdown()

    def _count(self) -> int:
        """Return how many GPUs NVML lists; none means by evidence that there is none."""
        import pynvml  # noqa: PLC0415 - a large module that only the child process needs

        try:
            if self._nvml is None:
                pynvml.nvmlInit()
                self._nvml = pynvml
            count = int(pynvml.nvmlDeviceGetCount())
        except (pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_DriverNotLoaded) as error:
            self._absent(str(error))
            return 0
        except pynvml.NVMLError as error:
            raise GpuUnknownError(f"NVML: {error}") from None
        if not count:
            self._absent("NVML lists no device")
        return count

    def _absent(self, reason: str) -> None:
        """Do nothing if nothing hints at a GPU.

        Raises:
            GpuUnknownError: Something does, or it cannot be looked at.
        """
        try:
            evidence = shown(self._root)
        except (OSError, ValueError) as error:
            raise GpuUnknownError(f"{reason}, and the machine cannot be looked at ({error})") from None
        if evidence is not None:
            raise GpuUnknownError(f"{reason}, but {evidence} shows an NVIDIA device or driver")

    def _devices(self, found: Found) -> None:
        """Read each GPU; one that has fallen off the bus costs itself."""
        nvml = self._nvml
        devices: dict[str, tuple[Any, Attributes]] = {}
        for index in range(found.count):
            try:
                device = nvml.nvmlDeviceGetHandleByIndex(index)
                attributes = identity(nvml, device, index)
                series = [*measured(nvml, device, attributes), *instances(nvml, device, attributes)]
            except nvml.NVMLError as error:
                found.problems.append(GpuUnknownError(f"NVML: gpu{index}: {error}"))
                continue
            found.observations += series
            devices[attributes["hw.id"]] = device, attributes
        self._take_events(found, devices)

    def _take_events(self, found: Found, devices: dict[str, tuple[Any, Attributes]]) -> None:
        """Count Xid events, by which the driver says that a GPU is in trouble, since this collector began."""
        nvml = self._nvml
        try:
            if self._events is None:
                self._events = subscribed(nvml, [device for device, _ in devices.values()])
            if self._events is None:
                return
            for name, code in waiting(nvml, self._events):
                self._faults[name] = self._faults.get(name, 0) + 1
                found.faults.append(GpuFaultError(f"{name} reports Xid {code}"))
        except nvml.NVMLError as error:
            found.problems.append(GpuUnknownError(f"NVML: events: {error}"))
            return
        for name, (_, attributes) in devices.items():
            own = {**attributes, "error.type": "xid"}
            count = self._faults.get(name, 0)
            found.observations.append(Measurement("hw.errors", count, "{error}", "counter", own))


def shown(root: Path) -> Path | None:
    """Return a path that hints at an NVIDIA GPU or its driver, or None where every place was looked at.

    Raises:
        OSError: A place cannot be looked at, so that finding nothing would mean nothing.
        ValueError: A device of the PCI bus does not tell what it is.
    """
    devices = root / "dev"
    for place in (devices, root / "sys"):
        next(place.iterdir(), None)
    for pattern in _DEVICE_FILES:
        for found in devices.glob(pattern):
            return found
    driver = root / "proc/driver/nvidia"
    return driver if driver.exists() else next(iter(displays(root, NVIDIA)), None)
