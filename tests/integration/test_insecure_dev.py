"""Trying things out without certificates: agent, receiver and `nodes` on loopback, without a credential."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from support.command import Command
from support.ports import free_port
from support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NODE = "7f1c9a52-5e0b-4d7c-9f53-0d6a1f1f8f11"
RECEIVER_WARNING = "receiver.insecure_dev is on"
AGENT_WARNING = "openclaw.insecure_dev is on"
AGENT = {
    "OPENCLAW_NODE_WORKERS": "6",
    "OPENCLAW_TELEMETRY_PROMETHEUS_ENABLED": "false",
    "OPENCLAW_PLUGINS_CHIMERA_ENABLED": "false",
    "OPENCLAW_NODE_ID": NODE,
}


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, with no setting but the given ones."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OPENCLAW_")}
    return subprocess.run(
        (sys.executable, "-m", "openclaw_exporter", *arguments),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        env=clean | environ,
    )


class Scene:
    """A receiver on a port of its own, and agents that it can be told to meet."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.endpoint = f"http://127.0.0.1:{free_port()}"
        self._started: list[Command] = []

    def receiver(self, *flags: str, **environ: str) -> Command:
        arguments = (
            *("receiver", "--port", self.endpoint.rpartition(":")[2]),
            *("--store", f"sqlite:///{self.directory / 'registry.sqlite'}", *flags),
        )
        command = self._start(arguments, {"OPENCLAW_RECEIVER_ADMIN_ENABLED": "false"} | environ)
        wait_until(lambda: "receiving heartbeats at" in command.text(), what="the receiver")
        return command

    def agent(self, *flags: str, **environ: str) -> Command:
        settings = {
            "OPENCLAW_ENDPOINT": self.endpoint,
            "OPENCLAW_STATE_DIR": str(self.directory / "state"),
        }
        return self._start(("agent", *flags), AGENT | settings | environ)

    def nodes(self, *flags: str) -> list[dict[str, Any]]:
        result = run("nodes", "--endpoint", self.endpoint, "--json", *flags)
        assert result.returncode == 0, result.stderr
        found: list[dict[str, Any]] = json.loads(result.stdout)
        return found

    def _start(self, arguments: tuple[str, ...], environ: dict[str, str]) -> Command:
        log = self.directory / f"{arguments[0]}-{len(self._started)}.log"
        command = Command(arguments, log, environ)
        command.start()
        self._started.append(command)
        return command

    def close(self) -> None:
        for command in self._started:
            if command.process is not None and command.process.poll() is None:
                command.kill()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.close()


BY_FLAG: tuple[tuple[str, ...], dict[str, str], dict[str, str]] = (("--insecure-dev",), {}, {})
BY_VARIABLE: tuple[tuple[str, ...], dict[str, str], dict[str, str]] = (
    (),
    {"OPENCLAW_RECEIVER_INSECURE_DEV": "true"},
    {"OPENCLAW_INSECURE_DEV": "true"},
)


@pytest.mark.parametrize(
    ("flags", "receiving", "publishing"), [BY_FLAG, BY_VARIABLE], ids=["flag", "variable"]
)
def test_a_node_is_seen_without_any_credential(
    scene: Scene, flags: tuple[str, ...], receiving: dict[str, str], publishing: dict[str, str]
) -> None:
    receiver = scene.receiver(*flags, **receiving)
    agent = scene.agent(*flags, **publishing)
    (found,) = wait_until(scene.nodes, what=f"the node:\n{agent.text()}")
    assert (found["node_id"], found["state"]) == (NODE, "up")
    assert found["heartbeat"]["capacity"]["workers"] == 6
    assert agent.stop() == 0
    (found,) = scene.nodes("--state", "draining")
    assert found["node_id"] == NODE
    assert receiver.stop() == 0
    assert (receiver.text().count(RECEIVER_WARNING), agent.text().count(AGENT_WARNING)) == (1, 1)
    assert f"heartbeats go to {scene.endpoint} in plain HTTP" in agent.text()
    assert "Traceback" not in receiver.text() + agent.text()


def test_every_start_says_so_and_the_registry_stays(scene: Scene) -> None:
    for _ in range(2):
        receiver = scene.receiver("--insecure-dev")
        agent = scene.agent("--insecure-dev")
        wait_until(lambda: scene.nodes("--state", "up"), what="the node")
        for command, warning in ((agent, AGENT_WARNING), (receiver, RECEIVER_WARNING)):
            assert command.stop() == 0
            (line,) = (line for line in command.text().splitlines() if warning in line)
            assert json.loads(line)["level"] == "warning"


