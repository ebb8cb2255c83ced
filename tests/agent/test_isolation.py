"""Collectors in processes of their own: real ones, good and bad, that really die, hang and flood."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from openclaw_exporter.agent.collection import Collection
from openclaw_exporter.agent.isolation import ChildSource, may_be_killed
from openclaw_exporter.agent.pipe import ChildError
from openclaw_exporter.agent.settings import ProcessSettings
from openclaw_exporter.agent.snapshot import Board
from openclaw_exporter.plugin import Capacity, Measurement, QueueDepth, Tag, Uptime
from openclaw_exporter.plugin.guard import Checked, Guard
from support.wait import wait_until

if TYPE_CHECKING:
    import io
    from collections.abc import Iterator, Mapping

    from agent.factory import Factory

    from openclaw_exporter.plugin.host import LoadedCollector

QUICK = ProcessSettings(grace=0.1, long_grace=0.1, start_deadline=120.0)
DEADLINE = 1.0


class Sources:
    """Makes sources and ends what they leave."""

    def __init__(self) -> None:
        self._made: list[ChildSource] = []

    def __call__(self, loaded: LoadedCollector, settings: ProcessSettings = QUICK) -> ChildSource:
        source = ChildSource(loaded, Guard(), settings)
        self._made.append(source)
        return source

    def close(self) -> None:
        for source in self._made:
            source.close()


@pytest.fixture
def sources() -> Iterator[Sources]:
    sources = Sources()
    yield sources
    sources.close()


def pid_of(source: ChildSource) -> int:
    assert source._child is not None
    return source._child._process.pid


def ended(pid: int) -> bool:
    """Whether a process is gone, or only waits for its parent to notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def run_when_rested(source: ChildSource) -> Checked:
    """Collect, once the pause after a failure is over."""

    def attempt() -> Checked | None:
        with contextlib.suppress(ChildError):
            return source.run()
        return None

    found = wait_until(attempt, what="a good run")
    assert found is not None
    return found


def test_a_good_one_yields_the_same_as_in_a_thread(factory: Factory, sources: Sources) -> None:
    collect = """
        yield Capacity("workers", 4)
        yield Capacity("gpu_share", 0.5)
        yield QueueDepth("tasks", 2**53 - 1, 1.5)
        yield QueueDepth("review", 0)
        yield Uptime(12.25)
        yield Tag("gpu", "true")
        yield Measurement("app.x", -1.5, "By", "updowncounter", {"a": "ü", "b": 1, "c": 1.5, "d": True})
        yield Measurement("app.pid", os.getpid(), "")
    """
    source = sources(factory.one("good", collect))
    checked = source.run()
    assert checked.rejected == ()
    pid = Measurement("app.pid", pid_of(source), "")
    assert checked.observations == (
        Capacity("workers", 4),
        Capacity("gpu_share", 0.5),
        QueueDepth("tasks", 2**53 - 1, 1.5),
        QueueDepth("review", 0),
        Uptime(12.25),
        Tag("gpu", "true"),
        Measurement("app.x", -1.5, "By", "updowncounter", {"a": "ü", "b": 1, "c": 1.5, "d": True}),
        pid,
    )
    assert pid.value != os.getpid()
    again = source.run()
    assert pid in again.observations
    cost = source.cost()
    assert cost is not None
    assert cost.memory_bytes > 1_000_000
    assert cost.cpu_seconds > 0


def test_its_options_arrive_by_the_pipe_and_nowhere_else(factory: Factory, sources: Sources) -> None:
    body = """
    @dataclass(frozen=True)
    class Options:
        password: str = ""

    class C:
        name = "options"

        def __init__(self, options):
            self.options = options

        def collect(self):
            seen = open("/proc/self/cmdline").read() + open("/proc/self/environ").read()
            yield Measurement("app.length", len(self.options.password), "")
            yield Measurement("app.leaked", int(self.options.password in seen), "")

    @hookimpl
    def openclaw_collectors(options: Options):
        return [C(options)]
    """
    factory.write("options", body, footer="")
    secret = "correct horse battery"  # noqa: S105 - a canary
    source = sources(factory.load("options", password=secret))
    values = [item.value for item in source.run().observations if isinstance(item, Measurement)]
    assert values == [len(secret), 0]


