"""AMD's and Intel's GPUs, by what their kernel drivers show in sysfs.

Sources, in the Linux kernel's Documentation: gpu/amdgpu/{thermal,driver-misc,ras}.rst (amdgpu),
ABI/testing/sysfs-driver-intel-{xe,i915}-hwmon, hwmon/sysfs-interface.rst and ABI/testing/sysfs-devices-power.

The share of time that an Intel GPU was busy is the share that it was not in its idle state (C6), the closest
thing that its drivers tell without tracing.
"""

from __future__ import annotations

import errno
import time
from typing import TYPE_CHECKING, Final

from openclaw_exporter.plugin import Measurement
from openclaw_exporter_gpu.found import Found, GpuUnknownError
from openclaw_exporter_gpu.pci import AMD, INTEL, displays, driver, is_integrated

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_VENDORS: Final = {AMD: "AMD", INTEL: "Intel"}
_ERRORS: Final = {"ce": "corrected", "ue": "uncorrected", "de": "deferred"}
_BUSY_FILE: Final = "device/gpu_busy_percent"
_IDLE_FILES: Final = (
    "device/tile*/gt*/gtidle/idle_residency_ms",
    "gt/gt*/rc6_residency_ms",
    "power/rc6_residency_ms",
)
_MAX_SENSORS: Final = 16
_NOT_OFFERED: Final = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.EOPNOTSUPP, errno.EINVAL, errno.ENODATA, errno.EPERM, errno.EACCES}
)


class Cards:
    """Every GPU of these vendors that has a node in `/dev/dri`.

    Args:
        root: Where `/dev` and `/sys` begin.
        integrated: Take Intel's integrated graphics for a GPU too.
    """

    def __init__(self, root: Path, *, integrated: bool = False) -> None:
        self._root = root
        self._integrated = integrated
        self._idle: dict[Path, tuple[float, int]] = {}

    def read(self) -> Found:
        """Return the GPUs and their series.

        Raises:
            GpuUnknownError: The machine cannot be looked at, or shows a GPU that has no driver.
        """
        try:
            cards = self._cards()
            self._check_all_have_drivers()
        except (OSError, ValueError) as error:
            raise GpuUnknownError(f"GPUs in sysfs cannot be looked at: {error}") from None
        found = Found(count=len(cards))
        for card, vendor in cards:
            try:
                found.observations += self._measured(card, _identity(card, vendor))
            except (OSError, ValueError) as error:
                found.problems.append(GpuUnknownError(f"{card.name} cannot be read: {error}"))
        return found

    def _cards(self) -> list[tuple[Path, str]]:
        for place in ("dev", "sys"):  # finding nothing means something only where one can look
            next((self._root / place).iterdir(), None)
        nodes = {node.name for node in (self._root / "dev/dri").glob("*")}
        cards = []
        for card in sorted((self._root / "sys/class/drm").glob("card[0-9]*")):
            device = card / "device"
            if "-" in card.name or not (device / "vendor").exists():
                continue  # a connector such as card0-HDMI-A-1, or a display without a PCI device
            vendor = _VENDORS.get(int((device / "vendor").read_text(), 16))
            if vendor is None or (is_integrated(device.resolve()) and not self._integrated):
                continue
            # A container sees the machine's sysfs, and in /dev the devices that it was given.
            if {card.name, *(node.name for node in (device / "drm").glob("render*"))} & nodes:
                cards.append((card, vendor))
        return cards

    def _check_all_have_drivers(self) -> None:
        for vendor, name in _VENDORS.items():
            for device in displays(self._root, vendor):
                integrated = is_integrated(device) and not self._integrated
                if driver(device) is None and not integrated:
                    raise GpuUnknownError(f"{device} shows a GPU of {name} without a driver")

    def _measured(self, card: Path, attributes: dict[str, str]) -> Iterator[Measurement]:
        device = card / "device"
        # Reading the sensors of a GPU that sleeps would wake it up, or fail.
        if _text(device / "power/runtime_status") in ("suspended", "suspending"):
            return
        version = _text(self._root / f"sys/module/{driver(device)}/version")
        of_gpu = attributes if version is None else {**attributes, "hw.driver_version": version}
        busy = _share(card / _BUSY_FILE)
        busy = self._awake(card) if busy is None else busy
        if busy is not None:
            yield Measurement("hw.gpu.utilization", busy, "1", "gauge", of_gpu)
        yield from _memory(card, of_gpu)
        for sensors in sorted((device / "hwmon").glob("hwmon*")):
            yield from _sensors(sensors, attributes)
        yield from _errors(device / "ras", attributes)

    def _awake(self, card: Path) -> float | None:
        """Return the share of the time since the last collection in which the busiest part was not idle."""
        shares = []
        files = next((sorted(found) for pattern in _IDLE_FILES if (found := list(card.glob(pattern)))), [])
        for file in files:
            idle, now = _number(file), time.monotonic()
            before = self._idle.get(file)
            if idle is not None:
                self._idle[file] = now, idle
                if before is not None and now > before[0] and idle >= before[1]:
                    shares.append(1 - (idle - before[1]) / 1_000 / (now - before[0]))
        return min(max(*shares, 0.0), 1.0) if shares else None


