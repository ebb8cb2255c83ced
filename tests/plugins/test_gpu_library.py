"""The gpu plugin through the real nvidia-ml-py, on a driver library of the test's own.

The library is compiled here: one GPU with one MIG instance, by the declarations of NVML's API reference. So
the plugin's calls go through the real module's structures, strings and errors. It has no
nvmlDeviceGetTotalEnergyConsumption, as old drivers have not.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from support import skip
from support.command import Command
from support.ports import free_port
from support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LIBRARY = r"""
#include <string.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
typedef struct device { int number; } *device;
typedef struct { unsigned int gpu, memory; } rates;
typedef struct { unsigned long long total, free, used; } memory;
typedef struct { device device; unsigned long long type, number; unsigned int gi, ci; } event;
enum { OK = 0, UNSUPPORTED = 3, NOT_FOUND = 6, DRIVER_NOT_LOADED = 9, TIMEOUT = 10, LOST = 15 };
static struct device gpu = {0}, mig = {1};
static unsigned long long registered;
static int waits;
static int scene(const char *name) { const char *now = getenv("SCENE"); return now && !strcmp(now, name); }
int nvmlInitWithFlags(unsigned int flags) {
    if (scene("no driver")) return DRIVER_NOT_LOADED;
    return flags;
}
int nvmlShutdown(void) { registered = 0; return OK; }
int nvmlSystemGetDriverVersion(char *text, unsigned int size) {
    snprintf(text, size, "570.86.15");
    return OK;
}
int nvmlDeviceGetCount_v2(unsigned int *count) { *count = 1; return OK; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, device *handle) {
    *handle = &gpu;
    return index ? 2 : scene("lost") ? LOST : OK;
}
int nvmlDeviceGetUUID(device d, char *text, unsigned int size) {
    snprintf(text, size, d->number ? "MIG-5e" : "GPU-4d");
    return OK;
}
int nvmlDeviceGetName(device d, char *text, unsigned int size) {
    snprintf(text, size, d->number ? "NVIDIA H100 MIG 1g.10gb" : "NVIDIA H100");
    return OK;
}
int nvmlDeviceGetUtilizationRates(device d, rates *r) {
    r->gpu = 87; r->memory = 4;
    return d->number ? UNSUPPORTED : OK;
}
int nvmlDeviceGetMemoryInfo(device d, memory *m) {
    m->total = (d->number ? 10ULL : 80ULL) << 30; m->used = 3ULL << 30; m->free = m->total - m->used;
    return OK;
}
int nvmlDeviceGetTemperature(device d, int sensor, unsigned int *t) { *t = 41; return sensor ? 2 : OK; }
int nvmlDeviceGetPowerUsage(device d, unsigned int *p) {
    if (scene("hang")) sleep(30);
    if (scene("crash")) _exit(139);
    *p = 350500;
    return OK;
}
int nvmlDeviceGetTotalEccErrors(device d, int kind, int counter, unsigned long long *n) {
    *n = (5ULL << 32) + kind;
    return counter == 1 ? OK : 2;
}
int nvmlDeviceGetMigMode(device d, unsigned int *now, unsigned int *later) { *now = *later = 1; return OK; }
int nvmlDeviceGetMaxMigDeviceCount(device d, unsigned int *n) { *n = 7; return OK; }
int nvmlDeviceGetMigDeviceHandleByIndex(device d, unsigned int index, device *handle) {
    *handle = &mig;
    return index == 2 ? OK : NOT_FOUND;
}
int nvmlDeviceGetSupportedEventTypes(device d, unsigned long long *kinds) { *kinds = 0xb; return OK; }
int nvmlEventSetCreate(void **set) { *set = &waits; return OK; }
int nvmlEventSetFree(void *set) { return set == &waits ? OK : 2; }
int nvmlDeviceRegisterEvents(device d, unsigned long long kinds, void *set) { registered = kinds; return OK; }
int nvmlEventSetWait_v2(void *set, event *e, unsigned int milliseconds) {
    if (set != &waits || registered != 8 || milliseconds) return 2;
    e->device = &gpu; e->type = 8; e->number = 79;
    return ++waits == 2 ? OK : TIMEOUT;
}
const char *nvmlErrorString(int code) { return code ? "some error" : "no error"; }
"""

PROGRAM = """
import json, sys
from dataclasses import asdict
from pathlib import Path
from openclaw_exporter_gpu import Gpus, Options
gpus, rounds = Gpus(Options(), Path(sys.argv[1])), []
for _ in range(3):
    try:
        items = gpus.collect()
    except Exception as error:
        items = [error]
    rounds.append([str(i) if isinstance(i, Exception) else asdict(i) for i in items])
gpus.close()
print(json.dumps(rounds))
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the driver's library."""
    compiler = skip.binary("cc", "gcc")
    folder = tmp_path_factory.mktemp("driver")
    command = (compiler, "-shared", "-fPIC", "-w", "-o", str(folder / "libnvidia-ml.so.1"), "-x", "c", "-")
    subprocess.run(command, input=LIBRARY, text=True, check=True)
    return folder


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    for place in ("dev", "proc", "sys/bus/pci/devices"):
        (tmp_path / place).mkdir(parents=True)
    return tmp_path


def rounds(library: Path, machine: Path, scene: str = "") -> list[list[Any]]:
    """Return what three collections in a process of their own come to."""
    environment = {**os.environ, "LD_LIBRARY_PATH": str(library), "SCENE": scene}
    command = (sys.executable, "-c", PROGRAM, str(machine))
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found: list[list[Any]] = json.loads(done.stdout)
    return found


def series(items: list[Any]) -> dict[tuple[str, ...], Any]:
    """Return the values by metric, device and kind of error."""
    return {
        (item["name"], item["attributes"]["hw.name"], item["attributes"].get("error.type", "")): item["value"]
        for item in items
        if isinstance(item, dict) and "name" in item
    }


