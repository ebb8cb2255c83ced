"""The process that one collector has to itself: `python -m openclaw_exporter.agent.child`.

It reads what to run from its standard input, loads that one plugin by its entry point, and collects whenever
it is asked to. It ends when the agent does: by the end of its input, and by the signal that Linux sends then.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

from openclaw_exporter.agent.pipe import (
    COLLECT,
    Collected,
    Entry,
    Failed,
    Loaded,
    Ready,
    Start,
    pack,
    read_start,
)
from openclaw_exporter.plugin.guard import Guard
from openclaw_exporter.plugin.host import load_plugins
from openclaw_exporter.plugin.redaction import describe_error

if TYPE_CHECKING:
    from openclaw_exporter.agent.pipe import Answer
    from openclaw_exporter.plugin import Collector

_PR_SET_PDEATHSIG: Final = 1


def main() -> None:
    """Serve the agent until it closes the pipe."""
    requests, answers = _take_pipes()
    try:
        start = read_start(requests)
    except EOFError:
        return
    _die_with(start.parent, start.death_signal)
    asked: SimpleQueue[None] = SimpleQueue()
    threading.Thread(target=_listen, args=(requests, asked), name="requests", daemon=True).start()
    _limit_memory(start.memory_limit)
    _limit_cpu(start.cpu_limit)
    sys.path[:] = start.path
    loaded = _load(start)
    if isinstance(loaded, (Failed, Loaded)):
        _write(answers, loaded)
        return
    _write(answers, Ready())
    guard = Guard(start.series_budget)
    while True:
        asked.get()
        _limit_cpu(start.cpu_limit)
        _write(answers, _collect(loaded, guard))


def _take_pipes() -> tuple[int, int]:
    """Return private copies of standard input and output; what a plugin reads and prints goes to nothing."""
    requests, answers = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.close(nothing)
    return requests, answers


def _die_with(parent: int, death_signal: int) -> None:
    """Have the kernel send a signal to this process when the thread that started it ends (prctl(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def _listen(requests: int, asked: SimpleQueue[None]) -> None:
    """Pass requests on; end the process with the pipe, even where the collector hangs."""
    while True:
        request = os.read(requests, 1)
        if request != COLLECT:
            os._exit(0)
        asked.put(None)


def _limit_memory(limit: int) -> None:
    """Bound what this process may allocate: its private writable memory (setrlimit(2), RLIMIT_DATA)."""
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _limit_cpu(allowance: int) -> None:
    """Grant this process so many more seconds of CPU time; beyond them it gets SIGXCPU, which ends it."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    used = int(usage.ru_utime + usage.ru_stime)
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    wanted = used + allowance
    resource.setrlimit(
        resource.RLIMIT_CPU, (wanted if most == resource.RLIM_INFINITY else min(wanted, most), most)
    )


def _load(start: Start) -> Collector | Failed | Loaded:
    plugins = load_plugins(
        {start.plugin: start.table},
        only={start.plugin},
        load_deadline=start.load_deadline,
        default_interval=start.default_interval,
        default_deadline=start.default_deadline,
        source=start.source,
    )
    if plugins.failures:
        return Failed("load", plugins.failures[0].message)
    if not start.collector:
        return Loaded(
            [
                Entry(
                    name=loaded.name,
                    interval=loaded.interval,
                    deadline=loaded.deadline,
                    series_budget=loaded.series_budget,
                    abandon_when_hung=bool(getattr(loaded.collector, "abandon_when_hung", False)),
                )
                for loaded in plugins.collectors
            ]
        )
    for loaded in plugins.collectors:
        if loaded.name == start.collector:
            return loaded.collector
    return Failed(
        "load", f"plugin {start.plugin!r} has no collector {start.collector!r} in a process of its own"
    )


def _collect(collector: Collector, guard: Guard) -> Answer:
    try:
        checked = guard.check(collector.collect())
    except BaseException as error:  # noqa: BLE001 - a plugin may raise anything, SystemExit too
        return Failed(type(error).__name__[:100], describe_error(error))
    rejected = [(rejection.reason, rejection.detail) for rejection in checked.rejected]
    return Collected.of(checked.observations, rejected)


def _write(answers: int, answer: Answer) -> None:
    frame = memoryview(pack(answer))
    while frame:
        frame = frame[os.write(answers, frame) :]


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt from the terminal is the agent's to handle
    main()
