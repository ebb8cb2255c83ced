"""What NVML tells about one GPU, by the semantic conventions of hardware metrics.

`hw.name` is the index that nvidia-smi shows, `hw.model` the product. The driver's version stands on the
series of `hw.gpu.*`, where the conventions have it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from openclaw_exporter.plugin import Measurement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")
Attributes = dict[str, str]

_MAX_EVENTS: Final = 256
"""Events that are taken in one collection; the rest waits for the next."""


def optional(nvml: Any, read: Callable[[], T]) -> T | None:
    """Return one reading, or None where the device, its driver or our rights do not offer it."""
    try:
        return read()
    except (nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound, nvml.NVMLError_NoPermission):
        return None


def identity(nvml: Any, device: Any, index: int) -> Attributes:
    """Return the attributes of a GPU's series."""
    return {
        "hw.id": str(nvml.nvmlDeviceGetUUID(device)),
        "hw.name": f"gpu{index}",
        "hw.model": str(nvml.nvmlDeviceGetName(device)),
        "hw.vendor": "NVIDIA",
        "hw.type": "gpu",
    }


def measured(nvml: Any, device: Any, attributes: Attributes) -> Iterator[Measurement]:
    """Yield every series of a GPU that the device and its driver offer."""
    version = optional(nvml, nvml.nvmlSystemGetDriverVersion)
    of_gpu = attributes if version is None else {**attributes, "hw.driver_version": str(version)}
    rates = optional(nvml, lambda: nvml.nvmlDeviceGetUtilizationRates(device))
    if rates is not None:
        yield Measurement("hw.gpu.utilization", rates.gpu / 100, "1", "gauge", of_gpu)
    yield from _memory(nvml, device, of_gpu)
    degrees = optional(nvml, lambda: nvml.nvmlDeviceGetTemperature(device, nvml.NVML_TEMPERATURE_GPU))
    if degrees is not None:
        yield Measurement("hw.temperature", degrees, "Cel", "gauge", attributes)
    milliwatts = optional(nvml, lambda: nvml.nvmlDeviceGetPowerUsage(device))
    if milliwatts is not None:
        yield Measurement("hw.power", milliwatts / 1_000, "W", "gauge", attributes)
    # Since the driver was loaded.
    millijoules = optional(nvml, lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(device))
    if millijoules is not None:
        yield Measurement("hw.energy", millijoules / 1_000, "J", "counter", attributes)
    yield from _errors(nvml, device, attributes)


def instances(nvml: Any, device: Any, attributes: Attributes) -> Iterator[Measurement]:
    """Yield the memory of each MIG instance; `hw.parent` is the GPU that it is a part of."""
    mode = optional(nvml, lambda: nvml.nvmlDeviceGetMigMode(device))
    if mode is None or mode[0] != nvml.NVML_DEVICE_MIG_ENABLE:
        return
    for number in range(optional(nvml, lambda: nvml.nvmlDeviceGetMaxMigDeviceCount(device)) or 0):
        try:
            instance = nvml.nvmlDeviceGetMigDeviceHandleByIndex(device, number)
        except nvml.NVMLError_NotFound:  # instances may be made and removed one by one
            continue
        own = {
            **attributes,
            "hw.id": str(nvml.nvmlDeviceGetUUID(instance)),
            "hw.name": f"{attributes['hw.name']}.mig{number}",
            "hw.model": str(nvml.nvmlDeviceGetName(instance)),
            "hw.parent": attributes["hw.id"],
        }
        yield from _memory(nvml, instance, own)


def subscribed(nvml: Any, devices: list[Any]) -> Any:
    """Return an event set in which the devices report Xid events, or None where none of them can."""
    kind = nvml.nvmlEventTypeXidCriticalError
    able = [
        device
        for device in devices
        if (optional(nvml, lambda d=device: nvml.nvmlDeviceGetSupportedEventTypes(d)) or 0) & kind  # type: ignore[misc]
    ]
    if not able:
        return None
    events = nvml.nvmlEventSetCreate()
    for device in able:
        optional(nvml, lambda d=device: nvml.nvmlDeviceRegisterEvents(d, kind, events))  # type: ignore[misc]
    return events


def waiting(nvml: Any, events: Any) -> Iterator[tuple[str, int]]:
    """Yield the GPU (its UUID) and the number of each Xid event that waits; never wait for one."""
    for _ in range(_MAX_EVENTS):
        try:
            event = nvml.nvmlEventSetWait_v2(events, 0)
        except nvml.NVMLError_Timeout:
            return
        yield str(nvml.nvmlDeviceGetUUID(event.device)), int(event.eventData)


def _memory(nvml: Any, device: Any, attributes: Attributes) -> Iterator[Measurement]:
    memory = optional(nvml, lambda: nvml.nvmlDeviceGetMemoryInfo(device))
    if memory is not None:
        yield Measurement("hw.gpu.memory.usage", memory.used, "By", "updowncounter", attributes)
        yield Measurement("hw.gpu.memory.limit", memory.total, "By", "updowncounter", attributes)


def _errors(nvml: Any, device: Any, attributes: Attributes) -> Iterator[Measurement]:
    """Yield ECC errors of the device's whole life."""
    kinds = {
        "corrected": nvml.NVML_MEMORY_ERROR_TYPE_CORRECTED,
        "uncorrected": nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
    }
    for name, kind in kinds.items():
        count = optional(
            nvml,
            lambda k=kind: nvml.nvmlDeviceGetTotalEccErrors(device, k, nvml.NVML_AGGREGATE_ECC),  # type: ignore[misc]
        )
        if count is not None:
            yield Measurement("hw.errors", count, "{error}", "counter", {**attributes, "error.type": name})
