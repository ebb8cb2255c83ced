"""What a room loads is what it costs: heavy parts come in only where they are used."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {
    "opentelemetry.sdk",
    "opentelemetry.exporter",
    "prometheus_client",
    "click",
    "rich",
    "uvicorn",
    "pluggy",
}


def loaded(statement: str) -> set[str]:
    """Return the modules that a fresh interpreter has after a statement."""
    code = f"{statement}\nimport json, sys; print(json.dumps(list(sys.modules)))"
    answer = subprocess.run((sys.executable, "-c", code), capture_output=True, check=True)
    return set(json.loads(answer.stdout))


@pytest.mark.parametrize("room", ["wire", "client"])
def test_an_embedded_client_loads_nothing_heavy(room: str) -> None:
    modules = loaded(
        f"import openclaw_exporter.{room}.heartbeat" if room == "wire" else "import openclaw_exporter.client"
    )
    assert not modules & HEAVY
    assert not {
        name for name in modules if name.startswith(("openclaw_exporter.agent", "openclaw_exporter.cli."))
    }


def test_an_agent_loads_no_library_that_it_has_a_lighter_way_around() -> None:
    """Each of them was measured at 0.5 to 3 MiB on every node, and at 10 to 30 ms of its start."""
    modules = loaded(
        "import openclaw_exporter.cli.agent_process, openclaw_exporter.agent.metrics, "
        "openclaw_exporter.agent.isolation, openclaw_exporter.telemetry.provider"
    )
    heavy = {
        "prometheus_client",
        "http.client",
        "http.server",
        "httpx",
        "httpcore",
        "requests",
        "jwt",
        "cryptography.x509",
        "click",
        "rich",
        "encodings.idna",
        "asyncio",
    }
    assert modules & heavy == set()
    assert "openclaw_exporter.client.registry" not in modules


def test_a_plugin_loads_none_of_the_other_rooms() -> None:
    modules = loaded("import openclaw_exporter.plugin")
    ours = {name.split(".")[1] for name in modules if name.startswith("openclaw_exporter.")}
    assert ours <= {"plugin", "errors"}


def test_the_package_itself_loads_no_room() -> None:
    assert not {name for name in loaded("import openclaw_exporter") if name.startswith("openclaw_exporter.")}


def test_the_agent_loads_neither_receiver_nor_console() -> None:
    modules = loaded("import openclaw_exporter.agent.agent")
    assert not modules & {"uvicorn", "rich", "openclaw_exporter.receiver", "grpc"}


def test_an_agent_loads_no_opentelemetry_for_its_first_heartbeat() -> None:
    modules = loaded(
        "import openclaw_exporter.cli.agent_process\n"
        "from openclaw_exporter.client import ClientSettings, Publisher, Report\n"
        "nowhere = {'endpoint': 'http://127.0.0.1:9', 'state_dir': None}\n"
        "node_id = '6f9619ff-8b86-4d01-b42d-00cf4fc964ff'\n"
        "settings = ClientSettings(insecure_dev=True, node_id=node_id, **nowhere)\n"
        "publisher = Publisher(settings, Report, measured=False)\n"
        "publisher.tick()\n"
        "assert publisher.last_result is not None"
    )
    assert {name for name in modules if name.startswith("opentelemetry")} == set()
