"""The gpu plugin on NVIDIA: present, absent or unknown, and never zero for an error.

The driver's library is replaced where a machine would have to have, lose or break a GPU. With a GPU there,
set TESTS_GPU_RECORD to a file, and the hardware test keeps there what it measured.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pynvml
import pytest
from opentelemetry.semconv._incubating.attributes import hw_attributes

from openclaw_exporter.plugin import Capacity, Measurement, Observation, Tag
from openclaw_exporter.plugin.guard import Guard
from openclaw_exporter.plugin.host import load_plugins
from openclaw_exporter.plugin.options import describe
from openclaw_exporter.telemetry.catalogue import CATALOGUE
from openclaw_exporter_gpu import Gpus, GpuUnknownError, Options
from openclaw_exporter_gpu.found import GpuFaultError
from openclaw_exporter_gpu.nvidia import shown

if TYPE_CHECKING:
    from collections.abc import Callable

CONVENTIONS = {
    value for name, value in vars(hw_attributes).items() if name.isupper() and isinstance(value, str)
}
ABSENT: list[Observation] = [Tag("gpu", "false"), Capacity("gpus", 0)]


class FakeNvml(ModuleType):
    """A driver library with one GPU for each name, and the constants and errors of the real one.

    Attributes:
        failures: Functions and the code of the error that each raises, for all devices or for one.
        slices: The MIG instances of each GPU, by their number; a GPU without any has MIG off.
        xids: Events that wait: a GPU and the number of its Xid.
    """

    def __init__(self, *names: str, failures: dict[Any, int] | None = None) -> None:
        super().__init__("pynvml")
        for name, value in vars(pynvml).items():
            if not name.startswith(("_", "nvmlDevice", "nvmlSystem")) or isinstance(value, int):
                setattr(self, name, value)
        self.calls: list[str] = []
        self.failures = failures or {}
        self.slices: dict[int, tuple[int, ...]] = {}
        self.xids: list[tuple[int, int]] = []
        self._names = names
        self._registered: list[int] = []
        answers: dict[str, Callable[..., Any]] = {
            "nvmlInit": lambda: None,
            "nvmlShutdown": lambda: None,
            "nvmlSystemGetDriverVersion": lambda: "570.86.15",
            "nvmlDeviceGetCount": lambda: len(self._names),
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetUUID": lambda device: (
                f"GPU-{device}" if isinstance(device, int) else f"MIG-{device[0]}-{device[1]}"
            ),
            "nvmlDeviceGetName": lambda device: (
                self._names[device] if isinstance(device, int) else f"{self._names[device[0]]} MIG 1g.10gb"
            ),
            "nvmlDeviceGetUtilizationRates": lambda _device: SimpleNamespace(gpu=87, memory=40),
            "nvmlDeviceGetMemoryInfo": lambda device: SimpleNamespace(
                total=(80 if isinstance(device, int) else 10) << 30, used=3 << 30, free=0
            ),
            "nvmlDeviceGetTemperature": lambda _device, _sensor: 41,
            "nvmlDeviceGetPowerUsage": lambda _device: 350_500,
            "nvmlDeviceGetTotalEnergyConsumption": lambda _device: 9_000_500,
            "nvmlDeviceGetTotalEccErrors": lambda _device, kind, _counter: 10 + kind,
            "nvmlDeviceGetMigMode": lambda device: [int(device in self.slices), int(device in self.slices)],
            "nvmlDeviceGetMaxMigDeviceCount": lambda _device: 7,
            "nvmlDeviceGetMigDeviceHandleByIndex": self._slice,
            "nvmlDeviceGetSupportedEventTypes": lambda _device: 0b1011,
            "nvmlDeviceRegisterEvents": lambda device, _kinds, _set: self._registered.append(device),
            "nvmlEventSetCreate": lambda: "events",
            "nvmlEventSetFree": lambda _set: self._registered.clear(),
            "nvmlEventSetWait_v2": self._wait,
        }
        for name, answer in answers.items():
            assert hasattr(pynvml, name)
            setattr(self, name, self._function(name, answer))

    def _slice(self, device: int, number: int) -> tuple[int, int]:
        if number not in self.slices[device]:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return device, number

    def _wait(self, _set: object, milliseconds: int) -> SimpleNamespace:
        assert milliseconds == 0
        if not self.xids or self.xids[0][0] not in self._registered:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_TIMEOUT)
        device, number = self.xids.pop(0)
        kind = pynvml.nvmlEventTypeXidCriticalError
        return SimpleNamespace(device=device, eventType=kind, eventData=number)

    def _function(self, name: str, answer: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self.calls.append(name)
            code = self.failures.get(name, self.failures.get((name, *arguments[:1])))
            if code is not None:
                raise pynvml.NVMLError(code)
            return answer(*arguments)

        return call


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """The root of a machine without any NVIDIA device: one other display controller and a network card."""
    for index, (vendor, kind) in enumerate((("0x1af4", "0x030000"), ("0x10de", "0x020000"))):
        device = tmp_path / f"sys/bus/pci/devices/0000:00:0{index}.0"
        device.mkdir(parents=True)
        (device / "vendor").write_text(f"{vendor}\n")
        (device / "class").write_text(f"{kind}\n")
    (tmp_path / "dev").mkdir()
    (tmp_path / "proc").mkdir()
    (tmp_path / "dev/null").touch()
    return tmp_path


def collector(monkeypatch: pytest.MonkeyPatch, nvml: ModuleType | None, root: Path, **options: bool) -> Gpus:
    """Return a collector that finds this library and this machine."""
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    return Gpus(Options(**options), root)


def kept(observations: tuple[Observation, ...]) -> list[dict[str, Any]]:
    """Return observations as a fixture keeps them, without what tells one device from all others."""
    listed = []
    for number, observation in enumerate(observations):
        fields = {**asdict(observation), "type": type(observation).__name__}
        if isinstance(observation, Measurement):
            ids = {"hw.id": f"id-{number}"} if "hw.id" in observation.attributes else {}
            fields["attributes"] = {**observation.attributes, **ids}
        listed.append(fields)
    return listed


def by_name(observations: tuple[Observation, ...]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for o in observations:
        if isinstance(o, Measurement):
            found.setdefault(o.name, []).append(o.value)
    return found


def test_on_a_machine_without_a_gpu_the_answer_is_absent() -> None:
    if shown(Path("/")) is not None:
        pytest.skip("this machine has an NVIDIA device: the hardware test covers it")
    (loaded,) = load_plugins({}, only={"gpu"}).collectors
    assert list(loaded.collector.collect()) == ABSENT


@pytest.mark.hardware("NVIDIA GPU")
def test_on_a_machine_with_a_gpu_every_device_is_measured() -> None:
    if shown(Path("/")) is None:
        pytest.skip("needs an NVIDIA GPU")
    (loaded,) = load_plugins({}, only={"gpu"}).collectors
    gpus = loaded.collector
    assert isinstance(gpus, Gpus)
    checked = Guard().check(gpus.collect())
    gpus.close()
    assert checked.rejected == ()
    assert Tag("gpu", "true") in checked.observations
    (count,) = [o.amount for o in checked.observations if isinstance(o, Capacity)]
    found = by_name(checked.observations)
    assert len(found["hw.temperature"]) == count >= 1
    assert all(0 < degrees < 110 for degrees in found["hw.temperature"])
    assert all(0 <= share <= 1 for share in found["hw.gpu.utilization"])
    pairs = zip(found["hw.gpu.memory.usage"], found["hw.gpu.memory.limit"], strict=True)
    assert all(0 <= used <= limit for used, limit in pairs)
    versions = {o.attributes.get("hw.driver_version") for o in checked.observations if is_of_gpu(o)}
    assert None not in versions
    if record := os.environ.get("TESTS_GPU_RECORD"):
        Path(record).write_text(json.dumps(kept(checked.observations), indent=1))


def is_of_gpu(observation: Observation) -> bool:
    return isinstance(observation, Measurement) and observation.name.startswith("hw.gpu.")


def test_a_present_gpu_is_measured(monkeypatch: pytest.MonkeyPatch, machine: Path) -> None:
    gpus = collector(monkeypatch, FakeNvml("H100", "A100"), machine)
    checked = Guard().check(gpus.collect())
    assert checked.rejected == ()
    assert checked.observations[:2] == (Tag("gpu", "true"), Capacity("gpus", 2))
    assert by_name(checked.observations) == {
        "hw.gpu.utilization": [0.87] * 2,
        "hw.gpu.memory.usage": [3 << 30] * 2,
        "hw.gpu.memory.limit": [80 << 30] * 2,
        "hw.temperature": [41] * 2,
        "hw.power": [350.5] * 2,
        "hw.energy": [9_000.5] * 2,
        "hw.errors": [10, 11, 10, 11, 0, 0],
    }
    for o in checked.observations:
        if isinstance(o, Measurement):
            instrument = CATALOGUE[o.name]
            assert (o.kind, o.unit) == (instrument.kind, instrument.unit)
            assert set(o.attributes) <= {*instrument.attributes, "hw.model", "hw.driver_version"}
            assert set(o.attributes) <= {*CONVENTIONS, "error.type"}
            assert (o.attributes["hw.vendor"], o.attributes["hw.type"]) == ("NVIDIA", "gpu")
            names = (o.attributes["hw.id"], o.attributes["hw.name"], o.attributes["hw.model"])
            assert names in {("GPU-0", "gpu0", "H100"), ("GPU-1", "gpu1", "A100")}
            assert o.attributes.get("hw.driver_version") == ("570.86.15" if is_of_gpu(o) else None)


def test_mig_instances_have_memory_of_their_own_and_name_their_gpu(
    monkeypatch: pytest.MonkeyPatch, machine: Path
) -> None:
    nvml = FakeNvml(
        "H100", "A100", failures={("nvmlDeviceGetUtilizationRates", 1): pynvml.NVML_ERROR_NOT_SUPPORTED}
    )
    nvml.slices = {1: (0, 2)}
    checked = Guard().check(collector(monkeypatch, nvml, machine).collect())
    assert checked.rejected == ()
    assert Capacity("gpus", 2) in checked.observations
    limits = {
        (o.attributes["hw.id"], o.attributes["hw.name"], o.attributes.get("hw.parent")): o.value
        for o in checked.observations
        if isinstance(o, Measurement) and o.name == "hw.gpu.memory.limit"
    }
    assert limits == {
        ("GPU-0", "gpu0", None): 80 << 30,
        ("GPU-1", "gpu1", None): 80 << 30,
        ("MIG-1-0", "gpu1.mig0", "GPU-1"): 10 << 30,
        ("MIG-1-2", "gpu1.mig2", "GPU-1"): 10 << 30,
    }


def xids(observations: tuple[Observation, ...]) -> dict[Any, float]:
    return {
        o.attributes["hw.id"]: o.value
        for o in observations
        if isinstance(o, Measurement) and o.attributes.get("error.type") == "xid"
    }


def test_xid_events_are_counted_from_zero_and_named_in_one_line(
    monkeypatch: pytest.MonkeyPatch, machine: Path
) -> None:
    nvml = FakeNvml("H100", "A100")
    gpus = collector(monkeypatch, nvml, machine)
    assert xids(Guard().check(gpus.collect()).observations) == {"GPU-0": 0, "GPU-1": 0}
    nvml.xids = [(1, 79), (1, 48), (0, 13)]
    items = list(gpus.collect())
    faults = [str(item) for item in items if isinstance(item, GpuFaultError)]
    assert faults == ["GPU-1 reports Xid 79", "GPU-1 reports Xid 48", "GPU-0 reports Xid 13"]
    checked = Guard().check(items)
    assert xids(checked.observations) == {"GPU-0": 1, "GPU-1": 2}
    assert Capacity("gpus", 2) in checked.observations
    checked = Guard().check(gpus.collect())
    assert checked.rejected == ()
    assert xids(checked.observations) == {"GPU-0": 1, "GPU-1": 2}
    gpus.close()
    # The library begins anew; what was counted stays, because a counter never falls.
    assert xids(Guard().check(gpus.collect()).observations) == {"GPU-0": 1, "GPU-1": 2}
    assert nvml.calls.count("nvmlEventSetCreate") == 2
    assert nvml.calls.count("nvmlEventSetFree") == 1


def test_one_gpu_that_fell_off_the_bus_costs_itself_and_the_count(
    monkeypatch: pytest.MonkeyPatch, machine: Path
) -> None:
    nvml = FakeNvml("H100", "A100", failures={("nvmlDeviceGetPowerUsage", 1): pynvml.NVML_ERROR_GPU_IS_LOST})
    gpus = collector(monkeypatch, nvml, machine)
    checked = Guard().check(gpus.collect())
    assert [rejection.detail for rejection in checked.rejected] == [
        "GpuUnknownError: NVML: gpu1: GPU is lost"
    ]
    assert by_name(checked.observations)["hw.power"] == [350.5]
    assert not [o for o in checked.observations if isinstance(o, (Tag, Capacity))]
    nvml.failures.clear()
    assert Capacity("gpus", 2) in gpus.collect()
    assert nvml.calls.count("nvmlInit") == 2


def test_the_library_stays_open_between_collections_and_is_given_back(
    monkeypatch: pytest.MonkeyPatch, machine: Path
) -> None:
    nvml = FakeNvml("H100")
    gpus = collector(monkeypatch, nvml, machine)
    for _ in range(3):
        assert len(list(gpus.collect())) > 2
    gpus.close()
    gpus.close()
    assert (nvml.calls.count("nvmlInit"), nvml.calls.count("nvmlShutdown")) == (1, 1)


@pytest.mark.parametrize(
    ("function", "missing"),
    [
        ("nvmlDeviceGetUtilizationRates", {"hw.gpu.utilization"}),
        ("nvmlDeviceGetMemoryInfo", {"hw.gpu.memory.usage", "hw.gpu.memory.limit"}),
        ("nvmlDeviceGetTemperature", {"hw.temperature"}),
        ("nvmlDeviceGetPowerUsage", {"hw.power"}),
        ("nvmlDeviceGetTotalEnergyConsumption", {"hw.energy"}),
        ("nvmlDeviceGetTotalEccErrors", set()),
        ("nvmlDeviceGetSupportedEventTypes", set()),
        ("nvmlDeviceGetMigMode", set()),
        ("nvmlSystemGetDriverVersion", set()),
    ],
)
@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND])
def test_what_a_device_does_not_support_is_left_out(
    monkeypatch: pytest.MonkeyPatch, machine: Path, function: str, missing: set[str], code: int
) -> None:
    everything = {name for name in CATALOGUE if name.startswith("hw.")}
    gpus = collector(monkeypatch, FakeNvml("H100", failures={function: code}), machine)
    assert set(by_name(Guard().check(gpus.collect()).observations)) == everything - missing


@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED])
def test_no_driver_and_no_device_is_absent(monkeypatch: pytest.MonkeyPatch, machine: Path, code: int) -> None:
    assert list(collector(monkeypatch, FakeNvml(failures={"nvmlInit": code}), machine).collect()) == ABSENT


def test_no_python_module_and_no_device_is_absent(monkeypatch: pytest.MonkeyPatch, machine: Path) -> None:
    assert list(collector(monkeypatch, None, machine).collect()) == ABSENT


def test_a_driver_that_lists_nothing_and_no_device_is_absent(
    monkeypatch: pytest.MonkeyPatch, machine: Path
) -> None:
    assert list(collector(monkeypatch, FakeNvml(), machine).collect()) == ABSENT


EVIDENCE = {
    "device file": "dev/nvidia0",
    "control file": "dev/nvidiactl",
    "driver": "proc/driver/nvidia",
    "display controller": "sys/bus/pci/devices/0000:01:00.0",
}


@pytest.mark.parametrize("evidence", EVIDENCE)
@pytest.mark.parametrize("library", ["no module", "no library", "no driver", "no device"])
def test_an_error_beside_any_sign_of_a_gpu_is_unknown(
    monkeypatch: pytest.MonkeyPatch, machine: Path, evidence: str, library: str
) -> None:
    place = machine / EVIDENCE[evidence]
    place.mkdir(parents=True)
    if evidence == "display controller":
        (place / "vendor").write_text("0x10de\n")
        (place / "class").write_text("0x030200\n")
    nvml = {
        "no module": None,
        "no library": FakeNvml(failures={"nvmlInit": pynvml.NVML_ERROR_LIBRARY_NOT_FOUND}),
        "no driver": FakeNvml(failures={"nvmlInit": pynvml.NVML_ERROR_DRIVER_NOT_LOADED}),
        "no device": FakeNvml(),
    }[library]
    with pytest.raises(GpuUnknownError, match="shows an NVIDIA device or driver"):
        list(collector(monkeypatch, nvml, machine).collect())


@pytest.mark.parametrize("place", ["sys", "dev"])
def test_a_machine_that_cannot_be_looked_at_is_unknown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, machine: Path, place: str
) -> None:
    (machine / place).rename(tmp_path / "elsewhere")
    nvml = FakeNvml(failures={"nvmlInit": pynvml.NVML_ERROR_LIBRARY_NOT_FOUND})
    with pytest.raises(GpuUnknownError, match="cannot be looked at"):
        list(collector(monkeypatch, nvml, machine).collect())


def test_a_pci_device_that_cannot_be_read_is_unknown(monkeypatch: pytest.MonkeyPatch, machine: Path) -> None:
    (machine / "sys/bus/pci/devices/0000:00:00.0/class").write_text("garbage")
    with pytest.raises(GpuUnknownError, match="cannot be looked at"):
        list(collector(monkeypatch, FakeNvml(), machine).collect())


@pytest.mark.parametrize(
    "function",
    [
        "nvmlInit",
        "nvmlDeviceGetCount",
        "nvmlDeviceGetHandleByIndex",
        "nvmlDeviceGetUUID",
        "nvmlDeviceGetMemoryInfo",
        "nvmlDeviceGetPowerUsage",
    ],
)
@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_UNKNOWN, pynvml.NVML_ERROR_GPU_IS_LOST])
def test_any_other_error_is_unknown_and_the_next_collection_begins_anew(
    monkeypatch: pytest.MonkeyPatch, machine: Path, function: str, code: int
) -> None:
    nvml = FakeNvml("H100", failures={function: code, "nvmlShutdown": pynvml.NVML_ERROR_UNINITIALIZED})
    gpus = collector(monkeypatch, nvml, machine)
    with pytest.raises(GpuUnknownError, match="NVML: "):
        Guard().check(gpus.collect())
    nvml.failures.clear()
    assert Capacity("gpus", 1) in list(gpus.collect())
    assert nvml.calls.count("nvmlInit") == 2


def test_tag_and_capacity_can_be_left_out(monkeypatch: pytest.MonkeyPatch, machine: Path) -> None:
    assert list(collector(monkeypatch, FakeNvml(), machine, tag=False, capacity=False).collect()) == []


def test_it_asks_for_a_process_of_its_own_and_documents_its_options() -> None:
    (loaded,) = load_plugins({}, only={"gpu"}).collectors
    assert loaded.isolation == "process"
    assert [info.key for info in describe(Options) if not info.description] == []
