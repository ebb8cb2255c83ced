"""NVIDIA GPUs by NVML: present, absent or unknown; never zero for an error.

*Absent* needs evidence: NVML says that there is no library or no driver, and neither the device files, nor
the driver, nor the PCI bus show an NVIDIA GPU. Everything else that goes wrong is *unknown*: the collector
raises, and neither a tag nor a number is exported.

NVML can hang in the kernel, so the collector asks for a process of its own.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from openclaw_exporter.plugin import Capacity, Measurement, Observation, Tag, hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

_NVIDIA: Final = 0x10DE
_DISPLAY_CLASS: Final = 0x03
_DEVICE_FILES: Final = ("nvidia[0-9]*", "nvidiactl", "nvhost-gpu", "nvgpu")


class GpuUnknownError(Exception):
    """Whether there is a GPU, or what it does, cannot be told now."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """The table `[plugins.gpu]`.

    Attributes:
        tag: Say `gpu:true` or `gpu:false` in the heartbeat, where it is known.
        capacity: Say how many GPUs there are in the heartbeat's capacity (`gpus`), where it is known.
    """

    tag: bool = True
    capacity: bool = True


@hookimpl
def openclaw_collectors(options: Options) -> list[NvidiaGpus]:
    """Return the one collector."""
    return [NvidiaGpus(options)]


class NvidiaGpus:
    """Every GPU that NVML lists.

    Args:
        options: What to say beside the measurements.
        root: Where `/dev`, `/proc` and `/sys` begin.
    """

    name = "nvidia"
    isolation = "process"
    deadline = 10.0  # without its persistence daemon, the driver wakes each GPU for the first question

    def __init__(self, options: Options, root: Path = Path("/")) -> None:
        self._options = options
        self._root = root
        self._nvml: Any = None

    def collect(self) -> Iterator[Observation]:
        """Yield presence and every series that the devices support.

        Raises:
            GpuUnknownError: There may be a GPU, and NVML does not tell about it.
        """
        try:
            devices = self._devices()
        except ImportError:
            devices = self._absent("the Python module pynvml is not installed (nvidia-ml-py)")
        except GpuUnknownError:
            self.close()
            raise
        yield from self._presence(len(devices))
        for device in devices:
            yield from self._measured(device)

    def close(self) -> None:
        """Give NVML back; the next collection begins anew, with the driver that is loaded then."""
        nvml, self._nvml = self._nvml, None
        if nvml is not None:
            with suppress(nvml.NVMLError):
                nvml.nvmlShutdown()

    def _devices(self) -> list[Any]:
        """Return a handle for each GPU; an empty list means that there is none, by evidence."""
        import pynvml  # noqa: PLC0415 - a large module that only the child process needs

        try:
            if self._nvml is None:
                pynvml.nvmlInit()
                self._nvml = pynvml
            handles = [pynvml.nvmlDeviceGetHandleByIndex(n) for n in range(pynvml.nvmlDeviceGetCount())]
        except (pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_DriverNotLoaded) as error:
            return self._absent(str(error))
        except pynvml.NVMLError as error:
            raise GpuUnknownError(f"NVML: {error}") from None
        return handles or self._absent("NVML lists no device")

    def _absent(self, reason: str) -> list[Any]:
        """Return no device if nothing hints at one.

        Raises:
            GpuUnknownError: Something does, or it cannot be looked at.
        """
        try:
            evidence = _evidence(self._root)
        except (OSError, ValueError) as error:
            raise GpuUnknownError(f"{reason}, and the machine cannot be looked at ({error})") from None
        if evidence is not None:
            raise GpuUnknownError(f"{reason}, but {evidence} shows an NVIDIA device or driver")
        return []

    def _presence(self, count: int) -> Iterator[Observation]:
        if self._options.tag:
            yield Tag("gpu", "true" if count else "false")
        if self._options.capacity:
            yield Capacity("gpus", count)

    def _measured(self, device: Any) -> Iterator[Measurement]:
        """Yield the series of one GPU.

        Raises:
            GpuUnknownError: It does not answer, for instance because it has fallen off the bus.
        """
        nvml = self._nvml
        try:
            identity = {
                "hw.id": str(nvml.nvmlDeviceGetUUID(device)),
                "hw.name": str(nvml.nvmlDeviceGetName(device)),
                "hw.vendor": "NVIDIA",
                "hw.type": "gpu",
            }
            for read in (_utilization, _memory, _temperature, _power, _energy, _errors):
                yield from _supported(nvml, read, device, identity)
        except nvml.NVMLError as error:
            self.close()
            raise GpuUnknownError(f"NVML: {error}") from None


def _supported(
    nvml: ModuleType,
    read: Callable[[Any, Any, dict[str, str]], list[Measurement]],
    device: Any,
    identity: dict[str, str],
) -> list[Measurement]:
    """Return one reading, or nothing where the device or the driver does not offer it."""
    try:
        return read(nvml, device, identity)
    except (nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound, nvml.NVMLError_NoPermission):
        return []


def _utilization(nvml: Any, device: Any, identity: dict[str, str]) -> list[Measurement]:
    percent = nvml.nvmlDeviceGetUtilizationRates(device).gpu
    return [Measurement("hw.gpu.utilization", percent / 100, "1", "gauge", identity)]


def _memory(nvml: Any, device: Any, identity: dict[str, str]) -> list[Measurement]:
    memory = nvml.nvmlDeviceGetMemoryInfo(device)
    return [
        Measurement("hw.gpu.memory.usage", memory.used, "By", "updowncounter", identity),
        Measurement("hw.gpu.memory.limit", memory.total, "By", "updowncounter", identity),
    ]


def _temperature(nvml: Any, device: Any, identity: dict[str, str]) -> list[Measurement]:
    degrees = nvml.nvmlDeviceGetTemperature(device, nvml.NVML_TEMPERATURE_GPU)
    return [Measurement("hw.temperature", degrees, "Cel", "gauge", identity)]


def _power(nvml: Any, device: Any, identity: dict[str, str]) -> list[Measurement]:
    milliwatts = nvml.nvmlDeviceGetPowerUsage(device)
    return [Measurement("hw.power", milliwatts / 1_000, "W", "gauge", identity)]


def _energy(nvml: Any, device: Any, identity: dict[str, str]) -> list[Measurement]:
    """Energy since the driver was loaded."""
    millijoules = nvml.nvmlDeviceGetTotalEnergyConsumption(device)
    return [Measurement("hw.energy", millijoules / 1_000, "J", "counter", identity)]


def _errors(nvml: Any, device: Any, identity: dict[str, str]) -> list[Measurement]:
    """ECC errors of the device's whole life."""
    kinds = {
        "ecc_corrected": nvml.NVML_MEMORY_ERROR_TYPE_CORRECTED,
        "ecc_uncorrected": nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
    }
    return [
        Measurement(
            "hw.errors",
            nvml.nvmlDeviceGetTotalEccErrors(device, kind, nvml.NVML_AGGREGATE_ECC),
            "{error}",
            "counter",
            {**identity, "error.type": name},
        )
        for name, kind in kinds.items()
    ]


def _evidence(root: Path) -> Path | None:
    """Return a path that hints at an NVIDIA GPU or its driver, or None where every place was looked at.

    Raises:
        OSError: A place cannot be looked at, so that finding nothing would mean nothing.
    """
    devices, system = root / "dev", root / "sys"
    for place in (devices, system):
        next(place.iterdir(), None)
    for pattern in _DEVICE_FILES:
        for found in devices.glob(pattern):
            return found
    driver = root / "proc/driver/nvidia"
    if driver.exists():
        return driver
    bus = system / "bus/pci/devices"
    for device in sorted(bus.iterdir()) if bus.is_dir() else ():
        vendor, kind = (int((device / name).read_text(), 16) for name in ("vendor", "class"))
        if vendor == _NVIDIA and kind >> 16 == _DISPLAY_CLASS:
            return device
    return None
