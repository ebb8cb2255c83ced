"""The agent as a process: signals, systemd, and an end that comes in time."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from support.ports import free_port
from support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.factory import Factory
    from client.stub import StubReceiver

    from support.pki import Pki

END_SECONDS = 180.0
"""Whoever hangs does so for an hour."""
COMMAND = (sys.executable, "-c", "from openclaw_exporter.cli import main; main()", "agent", "--config")
CONFIG = """
[node]
version = "{version}"

[openclaw]
endpoint = "{endpoint}"
interval = 1
min_interval = 1
hostname = "node-1"
state_dir = "{state}"
tls = {{ ca = "{ca}", certificate = "{certificate}", key = "{key}" }}
token = {{ key = "{token_key}", kid = "{kid}", issuer = "{issuer}", audience = "{audience}" }}

[collection]
interval = 1
deadline = 1
first_results = 10.0

[telemetry.prometheus]
port = {port}

[plugins]
system = {{ enabled = false }}
chimera = {{ enabled = false }}
gpu = {{ enabled = false }}
"""


class Process:
    """An agent in a process of its own."""

    def __init__(self, factory: Factory, pki: Pki, receiver: StubReceiver, folder: Path) -> None:
        self.receiver = receiver
        self.path = folder / "agent.toml"
        self._folder = folder
        node_id = str(uuid4())
        files = pki.node(node_id)
        self._values = {
            "version": "1",
            "endpoint": receiver.url,
            "state": folder / "state",
            "ca": pki.ca,
            "certificate": files.certificate,
            "key": files.key,
            "token_key": pki.token_key,
            "kid": pki.key_id,
            "issuer": pki.issuer,
            "audience": pki.audience,
            "port": free_port(),
        }
        self._environ = {**os.environ, "PYTHONPATH": str(factory.folder)}
        self._process: subprocess.Popen[bytes] | None = None

    def configure(self, **values: object) -> None:
        """Write the configuration anew, at once."""
        self._values.update(values)
        fresh = self.path.with_suffix(".new")
        fresh.write_text(CONFIG.format_map(self._values))
        fresh.replace(self.path)

    def start(self, **environ: str) -> None:
        self.configure()
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                (*COMMAND, str(self.path)), env={**self._environ, **environ}, stderr=log
            )

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self._folder / "log").read_text().splitlines()]

    def logged(self, text: str) -> bool:
        return any(text in line["message"] for line in self.log())

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self, timeout: float) -> int:
        assert self._process is not None
        return self._process.wait(timeout)

    def beats(self) -> list[dict[str, Any]]:
        return [json.loads(body) for body in self.receiver.bodies()]

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@pytest.fixture
def process(factory: Factory, pki: Pki, receiver: StubReceiver, tmp_path: Path) -> Iterator[Process]:
    process = Process(factory, pki, receiver, tmp_path)
    yield process
    process.close()


class Systemd:
    """A socket that systemd would listen on."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self.states: list[str] = []

    def next(self, timeout: float = 60) -> str:
        self._listener.settimeout(timeout)
        self.states.append(self._listener.recv(4096).decode())
        return self.states[-1]

    def wait_for(self, state: str) -> None:
        """Read states until one begins like this."""
        deadline = time.monotonic() + 120
        while not self.next().startswith(state):
            assert time.monotonic() < deadline, self.states


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        yield Systemd(listener)


HUNG = {
    "a thread": "time.sleep(3600)",
    "a thread that Python would wait for": """
        threading.Thread(target=time.sleep, args=(3600,), daemon=False).start()
        yield Capacity("workers", 3)
    """,
    "an exit handler": """
        import atexit
        atexit.register(time.sleep, 3600)
        yield Capacity("workers", 3)
    """,
    "a process": "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(3600)",
}


@pytest.mark.parametrize("hung", HUNG, ids=[name.replace(" ", "-") for name in HUNG])
def test_sigterm_with_a_hung_plugin_ends_in_time_and_says_that_the_node_leaves(
    factory: Factory, process: Process, hung: str
) -> None:
    factory.one("hung", HUNG[hung], "isolation = 'process'" if hung == "a process" else "")
    factory.one("good", "yield QueueDepth('tasks', 7)", "interval = deadline = 60")
    process.start()
    wait_until(lambda: any(beat["queue_depth"] for beat in process.beats()))
    process.signal(signal.SIGTERM)
    assert process.wait(END_SECONDS) == 0
    last = process.receiver.seen[-1]
    assert last.headers["openclaw-state"] == "draining"
    assert json.loads(last.body)["queue_depth"] == {"tasks": 7}


def test_sigterm_without_a_receiver_ends_in_time_too(process: Process) -> None:
    process.configure()
    process._values["endpoint"] = f"https://localhost:{free_port()}"
    process.start()
    wait_until(lambda: process.logged("node ") or process.logged("publishes to"))
    process.signal(signal.SIGTERM)
    assert process.wait(END_SECONDS) == 0


