"""The gpu plugin on AMD's and Intel's GPUs: real directory trees in the layout of the kernel's drivers."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from openclaw_exporter.plugin import Capacity, Measurement, Observation, Tag
from openclaw_exporter.plugin.guard import Guard
from openclaw_exporter.telemetry.catalogue import CATALOGUE
from openclaw_exporter_gpu import Gpus, GpuUnknownError, Options, cards
from support.gpu_cards import ALCHEMIST, BATTLEMAGE, NAVI, Machine

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine without GPUs, and without NVIDIA's library."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    machine = Machine(tmp_path)
    machine.card(0, "0000:02:00.0", "0x1a03", "0x2000", "ast")  # a server's management display
    return machine


def gpus(machine: Machine, **options: bool) -> Gpus:
    return Gpus(Options(**options), machine.root)


def collected(gpus: Gpus) -> tuple[Observation, ...]:
    checked = Guard().check(gpus.collect())
    assert checked.rejected == ()
    for o in checked.observations:
        if isinstance(o, Measurement):
            assert (o.kind, o.unit) == (CATALOGUE[o.name].kind, CATALOGUE[o.name].unit)
    return checked.observations


def values(observations: tuple[Observation, ...], card: str) -> dict[Any, float]:
    """Return the values of one card by metric, with sensor or kind of error where there are several."""
    found = {}
    for o in observations:
        if isinstance(o, Measurement) and o.attributes["hw.name"] == card:
            which = o.attributes.get("hw.sensor_location") or o.attributes.get("error.type")
            found[(o.name, which) if which else o.name] = o.value
    return found


def presence(observations: tuple[Observation, ...]) -> list[Observation]:
    return [o for o in observations if isinstance(o, (Tag, Capacity))]


def test_amd_is_measured_by_amdgpu(machine: Machine) -> None:
    machine.card(1, "0000:03:00.0", "0x1002", "0x740f", "amdgpu", NAVI)
    observations = collected(gpus(machine))
    assert presence(observations) == [Tag("gpu", "true"), Capacity("gpus", 1)]
    assert values(observations, "card1") == {
        "hw.gpu.utilization": 0.63,
        "hw.gpu.memory.usage": 10_485_760,
        "hw.gpu.memory.limit": 68_702_699_520,
        ("hw.temperature", "edge"): 41,
        ("hw.temperature", "junction"): 47,
        ("hw.temperature", "mem"): 52,
        "hw.power": 42,
        ("hw.errors", "corrected"): 15,
        ("hw.errors", "uncorrected"): 1,
        ("hw.errors", "deferred"): 2,
    }
    attributes = next(o.attributes for o in observations if isinstance(o, Measurement))
    assert attributes == {
        "hw.id": "8ccdc6eec0e2b5d4",
        "hw.name": "card1",
        "hw.model": "AMD Instinct MI210",
        "hw.vendor": "AMD",
        "hw.type": "gpu",
    }


def test_a_consumer_card_is_named_by_its_numbers_and_a_modules_version_is_told(machine: Machine) -> None:
    files = {"product_name": "", "gpu_busy_percent": "0", "hwmon/hwmon1/power1_input": "9000000"}
    machine.card(1, "0000:03:00.0", "0x1002", "0x744c", "amdgpu", files)
    version = machine.root / "sys/module/amdgpu/version"
    version.parent.mkdir(parents=True)
    version.write_text("6.10.5\n")
    observations = collected(gpus(machine))
    assert values(observations, "card1") == {"hw.gpu.utilization": 0, "hw.power": 9}
    first, second = [o.attributes for o in observations if isinstance(o, Measurement)]
    assert (first["hw.id"], first["hw.model"]) == ("0000:03:00.0", "1002:744c")
    assert (first["hw.driver_version"], second.get("hw.driver_version")) == ("6.10.5", None)


def test_intel_is_measured_by_xe(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    device = machine.card(1, "0000:03:00.0", "0x8086", "0xe20b", "xe", BATTLEMAGE)
    now = 100.0
    monkeypatch.setattr(cards.time, "monotonic", lambda: now)
    collector = gpus(machine)
    observations = collected(collector)
    assert presence(observations) == [Tag("gpu", "true"), Capacity("gpus", 1)]
    always = {
        "hw.gpu.memory.limit": 12_884_901_888,
        ("hw.temperature", "pkg"): 52,
        ("hw.temperature", "vram"): 60,
        "hw.energy": 7.5,
    }
    assert values(observations, "card1") == always  # a share needs two readings
    now = 110.0
    (device / "tile0/gt0/gtidle/idle_residency_ms").write_text("3500\n")
    (device / "tile0/gt1/gtidle/idle_residency_ms").write_text("11000\n")
    found = values(collected(collector), "card1")
    assert found.pop("hw.gpu.utilization") == pytest.approx(0.75)
    assert found == always
    now = 120.0
    (device / "tile0/gt0/gtidle/idle_residency_ms").write_text("0\n")  # the driver was loaded anew
    (device / "tile0/gt1/gtidle/idle_residency_ms").write_text("22000\n")  # the clocks differ a little
    assert values(collected(collector), "card1")["hw.gpu.utilization"] == 0


def test_intel_is_measured_by_i915(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    device = machine.card(1, "0000:03:00.0", "0x8086", "0x56a0", "i915", ALCHEMIST)
    idle = device / "drm/card1/gt/gt0/rc6_residency_ms"
    idle.parent.mkdir(parents=True)
    idle.write_text("5000\n")
    now = 100.0
    monkeypatch.setattr(cards.time, "monotonic", lambda: now)
    collector = gpus(machine)
    collected(collector)
    now, _ = 104.0, idle.write_text("6000\n")
    assert values(collected(collector), "card1") == {
        "hw.gpu.utilization": 0.75,
        ("hw.temperature", "temp1"): 44,
        "hw.energy": 32.02,
    }


def test_integrated_graphics_count_only_when_asked(machine: Machine) -> None:
    machine.card(1, "0000:00:02.0", "0x8086", "0x9a49", "i915", {})
    assert collected(gpus(machine)) == (Tag("gpu", "false"), Capacity("gpus", 0))
    assert collected(gpus(machine, integrated=True)) == (Tag("gpu", "true"), Capacity("gpus", 1))


def test_a_gpu_that_sleeps_is_counted_and_not_woken(machine: Machine) -> None:
    files = {**NAVI, "power/runtime_status": "suspended"}
    machine.card(1, "0000:03:00.0", "0x1002", "0x740f", "amdgpu", files)
    assert collected(gpus(machine)) == (Tag("gpu", "true"), Capacity("gpus", 1))


def test_a_gpu_that_a_container_was_not_given_is_none_of_its_own(machine: Machine) -> None:
    machine.card(1, "0000:03:00.0", "0x1002", "0x740f", "amdgpu", NAVI)
    machine.card(2, "0000:04:00.0", "0x1002", "0x740f", "amdgpu", {**NAVI, "unique_id": "other"})
    for name in ("card1", "card2", "renderD130"):  # a container is given the render node alone
        (machine.root / "dev/dri" / name).unlink()
    observations = collected(gpus(machine))
    assert presence(observations) == [Tag("gpu", "true"), Capacity("gpus", 1)]
    assert values(observations, "card2") == {}
    assert values(observations, "card1")["hw.power"] == 42


def test_a_gpu_that_is_handed_to_a_virtual_machine_is_none_of_this_node(machine: Machine) -> None:
    machine.device("0000:03:00.0", "0x1002", "0x740f", "vfio-pci")
    machine.device("0000:04:00.0", "0x10de", "0x2330", "vfio-pci")
    assert collected(gpus(machine)) == (Tag("gpu", "false"), Capacity("gpus", 0))


def test_a_gpu_without_a_driver_is_unknown(machine: Machine) -> None:
    machine.device("0000:03:00.0", "0x1002", "0x740f", None)
    with pytest.raises(GpuUnknownError, match=r"0000:03:00\.0 shows a GPU of AMD without a driver"):
        gpus(machine).collect()


def test_one_vendor_that_is_unknown_leaves_the_others_series_and_no_presence(machine: Machine) -> None:
    machine.card(1, "0000:03:00.0", "0x1002", "0x740f", "amdgpu", NAVI)
    machine.device("0000:04:00.0", "0x10de", "0x2330", None)
    checked = Guard().check(gpus(machine).collect())
    assert values(checked.observations, "card1")["hw.gpu.utilization"] == 0.63
    assert presence(checked.observations) == []
    (rejection,) = checked.rejected
    assert "0000:04:00.0 shows an NVIDIA device or driver" in rejection.detail


def test_one_card_that_cannot_be_read_costs_itself_and_the_count(machine: Machine) -> None:
    machine.card(1, "0000:03:00.0", "0x1002", "0x740f", "amdgpu", NAVI)
    bad = {**NAVI, "unique_id": "other", "gpu_busy_percent": "garbage"}
    machine.card(2, "0000:04:00.0", "0x1002", "0x740f", "amdgpu", bad)
    checked = Guard().check(gpus(machine).collect())
    assert values(checked.observations, "card1")["hw.power"] == 42
    assert values(checked.observations, "card2") == {}
    assert presence(checked.observations) == []
    (rejection,) = checked.rejected
    assert "card2 cannot be read" in rejection.detail


@pytest.mark.parametrize("place", ["sys", "dev"])
def test_a_machine_that_cannot_be_looked_at_is_unknown(machine: Machine, place: str) -> None:
    (machine.root / place).rename(machine.root / "elsewhere")
    with pytest.raises(GpuUnknownError, match="cannot be looked at"):
        gpus(machine).collect()


def test_what_a_driver_does_not_offer_is_left_out(machine: Machine) -> None:
    device = machine.card(1, "0000:03:00.0", "0x1002", "0x740f", "amdgpu", NAVI)
    (device / "mem_info_vram_used").unlink()
    (device / "hwmon/hwmon4/temp2_input").unlink()
    (device / "hwmon/hwmon4/power1_average").unlink()
    (device / "gpu_busy_percent").write_text("")
    for file in device.glob("ras/*"):
        file.unlink()
    assert values(collected(gpus(machine)), "card1") == {
        "hw.gpu.memory.limit": 68_702_699_520,
        ("hw.temperature", "edge"): 41,
        ("hw.temperature", "mem"): 52,
    }
