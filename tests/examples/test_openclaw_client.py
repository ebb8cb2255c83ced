"""The client that a Chimera drops in: as a program, and embedded."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from client.stub import Answer, StubReceiver

from openclaw_exporter.client import Report
from support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.pki import Pki

EXAMPLE = Path(__file__).parents[2] / "examples" / "chimera" / "tools" / "openclaw_client.py"


@pytest.fixture
def stub(pki: Pki) -> Iterator[StubReceiver]:
    with StubReceiver(pki) as receiver:
        yield receiver


@pytest.fixture
def environment(pki: Pki, stub: StubReceiver, tmp_path: Path) -> dict[str, str]:
    files = pki.node(str(uuid4()))
    return {
        "OPENCLAW_ENABLED": "true",
        "OPENCLAW_ENDPOINT": stub.url,
        "OPENCLAW_STATE_DIR": str(tmp_path / "state"),
        "OPENCLAW_HOSTNAME": "chimera-01.test",
        "OPENCLAW_TLS_CA": str(pki.ca),
        "OPENCLAW_TLS_CERTIFICATE": str(files.certificate),
        "OPENCLAW_TLS_KEY": str(files.key),
        "OPENCLAW_TOKEN_KEY": str(pki.token_key),
        "OPENCLAW_TOKEN_KID": pki.key_id,
        "OPENCLAW_TOKEN_ISSUER": pki.issuer,
        "OPENCLAW_TOKEN_AUDIENCE": pki.audience,
    }


@pytest.fixture
def module() -> Any:
    spec = importlib.util.spec_from_file_location("openclaw_client", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLE), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_once(environment: dict[str, str], stub: StubReceiver) -> None:
    ran = run(
        environment,
        "--once",
        "--workers",
        "24",
        "--available",
        "5",
        "--queue",
        "planner=3",
        "--tag",
        "gpu:true",
    )
    assert ran.returncode == 0, ran.stderr
    assert "accepted (200)" in ran.stdout
    body = json.loads(stub.seen[0].body)
    assert body["capacity"] == {"workers": 24, "available_slots": 5}
    assert body["queue_depth"] == {"planner": 3}
    assert body["tags"] == ["gpu:true"]
    assert body["node_id"] in ran.stdout


def test_a_refusal_is_an_exit_code(environment: dict[str, str], stub: StubReceiver) -> None:
    stub.default = Answer(403)
    ran = run(environment, "--once")
    assert ran.returncode == 1
    assert "parked (403)" in ran.stdout


@pytest.mark.parametrize("queue", ["planner", "planner=", "=3", "planner=-3", "planner=few"])
def test_a_queue_that_is_none_is_named(environment: dict[str, str], stub: StubReceiver, queue: str) -> None:
    ran = run(environment, "--once", "--queue", queue)
    assert ran.returncode == 2
    assert f"{queue!r} is no TOPIC=DEPTH, such as planner=3" in ran.stderr
    assert stub.seen == []


def test_switched_off(environment: dict[str, str], stub: StubReceiver) -> None:
    ran = run({**environment, "OPENCLAW_ENABLED": "false"}, "--once")
    assert ran.returncode == 0
    assert "nothing is published" in ran.stdout
    assert stub.seen == []


def test_a_mistake_is_named_without_a_traceback(environment: dict[str, str]) -> None:
    ran = run({**environment, "OPENCLAW_ENDPOINT": "", "OPENCLAW_TLS_CA": ""}, "--once")
    assert ran.returncode == 2
    assert "OPENCLAW_ENDPOINT: openclaw.endpoint: is needed" in ran.stderr
    assert "OPENCLAW_TLS_CA" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_sigterm_says_goodbye(environment: dict[str, str], stub: StubReceiver) -> None:
    with subprocess.Popen(
        [sys.executable, str(EXAMPLE)], env={**os.environ, **environment}, stderr=subprocess.DEVNULL
    ) as process:
        wait_until(lambda: stub.seen, what="the first heartbeat")
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    assert [seen.headers.get("openclaw-state") for seen in stub.seen] == [None, "draining"]


def test_embedded(
    environment: dict[str, str], stub: StubReceiver, module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    publisher = module.connect(lambda: Report(version="3"))
    wait_until(lambda: stub.seen, what="the first heartbeat")
    module.disconnect(publisher)
    assert json.loads(stub.seen[0].body)["version"] == "3"
    assert stub.seen[-1].headers["openclaw-state"] == "draining"


def test_a_chimera_goes_on_without_openclaw(
    module: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENCLAW_ENABLED", "true")
    monkeypatch.delenv("OPENCLAW_ENDPOINT", raising=False)
    assert module.connect(Report) is None
    module.disconnect(None)
    assert "this node goes on without it" in caplog.text
    monkeypatch.setenv("OPENCLAW_ENABLED", "false")
    assert module.connect(Report) is None