def test_every_call_goes_through_the_real_module(library: Path, machine: Path) -> None:
    first, second, third = rounds(library, machine)
    assert first[:2] == [{"key": "gpu", "value": "true"}, {"resource": "gpus", "amount": 1}]
    expected: dict[tuple[str, ...], Any] = {
        ("hw.gpu.utilization", "gpu0", ""): 0.87,
        ("hw.gpu.memory.usage", "gpu0", ""): 3 << 30,
        ("hw.gpu.memory.limit", "gpu0", ""): 80 << 30,
        ("hw.temperature", "gpu0", ""): 41,
        ("hw.power", "gpu0", ""): 350.5,
        ("hw.errors", "gpu0", "corrected"): 5 << 32,
        ("hw.errors", "gpu0", "uncorrected"): (5 << 32) + 1,
        ("hw.errors", "gpu0", "xid"): 0,
        ("hw.gpu.memory.usage", "gpu0.mig2", ""): 3 << 30,
        ("hw.gpu.memory.limit", "gpu0.mig2", ""): 10 << 30,
    }
    assert series(first) == expected
    assert second[-1] == "GPU-4d reports Xid 79"
    assert series(second) == series(third) == {**expected, ("hw.errors", "gpu0", "xid"): 1}
    whole = next(item["attributes"] for item in first if item.get("name") == "hw.gpu.memory.limit")
    assert whole == {
        "hw.id": "GPU-4d",
        "hw.name": "gpu0",
        "hw.model": "NVIDIA H100",
        "hw.vendor": "NVIDIA",
        "hw.type": "gpu",
        "hw.driver_version": "570.86.15",
    }
    part = next(item["attributes"] for item in first if item.get("attributes", {}).get("hw.parent"))
    assert (part["hw.id"], part["hw.parent"]) == ("MIG-5e", "GPU-4d")
    assert part["hw.model"] == "NVIDIA H100 MIG 1g.10gb"


def test_a_lost_gpu_is_unknown_each_time(library: Path, machine: Path) -> None:
    assert rounds(library, machine, "lost") == [["NVML: gpu0: GPU is lost"]] * 3


def test_a_library_without_a_driver_is_absent_only_without_a_sign_of_a_gpu(
    library: Path, machine: Path
) -> None:
    absent = [{"key": "gpu", "value": "false"}, {"resource": "gpus", "amount": 0}]
    assert rounds(library, machine, "no driver") == [absent] * 3
    (machine / "dev/nvidia0").touch()
    for (error,) in rounds(library, machine, "no driver"):
        assert error.startswith("Driver Not Loaded, but ")
        assert error.endswith("dev/nvidia0 shows an NVIDIA device or driver")


def scraped(port: int) -> str:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False, timeout=60).text
    except httpx.TransportError:
        return ""


def healthy(text: str, collector: str) -> str:
    """Return `openclaw_collector_healthy` of one collector, or nothing where it is not there yet."""
    found = re.search(
        rf'^openclaw_collector_healthy{{.*openclaw_collector="{collector}".*}} (.*)$', text, re.MULTILINE
    )
    return found[1] if found else ""


@pytest.fixture
def agent(library: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[int, Command]]:
    """A running agent on the driver's library in this scene, and the port of its metrics."""
    port = free_port()
    config = tmp_path / "agent.toml"
    config.write_text(
        f"""
[openclaw]
enabled = false
state_dir = "{tmp_path}/state"
[telemetry.prometheus]
port = {port}
[plugins.gpu]
interval = 1
deadline = 0.5
[plugins.system]
interval = 1
"""
    )
    environment = {"LD_LIBRARY_PATH": str(library), "SCENE": request.param}
    agent = Command(("agent", "--config", str(config)), tmp_path / "log", environment)
    agent.start()
    yield port, agent
    agent.stop()


@pytest.mark.parametrize("agent", [""], indirect=True)
def test_the_agent_shows_what_the_driver_says(agent: tuple[int, Command]) -> None:
    port, _ = agent
    text = wait_until(lambda: found if healthy(found := scraped(port), "gpus") == "1.0" else "")
    assert re.search(r'^hw_power_watts{.*hw_name="gpu0".*} 350\.5$', text, re.MULTILINE)
    assert re.search(r'^openclaw_node_capacity{.*openclaw_resource="gpus".*} 1(\.0)?$', text, re.MULTILINE)


@pytest.mark.parametrize("agent", ["hang", "crash"], indirect=True)
def test_a_driver_call_that_hangs_or_crashes_costs_the_gpus_alone(agent: tuple[int, Command]) -> None:
    """The GPUs are unknown, their collector is named, and every other one goes on."""
    port, command = agent
    failed = r'^openclaw_collector_errors_total{.*openclaw_collector="gpus".*} [1-9]'

    def without_gpus() -> str:
        found = scraped(port)
        states = [healthy(found, name) for name in ("gpus", "host", "filesystem")]
        return found if re.search(failed, found, re.MULTILINE) and states == ["0.0", "1.0", "1.0"] else ""

    text = wait_until(without_gpus, what="an error of the GPUs' collector, and none of the others")
    assert "hw_" not in text
    assert 'openclaw_resource="gpus"' not in text
    before = cpu_seconds(text)
    wait_until(lambda: cpu_seconds(scraped(port)) > before, what="the next collection of the others")
    assert "gpus" in command.text()


def cpu_seconds(text: str) -> float:
    """Return the CPU time that the agent's own process has used, by its metrics."""
    return sum(
        float(value) for value in re.findall(r"^process_cpu_time_seconds_total{.*} (.*)$", text, re.MULTILINE)
    )
