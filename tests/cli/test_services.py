"""`receiver`, `agent` and `nodes` as real processes that meet over real mutual TLS."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, Self

import pytest

from openclaw_exporter.cli.pki_files import PkiDirectory
from support.ports import free_port
from support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from openclaw_exporter.cli.pki_files import Identity

NODE = "7f1c9a52-5e0b-4d7c-9f53-0d6a1f1f8f11"


def environment(**more: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("OPENCLAW_")} | more


def command(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (sys.executable, "-m", "openclaw_exporter", *arguments),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        env=environment(**environ),
    )


class Service:
    """A command that runs until it is told to end; its log lines are JSON."""

    def __init__(self, log: Path, *arguments: str, **environ: str) -> None:
        self._log = log
        with log.open("w") as stream:
            self.process = subprocess.Popen(
                (sys.executable, "-m", "openclaw_exporter", *arguments),
                stdout=stream,
                stderr=stream,
                env=environment(**environ),
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    def wait_for(self, text: str) -> None:
        """Wait until the log holds a text."""
        wait_until(lambda: text in self.log, what=f"{text!r} in the log:\n{self.log}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(120)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> PkiDirectory:
    path = tmp_path_factory.mktemp("services")
    return PkiDirectory.create(path, trust_domain="test.openclaw", hosts=("127.0.0.1",), port=free_port())


@pytest.fixture(scope="module")
def node(made: PkiDirectory) -> Identity:
    return made.issue_node(NODE)


@pytest.fixture(scope="module")
def reader(made: PkiDirectory) -> Identity:
    return made.issue_reader("tests")


@pytest.fixture(scope="module")
def receiver(made: PkiDirectory) -> Iterator[Service]:
    arguments = ("receiver", "--config", str(made.receiver_configuration))
    with Service(made.path / "receiver.log", *arguments, OPENCLAW_RECEIVER_ADMIN_PORT="0") as service:
        service.wait_for("receiving heartbeats at")
        yield service
        assert service.end() == 0
        assert "Traceback" not in service.log


def start_agent(log: Path, node: Identity, *flags: str, **environ: str) -> Service:
    arguments = ("agent", "--config", str(node.configuration), *flags)
    return Service(log, *arguments, OPENCLAW_TELEMETRY_PROMETHEUS_PORT="0", **environ)


def nodes(made: PkiDirectory, reader: Identity, *flags: str) -> list[dict[str, Any]]:
    result = command(
        *(
            "nodes",
            "--endpoint",
            made.endpoint,
            "--ca",
            str(made.ca),
            "--certificate",
            str(reader.certificate),
        ),
        *("--key", str(reader.key), "--json", *flags),
    )
    assert result.returncode == 0, result.stderr
    listed: list[dict[str, Any]] = json.loads(result.stdout)
    return listed


@pytest.mark.usefixtures("receiver")
def test_an_agent_publishes_and_a_reader_reads(
    made: PkiDirectory, node: Identity, reader: Identity, tmp_path: Path
) -> None:
    environ = {"OPENCLAW_NODE_TAGS": "swarm:blue,gpu:true", "OPENCLAW_NODE_WORKERS": "6"}
    with start_agent(tmp_path / "log", node, **environ) as agent:
        wait_until(lambda: nodes(made, reader), what="the node")
        (found,) = nodes(made, reader, "--state", "up", "--tag", "gpu:true", "--min-available-slots", "6")
        assert found["node_id"] == NODE
        assert {"swarm:blue", "gpu:true"} <= set(found["heartbeat"]["tags"])
        assert nodes(made, reader, "--tag", "gpu:false") == []
        assert agent.end() == 0
        (found,) = nodes(made, reader)
        assert found["state"] == "draining"
        assert "Traceback" not in agent.log


@pytest.mark.usefixtures("receiver")
def test_people_get_a_table(made: PkiDirectory, node: Identity, reader: Identity, tmp_path: Path) -> None:
    with start_agent(tmp_path / "log", node, OPENCLAW_NODE_WORKERS="6") as agent:
        agent.wait_for("publishes to")
        wait_until(lambda: nodes(made, reader), what="the node")
        assert agent.end() == 0
        files = ("--certificate", str(reader.certificate), "--key", str(reader.key))
        result = command("nodes", "--config", str(node.configuration), *files)
        assert result.returncode == 0, result.stderr
        (row,) = (line.split() for line in result.stdout.splitlines() if line.startswith(NODE))
        # A node that leaves offers none of its slots.
        assert row[2:4] == ["draining", "0/6"]
        assert result.stdout.splitlines()[-1] == "1 node"


@pytest.mark.usefixtures("receiver")
@pytest.mark.parametrize(
    ("flags", "up", "draining"),
    [
        ((), f"{NODE} ", " draining: said that it leaves"),
        (("--json",), '"state": "up"', '"state": "draining"'),
    ],
)
def test_changes_are_told_as_they_come(
    made: PkiDirectory,
    node: Identity,
    reader: Identity,
    tmp_path: Path,
    *,
    flags: tuple[str, ...],
    up: str,
    draining: str,
) -> None:
    files = ("--ca", str(made.ca), "--certificate", str(reader.certificate), "--key", str(reader.key))
    shown = ("nodes", "--watch", "--every", "0.2", "--endpoint", made.endpoint, *files, *flags)
    with Service(tmp_path / "watch", *shown) as watching:
        with start_agent(tmp_path / "log", node) as agent:
            watching.wait_for(up)
            agent.wait_for("publishes to")
            assert agent.end() == 0
        watching.wait_for(draining)
        assert watching.end(signal.SIGINT) == 0
        assert "Traceback" not in watching.log


def test_a_receiver_that_is_away_is_watched_for(made: PkiDirectory, reader: Identity, tmp_path: Path) -> None:
    files = ("--ca", str(made.ca), "--certificate", str(reader.certificate), "--key", str(reader.key))
    endpoint = f"https://127.0.0.1:{free_port()}"
    shown = ("nodes", "--watch", "--every", "0.2", "--endpoint", endpoint, *files)
    with Service(tmp_path / "watch", *shown) as watching:
        watching.wait_for("does not answer")
        assert watching.end(signal.SIGINT) == 0
        assert watching.log.count("does not answer") == 1


@pytest.mark.usefixtures("receiver")
def test_a_nodes_certificate_reads_nothing(node: Identity) -> None:
    result = command("nodes", "--config", str(node.configuration))
    assert result.returncode == 1
    assert "answered 403" in result.stderr
    assert "openclaw-exporter pki reader DIR --name NAME" in result.stderr


@pytest.mark.usefixtures("receiver")
def test_a_stranger_is_turned_away(made: PkiDirectory, tmp_path: Path) -> None:
    other = PkiDirectory.create(tmp_path, trust_domain="test.openclaw", hosts=("127.0.0.1",)).issue_reader(
        "x"
    )
    files = ("--certificate", str(other.certificate), "--key", str(other.key))
    result = command("nodes", "--endpoint", made.endpoint, "--ca", str(made.ca), *files)
    assert result.returncode == 1
    assert "signed by an authority in its receiver.tls.ca" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.usefixtures("receiver")
def test_a_receiver_that_is_not_trusted_is_told_with_the_remedy(
    made: PkiDirectory, reader: Identity, tmp_path: Path
) -> None:
    other = PkiDirectory.create(tmp_path, trust_domain="test.openclaw", hosts=("127.0.0.1",))
    files = ("--certificate", str(reader.certificate), "--key", str(reader.key))
    result = command("nodes", "--endpoint", made.endpoint, "--ca", str(other.ca), *files)
    assert result.returncode == 1
    assert f"no secure connection to {made.endpoint}: " in result.stderr
    assert "is of no authority in the CA file" in result.stderr
    elsewhere = made.endpoint.replace("127.0.0.1", "localhost")
    result = command("nodes", "--endpoint", elsewhere, "--ca", str(made.ca), *files)
    assert result.returncode == 1
    assert "the receiver's certificate is not for localhost: " in result.stderr


def test_what_speaks_no_tls_is_told_so(made: PkiDirectory, reader: Identity) -> None:
    files = ("--ca", str(made.ca), "--certificate", str(reader.certificate), "--key", str(reader.key))
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            client, _ = listening.accept()
            with client, contextlib.suppress(OSError):
                client.recv(65_536)
                client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                client.recv(65_536)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        endpoint = f"https://127.0.0.1:{listening.getsockname()[1]}"
        result = command("nodes", "--endpoint", endpoint, *files)
        thread.join(60)
    assert result.returncode == 1
    assert "what listens there does not speak TLS" in result.stderr


def test_a_receiver_that_is_not_there_is_told(made: PkiDirectory, reader: Identity) -> None:
    files = ("--ca", str(made.ca), "--certificate", str(reader.certificate), "--key", str(reader.key))
    endpoint = f"https://127.0.0.1:{free_port()}"
    result = command("nodes", "--endpoint", endpoint, *files)
    assert result.returncode == 1
    assert f"{endpoint} does not answer: " in result.stderr


def test_ctrl_c_ends_a_command_quietly_with_130(made: PkiDirectory, reader: Identity, tmp_path: Path) -> None:
    files = ("--ca", str(made.ca), "--certificate", str(reader.certificate), "--key", str(reader.key))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"https://127.0.0.1:{silent.getsockname()[1]}"
        with Service(tmp_path / "log", "nodes", "--endpoint", endpoint, *files) as service:
            connection, _ = silent.accept()
            with connection:
                assert service.end(signal.SIGINT) == 130
            assert service.log == ""


MISTAKES = [
    ((), "give --endpoint, --ca, --certificate, --key, or a configuration with --config"),
    (("--endpoint", "http://receiver"), "the endpoint 'http://receiver' is no https URL"),
    (("--endpoint", "https://localhost:99999"), "the endpoint 'https://localhost:99999' is no https URL"),
    (("--endpoint", "https://localhost:0"), "the endpoint 'https://localhost:0' is no https URL"),
    (("--endpoint", "http://127.0.0.1:99999"), "the endpoint 'http://127.0.0.1:99999' is no https URL"),
    (("--endpoint", "https://["), "the endpoint 'https://[' is no https URL"),
    (("--ca", "/nowhere/ca.pem"), "/nowhere/ca.pem cannot be read: No such file or directory"),
    (("--ca", "{key}"), "holds no certificate in PEM form"),
    (("--key", "{other}"), "ca.key is not the key of "),
]


@pytest.mark.parametrize(("flags", "expected"), MISTAKES)
def test_mistakes_of_nodes_are_told(
    made: PkiDirectory, reader: Identity, flags: tuple[str, ...], expected: str
) -> None:
    given = {
        "--endpoint": made.endpoint,
        "--ca": str(made.ca),
        "--certificate": str(reader.certificate),
        "--key": str(reader.key),
    }
    places = {"key": str(reader.key), "other": str(made.path / "ca.key")}
    if flags:
        given[flags[0]] = flags[1].format(**places)
    arguments = [part for pair in given.items() for part in pair] if flags else []
    result = command("nodes", *arguments)
    assert (result.returncode, expected in result.stderr) == (2, True), result.stderr


@pytest.mark.usefixtures("receiver")
def test_ctrl_c_ends_an_agent_in_order_with_130(node: Identity, tmp_path: Path) -> None:
    with start_agent(tmp_path / "log", node) as agent:
        agent.wait_for("publishes to")
        assert agent.end(signal.SIGINT) == 130
        assert "Traceback" not in agent.log


def test_ctrl_c_ends_a_receiver_in_order_with_130(made: PkiDirectory, tmp_path: Path) -> None:
    flags = ("--port", "0", "--host", "127.0.0.1", "--store", f"sqlite:///{tmp_path}/registry.sqlite")
    service = Service(
        tmp_path / "log",
        *("receiver", *flags, "--log-level", "info"),
        OPENCLAW_CONFIG=str(made.receiver_configuration),
        OPENCLAW_RECEIVER_ADMIN_ENABLED="false",
    )
    service.wait_for("receiving heartbeats at https://127.0.0.1:")
    assert f":{made.endpoint.rpartition(':')[2]}" not in service.log
    assert (tmp_path / "registry.sqlite").exists()
    assert service.end(signal.SIGINT) == 130
    assert "Traceback" not in service.log


@pytest.mark.usefixtures("receiver")
def test_sighup_reads_the_configuration_again(made: PkiDirectory, tmp_path: Path) -> None:
    node = made.issue_node()
    assert node.configuration is not None
    text = node.configuration.read_text()
    with start_agent(tmp_path / "log", node, OPENCLAW_FLEET="blue") as agent:
        agent.wait_for("publishes to")
        assert "OPENCLAW_FLEET sets no key of the configuration and is ignored" in agent.log
        node.configuration.write_text(f"{text}\n[opnclaw]\n")
        agent.process.send_signal(signal.SIGHUP)
        agent.wait_for("the old one stays in force")
        assert "opnclaw: unknown table; did you mean 'openclaw'?" in agent.log
        node.configuration.write_text(f'{text}\n[log]\nlevel = "debug"\n[telemetry.otlp]\ninterval = 30\n')
        agent.process.send_signal(signal.SIGHUP)
        agent.wait_for("changes of [telemetry] take effect at the next start")
        assert agent.end() == 0
        assert "SIGTERM: the agent ends" in agent.log


def test_the_log_is_json_where_nobody_looks_and_text_where_it_is_asked_for(
    made: PkiDirectory, tmp_path: Path
) -> None:
    node = made.issue_node()
    for flags in ((), ("--log-format", "text")):
        with start_agent(tmp_path / "log", node, *flags, OPENCLAW_ENABLED="false") as agent:
            agent.wait_for("publishes nothing")
            assert agent.end() == 0
        if flags:
            assert " INFO " in agent.log
        else:
            assert {json.loads(line)["level"] for line in agent.log.splitlines()} == {"info"}


@pytest.mark.parametrize("service", ["agent", "receiver"])
def test_a_wrong_configuration_does_not_start(service: str, tmp_path: Path) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text("[openclaw]\nintervall = 60\n[receiver]\nprot = 1\n")
    result = command(service, "--config", str(file))
    assert result.returncode == 2
    first = result.stderr.splitlines()[0]
    assert first.startswith("openclaw-exporter: the configuration has ")
    assert "Traceback" not in result.stderr
    own, other = ("intervall", "prot") if service == "agent" else ("prot", "intervall")
    assert (own in result.stderr, other in result.stderr) == (True, False)


def test_without_the_receivers_extra_the_remedy_is_told(tmp_path: Path) -> None:
    (tmp_path / "uvloop.py").write_text("raise ModuleNotFoundError('no uvloop', name='uvloop')")
    result = command("receiver", PYTHONPATH=str(tmp_path))
    assert result.returncode == 2
    assert "the receiver needs uvloop, which is not installed" in result.stderr
    assert "pip install 'openclaw-exporter[receiver]'" in result.stderr
