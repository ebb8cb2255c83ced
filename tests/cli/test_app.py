from __future__ import annotations

import subprocess
import sys

import pytest
from click.testing import CliRunner

from openclaw_exporter import __version__
from openclaw_exporter.cli.app import app

COMMANDS = ("agent", "receiver", "demo", "collect", "plugins", "check-config", "nodes", "loadtest", "pki")


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (sys.executable, *arguments), capture_output=True, text=True, timeout=180, check=False
    )


def test_the_version_is_told() -> None:
    result = python("-m", "openclaw_exporter", "--version")
    assert (result.returncode, result.stdout) == (0, f"openclaw-exporter {__version__}\n")


def test_help_lists_every_command() -> None:
    text = CliRunner().invoke(app, ["--help"]).output
    assert all(f"\n  {command} " in text for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(command: str) -> None:
    result = CliRunner().invoke(app, [command, "-h"])
    assert result.exit_code == 0
    assert f"openclaw-exporter {command}" in result.output or f"app {command}" in result.output


def test_an_unknown_command_suggests_the_nearest() -> None:
    result = python("-m", "openclaw_exporter", "recever")
    assert result.returncode == 2
    assert "No such command 'recever'. Did you mean 'receiver'?" in result.stderr


def test_an_unknown_command_that_is_like_none_suggests_nothing() -> None:
    result = CliRunner().invoke(app, ["xyzzy"])
    assert result.exit_code == 2
    assert "No such command 'xyzzy'." in result.output
    assert "Did you mean" not in result.output


def test_an_unknown_option_is_told() -> None:
    result = CliRunner().invoke(app, ["--versoin"])
    assert result.exit_code == 2
    assert "No such option '--versoin'" in result.output


def test_a_users_mistake_is_one_text_and_never_a_traceback() -> None:
    result = python("-m", "openclaw_exporter", "check-config", "/nowhere/agent.toml")
    assert result.returncode == 2
    assert "/nowhere/agent.toml: no such file" in result.stderr
    assert "Traceback" not in result.stderr


LIGHT = "import sys, {module}; print(*sorted(name for name in {heavy} if name in sys.modules))"
HEAVY = (
    "rich",
    "httpx",
    "uvicorn",
    "openclaw_exporter.receiver",
    "openclaw_exporter.cli.demo",
    "prometheus_client",
)


def test_the_agents_command_imports_nothing_that_it_does_not_need() -> None:
    code = LIGHT.format(module="openclaw_exporter.cli.commands.agent", heavy=HEAVY)
    result = python("-c", code)
    assert (result.stdout.strip(), result.stderr) == ("", "")


def test_help_imports_no_command() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from openclaw_exporter.cli.app import app; "
        "CliRunner().invoke(app, ['--help']); "
        "print(*(name for name in sys.modules if name.startswith('openclaw_exporter.cli.commands')))"
    )
    assert python("-c", code).stdout.strip() == ""