def test_a_configuration_file_says_it_for_all_three(scene: Scene, tmp_path: Path) -> None:
    file = tmp_path / "dev.toml"
    file.write_text(
        f'[openclaw]\ninsecure_dev = true\nendpoint = "{scene.endpoint}"\n[receiver]\ninsecure_dev = true\n'
    )
    assert run("check-config", str(file)).returncode == 0
    scene.receiver("--config", str(file))
    scene.agent("--config", str(file))
    wait_until(scene.nodes, what="the node")
    result = run("nodes", "--config", str(file))
    assert (result.returncode, NODE in result.stdout) == (0, True), result.stderr


def test_a_browser_is_turned_away(scene: Scene) -> None:
    scene.receiver("--insecure-dev")
    url = f"{scene.endpoint}/openclaw/nodes"
    assert httpx.get(url, trust_env=False, timeout=60).status_code == 200
    assert httpx.get(url, headers={"Host": "rebound.example"}, trust_env=False, timeout=60).status_code == 421
    page = {"Origin": "https://page.example", "Content-Type": "application/json"}
    posted = httpx.post(
        f"{scene.endpoint}/openclaw/availability", headers=page, content=b"{}", trust_env=False, timeout=60
    )
    assert posted.status_code == 403
    assert scene.nodes() == []


NEVER_ELSEWHERE = "http://127.0.0.1:port while openclaw.insecure_dev is true"
LOCAL = "http://127.0.0.1:1"
REFUSED: dict[str, tuple[tuple[str, ...], dict[str, str], tuple[str, ...]]] = {
    "a receiver for everybody": (
        ("receiver", "--insecure-dev", "--host", "0.0.0.0"),
        {},
        ("receiver.host", "receiver.insecure_dev"),
    ),
    "a receiver without it": (
        ("receiver",),
        {"OPENCLAW_RECEIVER_INSECURE_DEV": "false"},
        ("receiver.tls.ca", "receiver.tokens.algorithms", "receiver.tokens.issuers"),
    ),
    "an agent that would publish elsewhere": (
        ("agent", "--insecure-dev"),
        {"OPENCLAW_ENDPOINT": "http://receiver.example.org:8443"},
        ("openclaw.endpoint", NEVER_ELSEWHERE),
    ),
    "an agent with https": (
        ("agent", "--insecure-dev"),
        {"OPENCLAW_ENDPOINT": "https://127.0.0.1:8443"},
        ("openclaw.endpoint", NEVER_ELSEWHERE),
    ),
    "an agent behind a proxy": (
        ("agent", "--insecure-dev"),
        {"OPENCLAW_ENDPOINT": LOCAL, "OPENCLAW_PROXY": "http://proxy.example.org:3128"},
        ("openclaw.proxy", "openclaw.insecure_dev"),
    ),
    "an agent without it": (
        ("agent",),
        {"OPENCLAW_ENDPOINT": LOCAL},
        ("openclaw.endpoint", "is no https URL", "openclaw.tls.ca", "openclaw.token.key"),
    ),
    "nodes of another machine": (
        ("nodes", "--endpoint", "http://receiver.example.org:8443"),
        {},
        ("is no https URL",),
    ),
    "nodes over https": (
        ("nodes", "--endpoint", "https://127.0.0.1:8443"),
        {},
        ("give --ca, --certificate, --key",),
    ),
}


@pytest.mark.parametrize(("arguments", "environ", "expected"), REFUSED.values(), ids=REFUSED)
def test_what_is_unsafe_does_not_start(
    arguments: tuple[str, ...], environ: dict[str, str], expected: tuple[str, ...]
) -> None:
    result = run(*arguments, **environ)
    assert result.returncode == 2, result.stderr
    assert [text for text in expected if text not in result.stderr] == []
    assert "Traceback" not in result.stderr


def test_localhost_is_this_machine(scene: Scene) -> None:
    scene.endpoint = scene.endpoint.replace("127.0.0.1", "localhost")
    scene.receiver("--insecure-dev", "--host", "localhost")
    agent = scene.agent("--insecure-dev")
    wait_until(scene.nodes, what=f"the node:\n{agent.text()}")
