"""What importing a plugin's module takes, measured in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Final, NamedTuple

from openclaw_exporter.plugin.testing.findings import Finding, Findings

_LIMIT: Final = 60
_CODE: Final = """
import importlib, json, resource, sys, time
import openclaw_exporter.plugin.host
def memory():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
before, started = memory(), time.perf_counter()
importlib.import_module(sys.argv[1])
seconds = time.perf_counter() - started
print(json.dumps([seconds, memory() - before]), file=sys.stderr)
"""


class Weight(NamedTuple):
    """What an import takes beyond what the host has imported already.

    Attributes:
        seconds: Wall time.
        memory: Bytes of resident memory.
    """

    seconds: float
    memory: int


def import_weight(module: str) -> Weight | None:
    """Import a module in a fresh process; None where that fails or the system does not tell."""
    try:
        done = subprocess.run(  # noqa: S603 - our own code, and a module's name as its argument
            (sys.executable, "-c", _CODE, module), capture_output=True, text=True, timeout=_LIMIT, check=True
        )
        seconds, memory = json.loads(done.stderr.splitlines()[-1])
    except (subprocess.SubprocessError, OSError, ValueError, IndexError):
        return None
    return Weight(float(seconds), int(memory))


def check_import(module: str) -> Findings:
    """Tell what importing the module takes."""
    weight = import_weight(module)
    if weight is None:
        return (Finding("import", "note", "could not be measured"),)
    text = f"{weight.seconds * 1e3:.0f} ms and {weight.memory / 2**20:.1f} MiB beyond the host's own"
    return (Finding("import", "note", text),)
