"""The load test against a real receiver, and against what it must not touch."""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from openclaw_exporter.cli.driving import Driver
from openclaw_exporter.cli.load.node import Book
from openclaw_exporter.cli.load.plan import Plan, check_target
from openclaw_exporter.cli.load.processes import Used, used_by
from openclaw_exporter.cli.load.report import Report
from openclaw_exporter.cli.load.tally import Latencies, Tally
from openclaw_exporter.cli.load.worker import Worker
from openclaw_exporter.cli.pki_files import PkiDirectory
from openclaw_exporter.client import Node, Reported
from openclaw_exporter.errors import UserError
from support.ports import free_port
from support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> PkiDirectory:
    path = tmp_path_factory.mktemp("load")
    return PkiDirectory.create(path, trust_domain="test.openclaw", hosts=("127.0.0.1",), port=free_port())


@pytest.fixture(scope="module")
def receiver(made: PkiDirectory) -> Iterator[subprocess.Popen[bytes]]:
    """A receiver in a process of its own; nodes may beat every second."""
    log = made.path / "receiver.log"
    environ = {
        "OPENCLAW_RECEIVER_ADMIN_ENABLED": "false",
        "OPENCLAW_RECEIVER_MIN_INTERVAL": "1",
        "OPENCLAW_RECEIVER_DEFAULT_INTERVAL": "1",
    }
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command("receiver", "--config", str(made.receiver_configuration)),
            stdout=stream,
            stderr=stream,
            env=os.environ | environ,
        )
    try:
        wait_until(lambda: "receiving heartbeats" in log.read_text(), what="the receiver")
        yield process
    finally:
        process.terminate()
        process.wait(120)


def command(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "openclaw_exporter", *arguments)


def run(made: PkiDirectory, *flags: str, place: Path) -> subprocess.CompletedProcess[str]:
    """Run a load test; its temporary files go to a directory that a test can look at."""
    return subprocess.run(
        command("loadtest", str(made.path), *flags),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env=os.environ | {"TMPDIR": str(place)},
    )


def unexpected(faults: list[str]) -> list[str]:
    """Return the faults that have nothing to do with a machine that stalls: it makes a receiver shed load."""
    return [fault for fault in faults if not fault.endswith("requests were answered 503")]