def test_one_that_has_nothing_to_measure_has_no_process(
    factory: Factory, sources: Sources, tmp_path: Path
) -> None:
    device = tmp_path / "device"
    attributes = f"""
        def absent(self):
            return None if os.path.exists({str(device)!r}) else [Tag("device", "no"), Uptime(-1.0)]
    """
    source = sources(factory.one("spared", 'yield Tag("device", "yes")', attributes))
    checked = source.run()
    assert checked.observations == (Tag("device", "no"),)
    assert [rejection.reason for rejection in checked.rejected] == ["range"]
    assert source._child is None
    device.touch()
    assert source.run().observations == (Tag("device", "yes"),)
    pid = pid_of(source)
    cost = source.cost()
    assert cost is not None
    device.unlink()
    assert source.run().observations == (Tag("device", "no"),)
    assert source._child is None
    assert ended(pid)
    left = source.cost()
    assert left is not None
    assert left.memory_bytes == 0
    assert left.cpu_seconds >= cost.cpu_seconds > 0


def test_one_that_raises_keeps_its_process(factory: Factory, sources: Sources) -> None:
    source = sources(factory.one("raising", "raise ConnectionError('redis://u:hunter2@host is away')"))
    errors = []
    pids = set()
    for _ in range(3):
        with pytest.raises(ChildError) as caught:
            source.run()
        errors.append(caught.value.error_type)
        pids.add(pid_of(source))
    assert errors == ["ConnectionError"] * 3
    assert len(pids) == 1
    assert "is away" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("collect", "error_type", "text"),
    [
        ("ctypes.string_at(0)", "exited", "SIGSEGV"),
        ("os.abort()", "exited", "SIGABRT"),
        ("os._exit(3)", "exited", "status 3"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "exited", "SIGKILL"),
        ("time.sleep(3600)", "deadline", "did not answer in time"),
        ("signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(3600)", "deadline", "in time"),
        ("while True: pass", "deadline", "in time"),
        ("ctypes.PyDLL(None).sleep(3600)", "deadline", "in time"),
        ("os.kill(os.getpid(), signal.SIGSTOP)", "deadline", "in time"),
    ],
    ids=[
        "segfault",
        "abort",
        "exit",
        "killed",
        "hang",
        "hang-ignoring-sigterm",
        "spin",
        "hold-the-gil",
        "stop",
    ],
)
def test_a_process_that_dies_or_hangs_is_ended_and_started_again(
    factory: Factory, sources: Sources, tmp_path: Path, collect: str, error_type: str, text: str
) -> None:
    switch = tmp_path / "good"
    code = f"if not os.path.exists({str(switch)!r}):\n    {collect}\nyield Uptime(1.0)"
    deadline = {"deadline": DEADLINE} if error_type == "deadline" else {}
    source = sources(factory.one("bad", code, **deadline))
    with pytest.raises(ChildError, match=text) as caught:
        source.run()
    assert caught.value.error_type == error_type
    source._not_before += 60  # the pause itself is a second, which a crowded machine may take for anything
    with pytest.raises(ChildError, match="started again in") as caught:
        source.run()
    assert caught.value.error_type == "restarting"
    source._not_before -= 60
    switch.touch()
    assert run_when_rested(source).observations == (Uptime(1.0),)


def test_one_that_ends_between_two_runs_is_started_again(factory: Factory, sources: Sources) -> None:
    source = sources(factory.one("good", "yield Uptime(1.0)"))
    source.run()
    first = pid_of(source)
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: ended(first))
    with pytest.raises(ChildError, match="SIGKILL"):
        source.run()
    assert run_when_rested(source).observations == (Uptime(1.0),)
    assert pid_of(source) != first


def test_the_pause_doubles_up_to_its_limit(factory: Factory, sources: Sources) -> None:
    source = sources(factory.one("dying", "os._exit(1)"), ProcessSettings(backoff_limit=3.0))
    for pause in (1, 2, 3, 3):
        source._not_before = 0.0
        began = time.monotonic()
        with pytest.raises(ChildError, match="status 1"):
            source.run()
        assert began + pause <= source._not_before <= time.monotonic() + pause


