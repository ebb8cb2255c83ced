"""A collector in a process without a network: what it says when whatever it asks over one is gone.

`main` is what that process runs: it enters an empty network namespace (unshare(2)), reads what to collect
from standard input, and writes what came of it.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

from openclaw_exporter.plugin.guard import Checked, Rejection
from openclaw_exporter.plugin.host import load_plugins
from openclaw_exporter.plugin.observations import Capacity, Measurement, Observation, QueueDepth, Tag, Uptime
from openclaw_exporter.plugin.runner import Run, Runner
from openclaw_exporter.plugin.testing.findings import Finding, Findings
from openclaw_exporter.plugin.testing.source import says_the_same, spoken, wrong_when_gone

if TYPE_CHECKING:
    from openclaw_exporter.plugin.host import LoadedCollector

_KINDS: Final[dict[str, type[Any]]] = {
    kind.__name__: kind for kind in (Capacity, Measurement, QueueDepth, Tag, Uptime)
}
_CODE: Final = f"from {__name__} import main; main()"
_NEW_USER: Final = 0x10000000
_NEW_NETWORK: Final = 0x40000000
_PATIENCE: Final = 30.0
"""Seconds beyond its deadline that the process may take to start and to load the plugin."""


def check_without_network(loaded: LoadedCollector, before: Run) -> Findings:
    """Compare a good collection with one of a fresh process that has no network.

    It may neither hang nor say zero. One that says the same as before asks nothing over a network; that its
    source is gone, only its author's own test can bring about.
    """
    if before.failed or not before.observations:
        return (Finding("source", "note", "not checked: nothing was collected while the source was there"),)
    gone = _collect_away(loaded)
    if gone is None:
        text = "not checked: no process without a network can be made here"
        return (Finding("source", "note", text),)
    if found := wrong_when_gone(before, gone):
        return found
    if says_the_same(before, gone):
        text = "it needs no network; that its source is gone, only its author's own test can show"
        return (Finding("source", "note", text),)
    return (Finding("source", "passed", f"{spoken(gone)} in a process without a network"),)


def _collect_away(loaded: LoadedCollector) -> Run | None:
    """Collect once in a process without a network; None where that cannot be had."""
    try:
        asked = json.dumps([loaded.plugin, loaded.name, loaded.options_table, loaded.deadline])
        done = subprocess.run(  # noqa: S603 - our own code, in our own interpreter
            (sys.executable, "-c", _CODE),
            input=asked,
            capture_output=True,
            text=True,
            timeout=loaded.deadline + _PATIENCE,
            check=True,
        )
        answer = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, TypeError, ValueError, IndexError):
        return None
    observations: tuple[Observation, ...] = tuple(
        _KINDS[kind](**fields) for kind, fields in answer.pop("observations")
    )
    rejected = tuple(Rejection(reason, detail) for reason, detail in answer.pop("rejected"))
    return Run(checked=Checked(observations, rejected), **answer)


def main() -> None:
    """Collect once without a network, and end the process."""
    plugin, name, table, deadline = json.load(sys.stdin)
    libc = ctypes.CDLL(None, use_errno=True)
    flags = _NEW_NETWORK if os.geteuid() == 0 else _NEW_NETWORK | _NEW_USER
    if libc.unshare(flags) != 0:
        raise SystemExit(os.strerror(ctypes.get_errno()))
    loaded = load_plugins({plugin: table}, only={plugin})
    (one,) = (found for found in loaded.collectors if found.name == name)
    runner = Runner(one.collector, deadline=deadline, series_budget=one.series_budget)
    run = runner.run()
    answer = {
        "seconds": run.seconds,
        "error": run.error,
        "error_type": run.error_type,
        "overdue": run.overdue,
        "observations": [[type(item).__name__, dataclasses.asdict(item)] for item in run.observations],
        "rejected": [dataclasses.astuple(rejection) for rejection in run.rejected],
    }
    print(json.dumps(answer), flush=True)  # noqa: T201 - the answer to the process that asked
    os._exit(0)  # a collector that hangs is not waited for
