"""The demo, as it is started by a person: in a process of its own, with everything real."""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import json
import os
import pty
import re
import shlex
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from click.testing import CliRunner

from openclaw_exporter.cli.app import app
from openclaw_exporter.cli.commands import demo as demo_command
from openclaw_exporter.cli.demo.neighbours import silences
from openclaw_exporter.cli.demo.result import Result
from openclaw_exporter.cli.demo.view import PlainView, totals
from openclaw_exporter.cli.demo.watch import Changes, Delivered, Sight
from openclaw_exporter.client import Node, Registry, Reported
from support.skip import binary
from support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openclaw_exporter.client.nodes import State
    from support.redis import RedisServer


class Running:
    """A demo that runs, with a temporary directory of its own."""

    def __init__(self, place: Path, *arguments: str, script: str = "", **environ: str) -> None:
        self.place = place
        start = ("-c", script) if script else ("-m", "openclaw_exporter")
        self.process = subprocess.Popen(
            (sys.executable, *start, "demo", *arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(place), "PYTHONUNBUFFERED": "1", **environ},
        )

    def children(self) -> list[int]:
        """The process ids of what the demo has started."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def wait_for_line(self, start: str, *, error: bool = False) -> str:
        """Read lines until one begins so."""
        stream = self.process.stderr if error else self.process.stdout
        assert stream is not None
        for line in stream:
            if line.startswith(start):
                return line
        raise AssertionError(f"no line begins with {start!r}")

    def end(self) -> tuple[int, str, str]:
        """Wait for the end; return exit code, output and errors."""
        out, err = self.process.communicate(timeout=300)
        return self.process.returncode, out, err


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for process in tmp_path.iterdir():
        assert not process.name.startswith("openclaw-demo-"), "the temporary directory was left behind"


@pytest.fixture
def short() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


def test_the_whole_story_is_told_and_counted(place: Path) -> None:
    binary("redis-server", "redis-server")
    pytest.importorskip("openclaw_exporter_chimera")
    code, out, err = Running(place, "--nodes", "8", "--interval", "2", "--for", "44", "--json").end()
    assert code == 0, err
    (line,) = out.splitlines()
    told: dict[str, Any] = json.loads(line)
    assert list(told) == ["nodes", "heartbeats", "publish_failures", "queues", "seconds"]
    assert list(told["nodes"]) == ["up", "late", "expired"]
    assert sum(told["nodes"].values()) == 9
    assert told["nodes"]["expired"] >= 1
    assert list(told["heartbeats"]) == ["recorded", "duplicate", "history", "turned_away", "refused"]
    assert told["heartbeats"]["recorded"] >= 50
    assert told["heartbeats"]["refused"] == 0
    # A machine that stalls has heartbeats turned away, or breaks exchanges: what is sent again then is a
    # duplicate where it had been heard.
    broken = told["publish_failures"] - told["heartbeats"]["turned_away"]
    assert told["heartbeats"]["duplicate"] <= max(0, broken)
    assert set(told["queues"]) == {"planner", "worker", "judge"}
    assert told["seconds"] >= 44
    lives: dict[str, list[str]] = {}
    for name, word in re.findall(r"(\S+\.demo) (late|expired|returned)\b", err):
        lives.setdefault(name, []).append(word)
    assert {"late", "expired", "returned"} <= {word for words in lives.values() for word in words}
    # Between two looks of a machine that stalls a node may go late and expire.
    for words in lives.values():
        before = ["", *words]
        assert all(before[at] == "expired" for at, word in enumerate(words) if word == "returned")


def test_a_person_gets_addresses_that_work_and_queues_that_move(
    place: Path, redis_server: RedisServer
) -> None:
    pytest.importorskip("openclaw_exporter_chimera")
    redis = pytest.importorskip("redis")
    curl = binary("curl", "curl")
    demo = Running(place, "--nodes", "2", "--interval", "1", "--redis", redis_server.url)
    line = demo.wait_for_line("  curl")
    depths: set[str] = set()

    def moved() -> bool:
        asked = subprocess.run(line.replace("curl", curl, 1), shell=True, capture_output=True, check=True)  # noqa: S602
        nodes = json.loads(asked.stdout)["nodes"]
        depths.update(
            str(node["heartbeat"]["queue_depth"])
            for node in nodes
            if "judge" in node["heartbeat"]["queue_depth"]
        )
        return len(depths) > 2

    try:
        wait_until(moved, what="the queues to move")
    finally:
        demo.process.send_signal(signal.SIGINT)
    code, out, err = demo.end()
    assert (code, err) == (130, "")
    assert out.splitlines()[-1].startswith("After ")
    with redis.Redis.from_url(redis_server.url) as server:
        assert server.keys("*") == []


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_it_in_order(place: Path, number: int, expected: int) -> None:
    demo = Running(place, "--nodes", "1", "--interval", "1", "--json")
    demo.wait_for_line("Logs", error=True)
    children = demo.children()
    assert len(children) >= 2
    demo.process.send_signal(number)
    code, out, err = demo.end()
    assert code == expected
    assert "nodes" in json.loads(out)
    assert "Traceback" not in err
    assert not [pid for pid in children if is_running(pid)]


def test_a_signal_in_the_first_moment_ends_it_too(place: Path) -> None:
    demo = Running(place, "--nodes", "1", "--json")
    wait_until(lambda: list(place.iterdir()), what="the demo to begin")
    demo.process.send_signal(signal.SIGTERM)
    code, _, err = demo.end()
    assert code == 143
    assert "Traceback" not in err


def test_a_signal_at_whatever_moment_of_a_wait_is_noted() -> None:
    script = (
        "import os; from openclaw_exporter.cli.demo.ending import Ending\n"
        "with Ending() as ending:\n"
        "    print('ready', flush=True)\n"
        "    for _ in range(20_000): ending.wait(0.00001)\n"
        "    os._exit(0 if ending.signal else 1)\n"
    )
    process = subprocess.Popen((sys.executable, "-c", script), stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.read(5) == b"ready"
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        process.send_signal(signal.SIGHUP)
        time.sleep(0.0001)
    process.kill()
    assert process.wait() == 0
    process.stdout.close()


def test_no_child_survives_a_killed_demo(short: Path) -> None:
    demo = Running(short, "--nodes", "1", "--interval", "1")
    demo.wait_for_line("Logs")
    children = demo.children()
    assert len(children) >= 2
    demo.process.kill()
    demo.end()
    wait_until(lambda: not [pid for pid in children if is_running(pid)], what="the children's end")


def test_it_goes_on_without_queues_and_says_why(place: Path) -> None:
    pytest.importorskip("openclaw_exporter_chimera")
    demo = Running(place, "--nodes", "0", "--interval", "5", "--for", "1", "--json", PATH="/nonexistent")
    code, out, err = demo.end()
    assert code == 0, err
    assert "no queues: there is no redis-server on this machine; name one with --redis URL" in err
    assert json.loads(out)["nodes"] == {"up": 1, "late": 0, "expired": 0}
    assert json.loads(out)["queues"] == {}


def test_it_goes_on_without_plugins_and_says_so(place: Path) -> None:
    script = (
        "import openclaw_exporter.cli.demo.show as show; show.installed_plugins = dict; "
        "from openclaw_exporter.cli import main; main()"
    )
    demo = Running(place, "--nodes", "1", "--interval", "5", "--for", "1", script=script)
    code, out, err = demo.end()
    assert (code, err) == (0, "")
    assert "no plugin is installed: pip install 'openclaw-exporter[plugins]'" in out


def test_a_redis_that_does_not_answer_is_a_mistake(place: Path) -> None:
    pytest.importorskip("openclaw_exporter_chimera")
    url = "redis://:hunter2@127.0.0.1:1/0"
    code, _, err = Running(place, "--redis", url, "--for", "1").end()
    assert code == 2
    assert "the Redis at redis://***@127.0.0.1:1/0 cannot be used" in err
    assert "hunter2" not in err
    assert "Traceback" not in err


def test_a_terminal_gets_a_live_table(place: Path) -> None:
    # A test runner may say another size than the terminal's.
    environment = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES"}}
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 14, 100, 0, 0))
    demo = subprocess.Popen(
        (sys.executable, "-m", "openclaw_exporter", "demo", "--nodes", "6", "--interval", "2", "--for", "90"),
        stdout=slave,
        stderr=slave,
        env={**environment, "TMPDIR": str(place), "TERM": "xterm"},
    )
    os.close(slave)
    wanted = {
        r"^chimera-03\.demo +up +\d+/16 +worker \d+ +\d\d:\d\d:\d\d *$",
        r"^… and [23] more *$",  # four fit, whether or not the agent is up yet
        r" chimera-01\.demo (late: not|expired: was not) heard for",
    }
    shown, text, told_to_end = b"", "", False
    with (
        os.fdopen(master, "rb", buffering=0) as screen,
        contextlib.suppress(OSError),  # EIO: nobody writes any more
    ):
        while part := screen.read(4096):
            shown += part
            text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode(errors="replace")).replace("\r", "")
            wanted = {line for line in wanted if not re.search(line, text, re.MULTILINE)}
            if not wanted and not told_to_end:
                demo.send_signal(signal.SIGINT)
                told_to_end = True
    code = demo.wait(180)
    assert not wanted, text
    assert code == 130
    # Last, but for what a machine that stalls at the end says against the demo.
    *_, last = (line for line in text.splitlines() if not line.startswith("openclaw-exporter: "))
    assert last.startswith("After ")


def test_a_directory_is_kept_where_that_is_asked_for(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    flags = ("--nodes", "1", "--for", "1", "--interval", "1", "--keep", str(kept))
    code, _, err = Running(tmp_path, *flags).end()
    assert code == 0, err
    assert {"pki", "logs", "agent.toml", "receiver.toml"} <= {path.name for path in kept.iterdir()}
    assert "publishes to https://127.0.0.1" in (kept / "logs" / "agent.log").read_text()
    code, _, err = Running(tmp_path, *flags).end()
    assert (code, "give --keep another directory" in err) == (2, True)


def test_a_directory_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    code, _, err = Running(tmp_path, "--for", "1", "--keep", str(in_the_way / "kept")).end()
    assert (code, err) == (
        2,
        f"openclaw-exporter: {in_the_way / 'kept'} cannot be written: Not a directory; see --keep\n",
    )


def test_without_its_extra_the_demo_says_so_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    # An environment without the extra takes a minute to make.
    monkeypatch.setattr(demo_command, "find_spec", lambda name: None if name.startswith("uv") else True)
    result = CliRunner().invoke(app, ["demo"])
    told = "openclaw-exporter: the demo needs what is not installed (uvicorn, uvloop): "
    assert result.output == f"{told}pip install 'openclaw-exporter[demo,plugins]'\n"
    assert result.exit_code == 2


def test_a_child_that_dies_ends_the_demo_with_its_log(place: Path) -> None:
    demo = Running(place, "--nodes", "1", "--interval", "1", "--for", "60", "--json")
    demo.wait_for_line("Logs", error=True)
    (receiver,) = (pid for pid in demo.children() if b"receiver" in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(receiver, signal.SIGKILL)
    code, _, err = demo.end()
    assert code == 1
    assert "the receiver ended with -9" in err or "does not answer" in err


def test_heartbeats_that_come_back_after_the_machine_has_stalled_are_no_fault(place: Path) -> None:
    demo = Running(place, "--nodes", "7", "--interval", "1", "--for", "600", "--json")
    curl = demo.wait_for_line("  curl", error=True)
    metrics = demo.wait_for_line("Receiver metrics", error=True).split()[-1]
    (receiver,) = (pid for pid in demo.children() if b"receiver" in Path(f"/proc/{pid}/cmdline").read_bytes())

    def counted(label: str) -> bool:
        lines = httpx.get(metrics, timeout=60).text.splitlines()
        return any(label in line and float(line.split()[-1]) for line in lines)

    def turned_away() -> bool:
        # Answered: its late pulse has passed. Stopped anew before the next, it is late twice in a row.
        if counted('error_type="shedding"'):
            return True
        os.kill(receiver, signal.SIGSTOP)
        time.sleep(2.5)
        os.kill(receiver, signal.SIGCONT)
        return False

    try:
        wait_until(turned_away, what="a heartbeat to be turned away")
        # Told to wait for several intervals, a node comes back with what it has kept meanwhile: of
        # seven neighbours none goes for good.
        wait_until(lambda: counted('openclaw_result="history"'), what="what was kept meanwhile")
        with registry_of(curl) as asked:
            wait_until(lambda: "up" in agent_states(asked), what="the real agent to be up")
    finally:
        demo.process.send_signal(signal.SIGINT)
    code, out, err = demo.end()
    assert code == 130
    # The real agent may be late at any moment, where the machine stalls again.
    faults = [line for line in err.splitlines() if line.startswith("openclaw-exporter: ")]
    assert not [fault for fault in faults if "heartbeats" in fault], err
    told: dict[str, Any] = json.loads(out)
    assert told["heartbeats"]["turned_away"] >= 1
    assert told["heartbeats"]["refused"] == 0
    assert told["publish_failures"] >= told["heartbeats"]["turned_away"]


def registry_of(curl: str) -> Registry:
    words = shlex.split(curl)
    ca, certificate, key = (Path(words[words.index(flag) + 1]) for flag in ("--cacert", "--cert", "--key"))
    return Registry(words[-1].partition("/openclaw/")[0], ca=ca, certificate=certificate, key=key)


def agent_states(registry: Registry) -> list[State]:
    return [node.state for node in registry.nodes() if "swarm:here" in node.heartbeat.tags]


def node(name: str, state: State) -> Node:
    at = dt.datetime(2026, 2, 6, 12, 34, 56, tzinfo=dt.UTC)
    heartbeat = Reported(
        hostname=name,
        version="1",
        capacity={"workers": 4, "available_slots": 2},
        queue_depth={"worker": 3},
        last_heartbeat=at,
        tags=(),
    )
    return Node(
        node_id=name,
        state=state,
        reason="so",
        first_seen=at,
        last_seen=at,
        expires_at=at,
        interval_seconds=60,
        clock_skew_seconds=0,
        heartbeat=heartbeat,
    )


def test_changes_are_told_once() -> None:
    changes = Changes()
    story = [
        changes.of((node("a", state),)) for state in ("up", "late", "up", "late", "expired", "expired", "up")
    ]
    assert story == [
        [],
        ["a late: so"],
        ["a is up again"],
        ["a late: so"],
        ["a expired: so"],
        [],
        ["a returned"],
    ]


@pytest.mark.parametrize(
    ("state", "received", "delivered", "expected"),
    [
        ("up", {}, Delivered(3), []),
        ("late", {}, Delivered(), ["the real agent is late: so"]),
        (None, {}, Delivered(), ["the registry does not know the real agent"]),
        ("up", {"refused": 2}, Delivered(2), ["the receiver refused 2 heartbeats: rate-limited 2"]),
        ("up", {"turned_away": 2}, Delivered(2), []),
        (
            "up",
            {"turned_away": 2},
            Delivered(2, waiting=1),
            ["1 heartbeats that were turned away have not come back"],
        ),
        ("up", {"turned_away": 2}, Delivered(2, dropped=1), ["1 heartbeats were given up"]),
        # What is sent again after an exchange that broke is nothing that was turned away.
        ("up", {}, Delivered(1, waiting=1), []),
    ],
)
def test_what_speaks_against_a_demo_is_told(
    state: State | None, received: dict[str, int], delivered: Delivered, expected: list[str]
) -> None:
    nodes = (node("agent", state),) if state else ()
    refusals = {"rate-limited": received.get("refused", 0)}
    result = Result(1.0, Sight(nodes, received, refusals, Delivered(3)), "agent", delivered)
    result.judge()
    assert result.faults == expected
    assert result.document()["publish_failures"] == 3 + delivered.failures


def test_what_waits_is_no_fault_of_a_demo_that_was_told_to_end() -> None:
    sight = Sight((node("agent", "up"),), {"turned_away": 2})
    result = Result(1.0, sight, "agent", Delivered(2, waiting=1))
    result.judge(ended_early=True)
    assert result.faults == []


@pytest.mark.parametrize("count", [0, 1, 2, 4, 5, 20, 200])
def test_some_neighbours_are_flaky_and_never_too_many_at_once(count: int) -> None:
    plans = silences(count)
    assert len(plans) == count
    for tenth in range(600):
        silent = sum(plan.until(tenth / 10) is not None for plan in plans)
        assert silent <= max(1, count * 0.3)
    # Each flaky one is silent long enough to expire (2 intervals), and talks before and after.
    for plan in plans[: count // 4 - 1]:
        assert plan.until(plan.begins - 0.01) is None
        assert plan.until(plan.begins) == plan.begins + 4
        assert plan.until(plan.begins + 4) is None


def test_lines_sum_everything_up(capsys: pytest.CaptureFixture[str]) -> None:
    sight = Sight((node("a", "up"), node("b", "expired")), {"recorded": 5, "refused": 0})
    assert totals(sight) == "nodes: up 1, late 0, expired 1; heartbeats: recorded 5, refused 0"
    view = PlainView(sys.stdout)
    view.show(sight, ["b expired: so"])
    assert capsys.readouterr().out.split(" ", 1)[1] == "b expired: so\n"
