"""What a collector's own process costs before it does anything, beside a bare interpreter.

    python tests/benchmarks/bench_child.py [ROUNDS]

Starts the process of a plugin that imports nothing of its own, from the call that starts it to its word that
it is ready, by turns with `python -c pass`. Prints medians of wall time, CPU time and resident memory, and
what the process takes beyond the bare interpreter: 150 ms and 20 MiB are allowed.
"""

from __future__ import annotations

import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from interpreter import announce

from openclaw_exporter.agent.pipe import Ready, Start
from openclaw_exporter.agent.process import Child
from openclaw_exporter.agent.settings import ProcessSettings

ROUNDS = 9
ALLOWED_SECONDS = 0.150
ALLOWED_BYTES = 20 * 2**20

_PLUGIN = """
from openclaw_exporter.plugin import hookimpl

class Empty:
    name = "empty"

    def collect(self):
        return []

@hookimpl
def openclaw_collectors():
    return [Empty()]
"""
# Ready, and then held until its memory has been read.
_BARE = "import sys; sys.stdout.write('r'); sys.stdout.flush(); sys.stdin.read(1)"


class Taken(NamedTuple):
    """What one start took: wall and CPU seconds, bytes."""

    wall: float
    cpu: float
    memory: float


def install(folder: Path) -> None:
    """Write the empty plugin as an installed distribution."""
    (folder / "bench_empty.py").write_text(_PLUGIN)
    info = folder / "bench_empty-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bench-empty\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[openclaw_exporter]\nbench-empty = bench_empty\n")


def start_of(folder: Path) -> Start:
    """Return what the agent would tell the process."""
    settings = ProcessSettings()
    return Start(
        plugin="bench-empty",
        collector="empty",
        table={},
        path=[str(folder), *sys.path],
        parent=os.getpid(),
        death_signal=signal.SIGKILL,
        series_budget=300,
        memory_limit=settings.memory_limit,
        cpu_limit=settings.cpu_limit,
        load_deadline=settings.start_deadline,
    )


def children_cpu() -> float:
    """Return the CPU seconds of all processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def resident(pid: int) -> float:
    """Return a process's peak of resident memory in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM"))
    return int(peak) * 1024


def child(start: Start) -> Taken:
    """Start a collector's process, wait for its word, end it."""
    cpu, began = children_cpu(), time.perf_counter()
    process = Child()
    answer = process.begin(start, time.monotonic() + 30)
    wall = time.perf_counter() - began
    if not isinstance(answer, Ready):
        raise SystemExit(f"the process is not ready: {answer}")
    memory = resident(process._process.pid)
    process.end(grace=5.0, killable=True)
    return Taken(wall, children_cpu() - cpu, memory)


def bare() -> Taken:
    """Start the interpreter and nothing else; end it."""
    cpu, began = children_cpu(), time.perf_counter()
    with subprocess.Popen(
        (sys.executable, "-P", "-c", _BARE), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        wall = time.perf_counter() - began
        memory = resident(process.pid)
        process.communicate(b"x")
    return Taken(wall, children_cpu() - cpu, memory)


def median(rounds: list[Taken]) -> Taken:
    """Return the median of each column."""
    return Taken(*(statistics.median(column) for column in zip(*rounds, strict=True)))


def row(name: str, taken: Taken) -> None:
    """Print one line of the table."""
    wall, cpu, memory = taken
    print(f"{name:<34} {wall * 1e3:8.1f} {cpu * 1e3:8.1f} {memory / 2**20:8.1f}")


def main(rounds: int) -> None:
    """Measure by turns and print."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # As pip leaves it, whatever this process was told.
        os.environ |= {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}
        install(folder)
        start = start_of(folder)
        pairs = [(child(start), bare()) for _ in range(rounds + 1)][1:]  # the first one compiles
    ours, peer = (median([pair[side] for pair in pairs]) for side in (0, 1))
    beyond = Taken(*(mine - its for mine, its in zip(ours, peer, strict=True)))
    print(f"medians of {rounds:<23} {'wall ms':>8} {'CPU ms':>8} {'RSS MiB':>8}")
    row("a collector's process, ready", ours)
    row("python -c pass", peer)
    row("beyond it", beyond)
    row("allowed beyond it", Taken(ALLOWED_SECONDS, float("nan"), ALLOWED_BYTES))


if __name__ == "__main__":
    announce()
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
