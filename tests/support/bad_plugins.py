"""Twelve plugins that misbehave, each a real distribution with an entry point, and one that does not."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from pathlib import Path

GOOD: Final = "good"
BAD: Final = "culprit"

_HEADER: Final = """
import atexit, ctypes, itertools, os, signal, sys, threading, time
from openclaw_exporter.plugin import Capacity, Measurement, QueueDepth, Tag, Uptime, hookimpl
"""
_FOOTER: Final = """
@hookimpl
def openclaw_collectors():
    return [Collector()]
"""
_COLLECTOR: Final = """
class Collector:
    name = "only"
    numbers = itertools.count()

    def collect(self):
{collect}
{rest}
"""


@dataclass(frozen=True, slots=True)
class Bad:
    """One way to misbehave.

    Attributes:
        name: What it does.
        isolation: Where it does that.
        error_type: What it is counted and logged under; empty where it only misbehaves at the end.
        collect: The body of `collect()`.
        module: What stands at the module's top.
        rest: Further methods.
        collector: The collector that it is named by; empty for a plugin that could not be loaded.
    """

    name: str
    isolation: Literal["process", "thread"]
    error_type: str
    collect: str
    module: str = ""
    rest: str = ""
    collector: str = "only"

    def __str__(self) -> str:
        """Name it in a test's id."""
        return f"{self.name}-{self.isolation}".replace(" ", "_")


_HANG = """
lock = threading.Lock()
while True:
    lock.acquire()
yield
"""
_SPIN = """
while True:
    pass
yield
"""
# Copies of the process that hold its pipes open, do not heed SIGTERM and outlive whoever forked them.
_FORK = """
for _ in range(50):
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(3600)
time.sleep(3600)
yield
"""
_MEMORY = """
hoard = []
while True:
    hoard.append(b"x" * 2**22)
yield
"""
_FLOOD = """
for number in self.numbers:
    yield Measurement("flood.water", 1.0, "", attributes={"number": number})
"""
_GARBAGE = """
yield QueueDepth("tasks", -1)
yield Capacity("workers", float("nan"))
yield Measurement("garbage.x", float("inf"), "furlong")
yield Measurement("openclaw.node.uptime", 1.0, "s")
yield Tag("line", "one\\ntwo\\x00")
yield QueueDepth(b"bytes", True)
yield {"not": "an observation"}
yield None
"""
_THREADS_WITHOUT_END = """
while True:
    threading.Thread(target=time.sleep, args=(3600,)).start()
yield
"""
_MANY_THREADS = """
threads = [threading.Thread(target=time.sleep, args=(3600,)) for _ in range(100)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
yield
"""
_IMPORT: Final = "import no_such_driver\n"
_SLOW_STOP = """
def never():
    while True:
        time.sleep(3600)
atexit.register(never)
"""
_FINE = "yield Uptime(1.0) if False else Measurement('culprit.x', 1.0, '')"
_CLOSE = """
    def close(self):
        time.sleep(3600)
"""

TWELVE: Final = (
    Bad("hang", "process", "deadline", _HANG),
    Bad("spin", "process", "deadline", _SPIN),
    Bad("segfault", "process", "exited", "ctypes.string_at(0)\nyield"),
    Bad("fork", "process", "deadline", _FORK),
    Bad("memory", "process", "MemoryError", _MEMORY),
    Bad("flood", "process", "flood", _FLOOD),
    Bad("garbage", "process", "range", _GARBAGE),
    Bad("exit", "process", "exited", "os._exit(3)\nyield"),
    Bad("threads", "process", "RuntimeError", _THREADS_WITHOUT_END),
    Bad("import error", "process", "load", _FINE, module=_IMPORT, collector=""),
    Bad(
        "slow stop",
        "process",
        "deadline",
        f"signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{_HANG}",
        module=_SLOW_STOP,
        rest=_CLOSE,
    ),
    Bad("signal", "process", "exited", "os.kill(0, signal.SIGTERM)\nos.kill(0, signal.SIGKILL)\nyield"),
)
"""Each in a process of its own."""

SURVIVED_AS_THREADS: Final = (
    Bad("hang", "thread", "deadline", _HANG),
    Bad("spin", "thread", "deadline", _SPIN),
    Bad("flood", "thread", "flood", _FLOOD),
    Bad("garbage", "thread", "range", _GARBAGE),
    Bad("exit", "thread", "SystemExit", "sys.exit(3)\nyield"),
    Bad("threads", "thread", "deadline", _MANY_THREADS),
    Bad("import error", "thread", "load", _FINE, module=_IMPORT, collector=""),
    Bad(
        "slow stop",
        "thread",
        "",
        _FINE,
        module=f"{_SLOW_STOP}\nthreading.Thread(target=never).start()\n",
        rest=_CLOSE,
    ),
)
"""Those that Python survives in the agent's own process."""

_GOOD_COLLECT: Final = """
yield Capacity("workers", 3)
yield QueueDepth("tasks", 7, 1.5)
yield Uptime(60.0)
yield Tag("good", "true")
yield Measurement("good.runs", float(next(self.numbers)), "{run}", "counter")
"""


def write(folder: Path, bad: Bad) -> None:
    """Write the bad plugin and the good one as installed distributions into a folder for PYTHONPATH."""
    folder.mkdir()
    _write(folder, GOOD, "", _GOOD_COLLECT, "")
    _write(folder, BAD, bad.module, bad.collect, bad.rest)


def _write(folder: Path, name: str, module: str, collect: str, rest: str) -> None:
    body = _COLLECTOR.format(collect=textwrap.indent(collect, " " * 8), rest=rest)
    (folder / f"{name}_plugin.py").write_text(_HEADER + module + body + _FOOTER)
    info = folder / f"{name}_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[openclaw_exporter]\n{name} = {name}_plugin\n")