def test_a_fleet_is_simulated_and_reported(
    made: PkiDirectory, receiver: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    flags = ("--nodes", "20", "--interval", "1", "--for", "6", "--pid", str(receiver.pid))
    result = run(made, *flags, "--processes", "2", "--json", place=tmp_path)
    told: dict[str, Any] = json.loads(result.stdout)
    assert (result.returncode, unexpected(told["faults"])) == (bool(told["faults"]), []), result.stderr
    assert (told["nodes_seen"], told["connections_opened"]) == (20, 20)
    assert told["accepted"]["recorded"] >= 20
    assert (told["lost"], told["stored_twice"], told["false_expiries"]) == (0, 0, 0)
    assert told["checked"] >= 20
    assert told["latency_ms"]["p50"] <= told["latency_ms"]["p99"]
    assert told["receiver_cpu_microseconds_per_request"] > 0
    assert told["receiver_memory_bytes"] > 1 << 20
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("receiver")
def test_nodes_come_go_are_cut_off_and_sign(made: PkiDirectory, tmp_path: Path) -> None:
    flags = ("--nodes", "10", "--interval", "1", "--for", "8", "--ramp", "1", "--jitter", "0.2", "--fixed")
    more = ("--new-connections", "--churn", "300", "--partition", "30", "3", "--sign")
    result = run(made, *flags, *more, place=tmp_path)
    faults = result.stderr.strip().partition(": ")[2]
    assert unexpected(faults.split("; ") if faults else []) == [], result.stderr + result.stdout
    assert result.returncode == bool(faults)
    lines = result.stdout.splitlines()
    assert lines[0].startswith("10 nodes at 1 s (10.0 a second) for ")
    assert lines[0].endswith("a new connection each time")
    assert "0 of " in lines[3]
    assert ", 0 attempts cut off" not in lines[6]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("receiver")
def test_ctrl_c_ends_it_early_with_a_report_and_nothing_left(made: PkiDirectory, tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(
            "loadtest", str(made.path), "--nodes", "5", "--interval", "1", "--for", "3600", "--ramp", "0"
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        start_new_session=True,
    )
    wait_until(lambda: len(list(tmp_path.glob("*/0/*.pem"))) >= 6, what="the certificates")
    # Not before it publishes: then there is something to report.
    time.sleep(3)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=180)
    assert out.startswith("5 nodes at 1 s"), err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("receiver")
@pytest.mark.parametrize("when", ["at its start", "at work"])
def test_a_process_that_is_killed_ends_it_with_a_report_that_names_it(
    made: PkiDirectory, tmp_path: Path, when: str
) -> None:
    flags = ("--nodes", "6", "--interval", "1", "--for", "3600", "--ramp", "0", "--processes", "2", "--json")
    process = subprocess.Popen(
        command("loadtest", str(made.path), *flags),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    try:
        # The reader's certificate is the last one: then it publishes, and waits to be stopped.
        name = "*.pem" if when == "at its start" else "reader.key"
        wait_until(lambda: list(tmp_path.glob(f"*/1/{name}")), what="a process at work")
        if when == "at work":
            time.sleep(3)
        workers = [
            child
            for child in psutil.Process(process.pid).children()
            if "spawn_main" in "".join(child.cmdline())
        ]
        victim = workers[-1]
        victim.kill()
        out, err = process.communicate(timeout=180)
    finally:
        process.kill()
    assert process.returncode == 1
    told = json.loads(out)
    named = f"the process load-1 (pid {victim.pid}) was killed by SIGKILL"
    assert told["faults"][0].startswith(named)
    assert named in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--endpoint", "https://receiver.example:8443"), "is not this machine"),
        (("--endpoint", "https://receiver.example:8443", "--remote"), "--remote --target receiver.example"),
        (("--endpoint", "https://192.0.2.1", "--target", "192.0.2.1"), "is not this machine"),
        (("--endpoint", "https://a.example", "--remote", "--target", "b.example"), "is not this machine"),
        (("--endpoint", "http://127.0.0.1"), "is no https URL"),
        (("--endpoint", "https://["), "is no https URL"),
        (("--endpoint", "https://127.0.0.1:99999"), "is no https URL"),
        (("--nodes", "2", "--processes", "3"), "is more than --nodes 2"),
        (("--for", "5", "--ramp", "5"), "--ramp 5 is not shorter than --for 5"),
        (("--for", "10", "--partition", "50", "7"), "7 s are more than the 6 that are left of --for 10"),
        (("--endpoint", "https://127.0.0.1:1"), "the receiver cannot be tested: "),
    ],
)
def test_what_it_does_not_do(
    made: PkiDirectory, tmp_path: Path, flags: tuple[str, ...], expected: str
) -> None:
    result = run(made, *flags, place=tmp_path)
    assert result.returncode == 2
    assert expected in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_more_connections_than_open_files_are_a_mistake(made: PkiDirectory, tmp_path: Path) -> None:
    few = ("sh", "-c", 'ulimit -n 350; exec "$@"', "sh")
    flags = ("--nodes", "400", "--processes", "2")
    result = subprocess.run(
        (*few, *command("loadtest", str(made.path), *flags)),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    assert result.returncode == 2
    assert "200 connections in one process need 400 open files, and this shell allows 350" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_process_that_is_not_there_is_told(
    made: PkiDirectory, receiver: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    assert receiver.poll() is None
    result = run(made, "--for", "1", "--pid", "4194305", place=tmp_path)
    assert (result.returncode, "there is no process 4194305" in result.stderr) == (2, True)


def test_a_directory_without_the_authoritys_key_is_told(tmp_path: Path) -> None:
    pki = PkiDirectory.create(tmp_path / "pki", trust_domain="test.openclaw", hosts=("127.0.0.1",), port=1)
    (pki.path / "ca.key").unlink()
    (tmp_path / "place").mkdir()
    result = run(pki, place=tmp_path / "place")
    assert (result.returncode, "ca.key is not there" in result.stderr) == (2, True)


def test_a_target_elsewhere_has_to_be_said_twice() -> None:
    check_target("https://receiver.example:8443", remote=True, target="receiver.example")
    for here in ("https://localhost:1", "https://127.0.0.1:1", "https://[::1]:1"):
        check_target(here, remote=False, target="")
    with pytest.raises(UserError):
        check_target("https://receiver.example", remote=True, target="")


def plan_of(made: PkiDirectory, **changes: Any) -> Plan:
    terms: dict[str, Any] = {"nodes": 0, "interval": 60, "seconds": 1, "ramp": 0, "run": "here"} | changes
    return Plan(pki=made.path, endpoint=made.endpoint, **terms)


def node_of(last_seen: dt.datetime) -> Node:
    said = Reported(hostname="a", version="1", capacity={}, queue_depth={}, last_heartbeat=last_seen, tags=())
    return Node(
        node_id="7f1c9a52-5e0b-4d7c-9f53-0d6a1f1f8f11",
        state="expired",
        reason="",
        first_seen=last_seen,
        last_seen=last_seen,
        expires_at=last_seen,
        interval_seconds=60,
        clock_skew_seconds=0,
        heartbeat=said,
    )


@pytest.mark.parametrize(
    ("silence", "answered", "false"),
    [(121.0, (), 0), (119.0, (), 1), (121.0, (130.0,), 0), (121.0, (60.0,), 1), (121.0, (200.0, 2.0), 0)],
)
def test_which_expiries_are_false(
    made: PkiDirectory, tmp_path: Path, silence: float, answered: tuple[float, ...], false: int
) -> None:
    worker = Worker(plan_of(made), 0, tmp_path)
    at = dt.datetime.now(dt.UTC)
    seen = node_of(at - dt.timedelta(seconds=silence))

    heard = SimpleNamespace(heard=[time.monotonic() - ago for ago in answered])
    worker._known[seen.node_id] = heard  # type: ignore[assignment] # all that is looked at
    worker.expired(seen, at)
    assert (worker.book.tally.expiries, worker.book.tally.false_expiries) == (1, false)


def test_percentiles() -> None:
    latencies = Latencies()
    assert latencies.percentile(99) is None
    for milliseconds in range(1, 1001):
        latencies.add(milliseconds / 1000)
    for percent in (50.0, 90.0, 99.0, 99.9, 100.0):
        assert latencies.percentile(percent) == pytest.approx(percent / 100, rel=0.02)


def test_tallies_add_up_and_faults_are_named(made: PkiDirectory) -> None:
    one = Tally(nodes=1, sent=3, lost=1, late=0.5)
    one.accepted.update(recorded=2)
    one.refused.update({"503": 1})
    one.latencies.add(0.1)
    other = Tally(nodes=2, sent=1, twice=1, false_expiries=1, expiries=2, late=2.0)
    other.unanswered.update(timeout=1)
    other.latencies.add(0.1)
    one.add(other)
    assert (one.nodes, one.sent, one.late, one.latencies.buckets.total()) == (3, 4, 2.0, 2)
    report = Report(plan_of(made, nodes=3), one, 10.0, Used(1.0, 0), Used(1.3, 3 << 20))
    assert report.cpu_microseconds == pytest.approx(100_000)
    assert report.faults() == [
        "1 acknowledged heartbeats are not in the registry",
        "1 heartbeats are in the registry twice",
        "1 nodes expired though they had been heard",
        "1 requests were answered 503",
        "1 got no answer: timeout",
    ]
    text = "\n".join(report.lines())
    assert "0.30 s of CPU, 100000 µs a request; 3 MiB" in text
    assert "was up to 2.0 s late" in text
    nothing = Report(plan_of(made), Tally(), 1.0, None, None)
    assert nothing.faults() == ["nothing was accepted"]
    assert nothing.document()["latency_ms"]["p99"] is None
    assert "  latency         unknown" in nothing.lines()
    assert nothing.document()["receiver_cpu_seconds"] is None


def test_a_process_is_measured_with_its_children() -> None:
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE)
    try:
        alone = used_by(process.pid)
        wait_until(lambda: used_by(process.pid).memory > 1.5 * (6 << 20), what="the child")
        assert alone.cpu <= used_by(os.getpid()).cpu
    finally:
        process.communicate(b"\n", timeout=180)
    with pytest.raises(UserError, match="no process"):
        used_by(process.pid)


def test_turns_are_taken_in_their_order_by_any_number_of_threads() -> None:
    driver = Driver(3)
    taken: list[int] = []
    done = threading.Event()

    def turn_of(number: int) -> Any:
        def turn() -> float:
            taken.append(number)
            if len(taken) == 30:
                done.set()
            return time.monotonic() if taken.count(number) < 10 else float("inf")

        return turn

    now = time.monotonic()
    for number in range(3):
        driver.add(turn_of(number), now)
    driver.start()
    assert done.wait(60)
    driver.stop()
    assert sorted(taken) == [0] * 10 + [1] * 10 + [2] * 10


def test_a_tally_is_changed_by_many_threads() -> None:
    book = Book(Tally())

    def count(tally: Tally) -> None:
        tally.sent += 1

    threads = [threading.Thread(target=lambda: [book.note(count) for _ in range(1000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert book.tally.sent == 4000