def test_one_that_allocates_without_end_meets_its_limit(factory: Factory, sources: Sources) -> None:
    collect = """
        hoard = []
        while True:
            hoard.append(bytearray(10_000_000))
    """
    settings = ProcessSettings(memory_limit=200_000_000, grace=0.1)
    source = sources(factory.one("hoarding", collect), settings)
    with pytest.raises(ChildError) as caught:
        source.run()
    assert caught.value.error_type == "MemoryError"


def test_one_that_burns_its_cpu_time_is_ended_by_the_kernel(factory: Factory, sources: Sources) -> None:
    source = sources(
        factory.one("burning", "while True: pass", interval=120, deadline=120),
        ProcessSettings(cpu_limit=1, grace=0.1),
    )
    with pytest.raises(ChildError, match="SIGXCPU"):
        source.run()
    cost = source.cost()
    assert cost is not None
    assert cost.cpu_seconds >= 0.5


def test_what_it_starts_ends_with_it(factory: Factory, sources: Sources, tmp_path: Path) -> None:
    note = tmp_path / "grandchild"
    collect = f"""
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            open({str(note)!r}, "w").write(str(os.getpid()))
            time.sleep(3600)
        while not os.path.exists({str(note)!r}):
            time.sleep(0.01)
        os._exit(5)
    """
    source = sources(factory.one("forking", collect))
    with pytest.raises(ChildError, match="status 5"):
        source.run()
    grandchild = int(note.read_text())
    wait_until(lambda: ended(grandchild), what="the grandchild's end")


@pytest.mark.parametrize(
    "collect",
    [
        "print('noise' * 1000); sys.stdout.flush(); yield Uptime(1.0)",
        "os.system('echo noise'); yield Uptime(1.0)",
    ],
    ids=["print", "os.system"],
)
def test_what_it_prints_disturbs_nothing(factory: Factory, sources: Sources, collect: str) -> None:
    assert sources(factory.one("printing", collect)).run().observations == (Uptime(1.0),)


def test_one_that_writes_into_the_pipe_is_found_out(factory: Factory, sources: Sources) -> None:
    collect = """
        for descriptor in range(3, 20):
            try:
                os.write(descriptor, b"garbage for the agent")
            except OSError:
                pass
        yield Uptime(1.0)
    """
    source = sources(factory.one("meddling", collect))
    with pytest.raises(ChildError) as caught:
        source.run()
    assert caught.value.error_type == "protocol"


def test_garbage_and_floods_are_refused_there(factory: Factory, sources: Sources) -> None:
    collect = """
        yield QueueDepth("tasks", -1)
        yield object()
        yield Measurement("app.x", float("nan"), "")
        yield Uptime(1.0)
        while True:
            yield Capacity("workers", 1)
    """
    checked = sources(factory.one("garbage", collect)).run()
    assert checked.observations == (Uptime(1.0), Capacity("workers", 1))
    assert {rejection.reason for rejection in checked.rejected} == {"range", "type", "duplicate", "flood"}


def test_a_plugin_that_cannot_be_loaded_there_is_named(factory: Factory, sources: Sources) -> None:
    loaded = factory.one("loading", "yield Uptime(1.0)")
    (factory.folder / f"{factory.module('loading')}.py").write_text("raise ImportError('no NVML here')")
    source = sources(loaded)
    with pytest.raises(ChildError, match="no NVML here") as caught:
        source.run()
    assert caught.value.error_type == "load"


def test_a_collector_that_is_not_there_any_more_is_named(factory: Factory, sources: Sources) -> None:
    loaded = factory.one("renamed", "yield Uptime(1.0)")
    factory.one("renamed", "yield Uptime(1.0)", "name = 'other'")
    with pytest.raises(ChildError, match="has no collector 'renamed'"):
        sources(loaded).run()


# Like a driver that hangs: neither a signal nor another thread gets through to it.
HUNG = """
    if not os.path.exists({note!r}):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with open({note!r}, "w") as note:
            note.write(str(os.getpid()))
        held = os.open({lock!r}, os.O_RDONLY)
        ctypes.PyDLL(None).flock(held, 2)
    yield Uptime(1.0)
"""


