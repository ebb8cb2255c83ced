from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

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


@pytest.mark.parametrize("command", ["--help", "check-config --list-keys", "check-config --list-keys --json"])
def test_a_full_disk_behind_standard_output_is_told(command: str) -> None:
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            (sys.executable, "-m", "openclaw_exporter", *command.split()),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=180,
            check=False,
        )
    told = "openclaw-exporter: standard output cannot be written: No space left on device\n"
    assert (result.returncode, result.stderr) == (2, told)


@pytest.mark.parametrize("command", ["--help", "check-config --list-keys", "check-config --list-keys --json"])
def test_a_reader_that_goes_away_ends_a_command_quietly(command: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        result = subprocess.run(
            (sys.executable, "-m", "openclaw_exporter", *command.split()),
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            timeout=180,
            check=False,
        )
    finally:
        os.close(writing)
    assert (result.returncode, result.stderr) == (1, "")


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_what_an_encoding_does_not_have_is_escaped(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "Ü-…-😀.toml"
    file.write_text("[openclaw]\nenabled = false\n")
    exporter = (sys.executable, "-m", "openclaw_exporter", "check-config", str(file))
    environ = {**os.environ, "PYTHONUTF8": "1", "PYTHONIOENCODING": encoding}

    def output(*flags: str) -> str:
        done = subprocess.run(
            (*exporter, *flags), stdout=subprocess.PIPE, env=environ, timeout=180, check=False
        )
        assert done.returncode == 0
        return done.stdout.decode(encoding)

    escaped = str(file).encode(encoding, "backslashreplace").decode(encoding)
    assert output().startswith(f"{escaped}: no errors; ")
    assert json.loads(output("--json"))["file"] == str(file)


def test_a_table_in_ascii_is_escaped() -> None:
    exporter = (sys.executable, "-m", "openclaw_exporter", "check-config", "--list-keys")
    environ = {**os.environ, "PYTHONIOENCODING": "ascii"}
    result = subprocess.run(exporter, capture_output=True, env=environ, timeout=180, check=False)
    assert (result.returncode, result.stderr) == (0, b"")
    assert b"region:\\u2026" in result.stdout


def test_a_file_whose_name_is_no_text_is_named(tmp_path: Path) -> None:
    file = os.fsencode(tmp_path) + b"/\xff.toml"
    exporter = (sys.executable, "-m", "openclaw_exporter", "check-config", file)
    result = subprocess.run(exporter, capture_output=True, timeout=180, check=False)
    assert result.returncode == 2
    assert result.stdout.endswith(b"/\\udcff.toml: 1 error\n")
    assert result.stderr.endswith(b"/\\udcff.toml: no such file; name the configuration that is meant\n")


def test_a_mistake_without_standard_streams_ends_with_2_too() -> None:
    exporter = f"{shlex.quote(sys.executable)} -m openclaw_exporter"
    for command in ("agent --config /nowhere/agent.toml", "check-config /nowhere/agent.toml"):
        shell = f"{exporter} {command} <&- >&- 2>&-"
        assert subprocess.run(("/bin/sh", "-c", shell), timeout=180, check=False).returncode == 2


def test_what_the_shell_has_closed_is_open_before_any_file_takes_its_number() -> None:
    code = (
        "import os; from openclaw_exporter.cli import standard; standard.hold_open(); "
        "file = open(os.devnull); os.write(1, str(file.fileno()).encode())"
    )
    shell = f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} <&- 2>&-"
    result = subprocess.run(
        ("/bin/sh", "-c", shell), stdout=subprocess.PIPE, text=True, timeout=180, check=False
    )
    assert int(result.stdout) > 2


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