def _identity(card: Path, vendor: str) -> dict[str, str]:
    device = card / "device"
    address = device.resolve().name
    model = _text(device / "product_name") or ":".join(
        (_text(device / name) or "?").removeprefix("0x") for name in ("vendor", "device")
    )
    return {
        "hw.id": _text(device / "unique_id") or address,
        "hw.name": card.name,
        "hw.model": model,
        "hw.vendor": vendor,
        "hw.type": "gpu",
    }


def _memory(card: Path, attributes: dict[str, str]) -> Iterator[Measurement]:
    """Yield the GPU's own memory; Intel's drivers tell its size only."""
    device = card / "device"
    used, total = _number(device / "mem_info_vram_used"), _number(device / "mem_info_vram_total")
    if total is None:
        tiles = [_number(file) for file in device.glob("tile*/physical_vram_size_bytes")]
        total = sum(size for size in tiles if size is not None) or None
    if used is not None:
        yield Measurement("hw.gpu.memory.usage", used, "By", "updowncounter", attributes)
    if total is not None:
        yield Measurement("hw.gpu.memory.limit", total, "By", "updowncounter", attributes)


def _sensors(sensors: Path, attributes: dict[str, str]) -> Iterator[Measurement]:
    """Yield what the hwmon device measures; its units are those of hwmon/sysfs-interface.rst."""
    for file in sorted(sensors.glob("temp*_input"))[:_MAX_SENSORS]:
        degrees = _number(file)
        if degrees is not None:
            name = file.name.removesuffix("_input")
            place = _text(sensors / f"{name}_label") or name
            own = {**attributes, "hw.sensor_location": place}
            yield Measurement("hw.temperature", degrees / 1_000, "Cel", "gauge", own)
    watts = _first(sensors, "power1_average", "power1_input")
    if watts is not None:
        yield Measurement("hw.power", watts / 1_000_000, "W", "gauge", attributes)
    joules = _first(sensors, "energy1_input", "energy2_input")
    if joules is not None:
        yield Measurement("hw.energy", joules / 1_000_000, "J", "counter", attributes)


def _errors(ras: Path, attributes: dict[str, str]) -> Iterator[Measurement]:
    """Yield the ECC errors of all parts of an AMD GPU, since its driver was loaded."""
    counts: dict[str, int] = {}
    for file in ras.glob("*_err_count"):
        for line in (_text(file) or "").splitlines():
            kind, _, count = line.partition(":")
            if kind in _ERRORS:
                counts[_ERRORS[kind]] = counts.get(_ERRORS[kind], 0) + int(count)
    for kind, total in sorted(counts.items()):
        yield Measurement("hw.errors", total, "{error}", "counter", {**attributes, "error.type": kind})


def _share(file: Path) -> float | None:
    percent = _number(file)
    return None if percent is None else percent / 100


def _first(folder: Path, *names: str) -> int | None:
    """Return the first of several readings that there is."""
    return next((number for name in names if (number := _number(folder / name)) is not None), None)


def _number(file: Path) -> int | None:
    text = _text(file)
    return None if text is None else int(text)


def _text(file: Path) -> str | None:
    """Return what a file holds, or None where the device or its driver do not offer that.

    A driver says so by leaving the file out, or by an error of the reading.
    """
    try:
        return file.read_text().strip() or None
    except OSError as error:
        if error.errno in _NOT_OFFERED:
            return None
        raise