def test_one_that_must_not_be_killed_is_left_behind_and_has_no_successor(
    factory: Factory, sources: Sources, tmp_path: Path
) -> None:
    note = tmp_path / "pid"
    lock = tmp_path / "lock"
    held = os.open(lock, os.O_RDONLY | os.O_CREAT)
    fcntl.flock(held, fcntl.LOCK_EX)
    code = HUNG.format(note=str(note), lock=str(lock))
    loaded = factory.one("driver", code, "abandon_when_hung = True", deadline=5.0)
    assert not may_be_killed(loaded)
    source = sources(loaded)
    with pytest.raises(ChildError, match="did not answer in time"):
        source.run()
    hung = int(note.read_text())
    assert not ended(hung)
    source._not_before = 0.0
    with pytest.raises(ChildError, match="must not be killed") as caught:
        source.run()
    assert caught.value.error_type == "hung"
    assert pid_of(source) == hung
    os.close(held)
    wait_until(lambda: ended(hung), what="the hung process's end")
    assert run_when_rested(source).observations == (Uptime(1.0),)
    assert pid_of(source) != hung


def test_the_bundled_gpu_plugin_is_never_killed(factory: Factory) -> None:
    gpu = factory.one("plain", "yield Uptime(1.0)")
    assert may_be_killed(gpu)
    gpu = msgspec.structs.replace(gpu, plugin="gpu")
    assert not may_be_killed(gpu)


def test_cancelling_ends_a_run_that_goes_on(factory: Factory, sources: Sources) -> None:
    import threading  # noqa: PLC0415 - this test only

    source = sources(factory.one("sleeping", "time.sleep(3600)", deadline=60.0, interval=60.0))
    caught: list[ChildError] = []

    def run() -> None:
        try:
            source.run()
        except ChildError as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(lambda: source._child is not None)
    source.cancel()
    thread.join(60)
    assert not thread.is_alive()
    assert caught[0].error_type == "exited"
    with pytest.raises(ChildError):
        source.run()


PARENT = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from openclaw_exporter.agent.isolation import ChildSource
from openclaw_exporter.agent.settings import ProcessSettings
from openclaw_exporter.plugin.guard import Guard
from openclaw_exporter.plugin.host import load_plugins
(loaded,) = load_plugins({}, only={"orphan"}).collectors
source = ChildSource(loaded, Guard(), ProcessSettings())
(measured,) = source.run().observations
print(int(measured.value), flush=True)
try:
    source.run()
except Exception as error:
    print(error)
"""


@pytest.mark.parametrize("holding", ["time.sleep(3600)", "ctypes.PyDLL(None).sleep(3600)"])
def test_a_child_ends_with_its_parent_however_that_ends(factory: Factory, holding: str) -> None:
    collect = f"""
        if getattr(self, "ran", False):
            {holding}
        self.ran = True
        yield Measurement("app.pid", os.getpid(), "")
    """
    factory.one("orphan", collect, deadline=60.0, interval=60.0)
    with subprocess.Popen(
        (sys.executable, "-c", PARENT, str(factory.folder)), stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert not ended(child)
        time.sleep(0.1)  # the second request is on its way
        parent.send_signal(signal.SIGKILL)
    wait_until(lambda: ended(child), what="the child's end")


def test_the_pause_after_a_failure_is_counted_but_is_no_news(factory: Factory, log: io.StringIO) -> None:
    loaded = factory.one("dying", "os._exit(3)", isolation="process", interval=3.0, deadline=3.0)
    board = Board()
    collection = Collection(board, lambda: QUICK)
    collection.start()
    collection.replace([loaded])

    def errors() -> Mapping[str, int]:
        return board.read().collectors[0].errors

    wait_until(lambda: errors().get("exited", 0) >= 2, what="two deaths")
    wait_until(lambda: errors().get("restarting"), what="a pause")
    collection.cancel()
    collection.join(5.0)
    lines = [line for line in log.getvalue().splitlines() if "dying" in line]
    lines = [line for line in lines if "did not end within" not in line]  # a crowded machine's
    assert lines == ["collector dying/dying failed: ChildError: its process exited with status 3"]