def test_sigint_ends_it_as_well(process: Process) -> None:
    process.start()
    wait_until(lambda: process.receiver.seen)
    process.signal(signal.SIGINT)
    assert process.wait(END_SECONDS) == 128 + signal.SIGINT
    assert process.receiver.seen[-1].headers["openclaw-state"] == "draining"


def test_sighups_miss_no_beat_and_a_wrong_configuration_changes_nothing(process: Process) -> None:
    process.start()
    wait_until(lambda: process.beats() and process.beats()[-1]["version"] == "1")
    for number in range(1_000):
        process.configure(version=str(number))
        process.signal(signal.SIGHUP)
        time.sleep(0.002)
    wait_until(lambda: process.beats()[-1]["version"] == "999")
    process.configure(version="\t")
    process.signal(signal.SIGHUP)
    wait_until(lambda: process.logged("the old one stays in force"))
    count = len(process.beats())
    wait_until(lambda: len(process.beats()) >= count + 2)
    assert process.beats()[-1]["version"] == "999"
    numbers = [seen.headers["openclaw-sequence"].split(".") for seen in process.receiver.seen]
    assert len({epoch for epoch, _ in numbers}) == 1
    assert [int(number) for _, number in numbers] == list(range(len(numbers)))
    arrived = [seen.at for seen in process.receiver.seen]
    gaps = [later - earlier for earlier, later in itertools.pairwise(arrived)]
    assert statistics.median(gaps[1:]) < 1.5  # a beat is due every second
    (wrong,) = [line for line in process.log() if "the old one stays in force" in line["message"]]
    assert wrong["level"] == "error"
    assert "node.version" in wrong["message"]


def test_a_plugin_that_hangs_while_it_loads_again_does_not_keep_sigterm_waiting(
    factory: Factory, process: Process
) -> None:
    factory.one("good", "yield Capacity('workers', 3)")
    process.start()
    wait_until(lambda: process.beats() and process.beats()[-1]["capacity"]["workers"])
    factory.write("sleepy", "time.sleep(3600)")
    process.path.write_text(process.path.read_text() + "sleepy = { interval = 1 }\n")
    process.signal(signal.SIGHUP)
    count = len(process.beats())
    wait_until(lambda: len(process.beats()) >= count + 2)
    process.signal(signal.SIGTERM)
    assert process.wait(END_SECONDS) == 0
    assert process.receiver.seen[-1].headers["openclaw-state"] == "draining"


def test_systemd_is_told_of_start_reload_life_and_end(
    process: Process, systemd: Systemd, tmp_path: Path
) -> None:
    process.start(NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="20000000")
    systemd.wait_for("READY=1")
    systemd.wait_for("WATCHDOG=1")
    process.signal(signal.SIGHUP)
    systemd.wait_for("RELOADING=1\nMONOTONIC_USEC=")
    systemd.wait_for("READY=1")
    process.signal(signal.SIGTERM)
    systemd.wait_for("STOPPING=1")
    assert process.wait(END_SECONDS) == 0


def test_a_stuck_publishing_loop_gives_no_sign_of_life(
    factory: Factory, process: Process, systemd: Systemd, tmp_path: Path
) -> None:
    # The publishing loop looks at the view; one that never returns stands for any way to get stuck.
    factory.one(
        "sticky",
        """
        from openclaw_exporter.agent.agent import Agent
        Agent.view = lambda self: time.sleep(3600)
        yield Capacity("workers", 1)
        """,
    )
    process.start(NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="10000000")
    assert systemd.next() == "READY=1"
    with pytest.raises(TimeoutError):
        systemd.next(timeout=6)  # a loop that turns says so at once, and every 5 s


MISSING = "/nowhere.pem cannot be read: No such file or directory; put it there, or name another"


def test_a_mistake_is_a_line_that_names_its_place(process: Process) -> None:
    process._values["ca"] = "/nowhere.pem"
    process.start()
    assert process.wait(END_SECONDS) == 2
    text = (process._folder / "log").read_text()
    assert text == f"openclaw-exporter: {process.path}: openclaw.tls.ca: {MISSING}\n"


def test_a_mistake_of_a_variable_names_the_variable(process: Process) -> None:
    process.start(OPENCLAW_TOKEN_KEY="/nowhere.pem")  # noqa: S106 - a path
    assert process.wait(END_SECONDS) == 2
    text = (process._folder / "log").read_text()
    assert text == f"openclaw-exporter: OPENCLAW_TOKEN_KEY: openclaw.token.key: {MISSING}\n"


def test_a_file_that_a_new_configuration_names_wrongly_is_told_with_its_place(process: Process) -> None:
    process.start()
    wait_until(process.beats)
    process.configure(key="/nowhere.pem")
    process.signal(signal.SIGHUP)
    told = f"[openclaw] stays as it was: {process.path}: openclaw.tls.key: {MISSING}"
    wait_until(lambda: process.logged(told))
    count = len(process.beats())
    wait_until(lambda: len(process.beats()) > count)
