from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from openclaw_exporter.cli.app import app
from openclaw_exporter.plugin.testing import CHECKS

HERE = Path(__file__).parent
SOCKETS = """
import socket

class Collector:
    name = "leaky"

    def __init__(self):
        self.held = []

    def collect(self):
        self.held.append(socket.socket())
        return [Uptime(5)]
"""
RIVALS = """
class Collector:
    def __init__(self, name):
        self.name = name

    def collect(self):
        return [Uptime(5)]
"""
ASKING = """
import socket

class Collector:
    name = "asking"

    def collect(self):
        try:
            socket.create_connection(("127.0.0.1", PORT), timeout=1).close()
        except OSError:
            GONE
        return [Capacity("slots", 3)]
"""
MODULE = """
from dataclasses import dataclass
from openclaw_exporter.plugin import Capacity, Uptime, hookimpl
{body}

@dataclass(frozen=True)
class Options:
    fault: str = ""

@hookimpl
def openclaw_collectors(options: Options):
    return {collectors}
"""


class Site:
    """A directory with the distribution of one plugin, on Python's path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        info = path / "openclaw_probe-1.2.3.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: openclaw-probe\nVersion: 1.2.3\n")
        (info / "entry_points.txt").write_text("[openclaw_exporter]\nprobe = openclaw_probe\n")
        self.module = path / "openclaw_probe.py"
        self.module.write_text((HERE / "plugin_under_test.py").read_text())
        self.config = path / "agent.toml"

    def run(self, *arguments: str, fault: str = "") -> subprocess.CompletedProcess[str]:
        """Check the plugin."""
        self.config.write_text(f'[plugins.probe]\nfault = "{fault}"\n')
        return subprocess.run(
            (sys.executable, "-m", "openclaw_exporter", *arguments),
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
            env={**os.environ, "PYTHONPATH": str(self.path)},
        )

    def check(self, *, fault: str = "", runs: int = 8) -> tuple[int, dict[str, Any]]:
        """Check the plugin and return the exit status and the report."""
        options = ("--config", str(self.config), "--json", "--runs", str(runs))
        result = self.run("plugins", "check", "probe", *options, fault=fault)
        assert "Traceback" not in result.stderr
        report: dict[str, Any] = json.loads(result.stdout)
        return result.returncode, report


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def told(report: dict[str, Any], severity: str = "failure") -> list[tuple[str, str]]:
    findings = [
        *report["findings"],
        *(finding for collector in report["collectors"] for finding in collector["findings"]),
    ]
    return [(finding["check"], finding["text"]) for finding in findings if finding["severity"] == severity]


def test_a_plugin_that_conforms_ends_with_0_and_every_check_is_told(site: Site) -> None:
    status, report = site.check()
    assert (status, report["passed"], told(report)) == (0, True, [])
    assert (report["plugin"], report["distribution"]) == ("probe", "openclaw-probe 1.2.3")
    checks = {finding["check"] for finding in report["findings"]}
    for collector in report["collectors"]:
        checks |= {finding["check"] for finding in collector["findings"]}
    assert checks == CHECKS.keys()


@pytest.mark.parametrize("asked", [None, "", "1"])
def test_colours_are_left_out_where_the_environment_says_so(asked: str | None) -> None:
    pytest.importorskip("openclaw_exporter_textfile")
    runner = CliRunner(env={"NO_COLOR": asked})
    result = runner.invoke(app, ["plugins", "check", "textfile", "--runs", "8"], color=True)
    assert ("textfile" in result.stdout, "\x1b[" in result.stdout) == (True, asked != "1")


def test_it_is_told_to_people_too_and_the_config_may_stand_before_the_command(site: Site) -> None:
    result = site.run("plugins", "--config", str(site.config), "check", "probe", "--runs", "8", fault="raise")
    assert (result.returncode, "Traceback" in result.stderr) == (1, False)
    lines = result.stdout.splitlines()
    assert lines[0] == "probe (openclaw-probe 1.2.3)"
    assert "  FAIL  observations   collect() raised OSError: the disk is gone" in lines
    assert lines[-1].startswith("probe does not conform: ")


@pytest.mark.parametrize(
    ("fault", "check", "text"),
    [
        ("raise", "observations", "collect() raised OSError: the disk is gone"),
        ("hang", "deadline", "1 of 1 collections did not end within 0.3 s"),
        ("garbage", "observations", "refused (range): "),
    ],
)
def test_a_fault_is_named_and_ends_with_1(site: Site, fault: str, check: str, text: str) -> None:
    status, report = site.check(fault=fault)
    assert (status, report["passed"]) == (1, False)
    assert any(found == check and words.startswith(text) for found, words in told(report)), told(report)


def test_a_plugin_that_does_not_load_is_a_failure_with_its_cause(site: Site) -> None:
    site.module.write_text("raise RuntimeError('no driver')")
    status, report = site.check()
    assert (status, report["collectors"]) == (1, [])
    assert [check for check, text in told(report) if "RuntimeError: no driver" in text] == ["load"]


def test_a_plugin_that_leaks_is_found_in_the_real_process(site: Site) -> None:
    site.module.write_text(MODULE.format(body=SOCKETS, collectors="[Collector()]"))
    status, report = site.check(runs=16)
    found = dict(told(report))
    assert status == 1
    assert "more file descriptors after" in found["descriptors"]
    assert "openclaw_probe.py" in found["memory"] or "socket.py" in found["memory"]


def test_two_collectors_with_the_same_series_are_found(site: Site) -> None:
    site.module.write_text(MODULE.format(body=RIVALS, collectors="[Collector('a'), Collector('b')]"))
    status, report = site.check()
    assert status == 1
    assert ("observations", "the collectors a and b both yield openclaw.node.uptime") in told(report)


def test_an_option_without_a_description_is_a_warning(site: Site) -> None:
    site.module.write_text(MODULE.format(body=RIVALS, collectors="[Collector('a')]"))
    status, report = site.check()
    text = "fault has no entry in the docstring's section Attributes:"
    assert (status, ("options", text) in told(report, "warning")) == (0, True)


def test_without_collectors_nothing_was_checked_and_that_is_no_pass(site: Site) -> None:
    site.module.write_text(MODULE.format(body=RIVALS, collectors="[]"))
    status, report = site.check()
    assert (status, told(report)[0][0]) == (1, "load")


def test_an_unknown_plugin_is_a_mistake_with_the_nearest_name(site: Site) -> None:
    result = site.run("plugins", "check", "prob")
    assert result.returncode == 2
    assert "no plugin 'prob' is installed; did you mean 'probe'?" in result.stderr


@pytest.fixture
def no_network() -> None:
    """Skip where no process can be put into a network namespace of its own."""
    code = "import ctypes, sys; sys.exit(ctypes.CDLL(None).unshare(0x40000000 | FLAGS) != 0)"
    code = code.replace("FLAGS", "0" if os.geteuid() == 0 else "0x10000000")
    if subprocess.run((sys.executable, "-c", code), check=False).returncode:
        pytest.skip("this system makes no network namespaces (unshare(2))")


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    ("gone", "severity", "text"),
    [
        ("raise", "passed", "it raised OSError in a process without a network"),
        (
            "return [Capacity('slots', 0)]",
            "failure",
            "openclaw.node.capacity{openclaw.resource=slots} is 0 while its source is gone; leave it out",
        ),
        ("pass", "note", "it needs no network; that its source is gone, only its author's own test can show"),
        ("import time; time.sleep(9)", "failure", "the collection did not end within its deadline"),
    ],
)
def test_what_a_plugin_says_without_its_network(site: Site, gone: str, severity: str, text: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        body = ASKING.replace("PORT", str(server.getsockname()[1])).replace("GONE", gone)
        body = body.replace('name = "asking"', 'name = "asking"; deadline = 1.0')
        accepting = threading.Thread(target=accept_all, args=(server,), daemon=True)
        accepting.start()
        site.module.write_text(MODULE.format(body=body, collectors="[Collector()]"))
        _, report = site.check()
        server.shutdown(socket.SHUT_RDWR)
        accepting.join()
    found = [one for one in report["collectors"][0]["findings"] if one["check"] == "source"]
    assert [(one["severity"], one["text"].startswith(text)) for one in found] == [(severity, True)], found


def accept_all(server: socket.socket) -> None:
    while True:
        try:
            server.accept()[0].close()
        except OSError:
            return


def test_a_disabled_plugin_is_not_checked(site: Site) -> None:
    site.config.write_text("[plugins.probe]\nenabled = false\n")
    result = subprocess.run(
        (sys.executable, "-m", "openclaw_exporter", "plugins", "check", "probe", "--config", site.config),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        env={**os.environ, "PYTHONPATH": str(site.path)},
    )
    assert result.returncode == 1
    assert "plugins.probe.enabled is false, so nothing was checked" in result.stdout


@pytest.mark.parametrize("plugin", ["system", "gpu"])
def test_a_bundled_plugin_that_needs_no_server_conforms(plugin: str) -> None:
    result = subprocess.run(
        (sys.executable, "-m", "openclaw_exporter", "plugins", "check", plugin, "--json"),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("body", "check", "text"),
    [
        (
            "import os; os.abort()",
            "observations",
            "its process was ended by SIGABRT; nothing else was checked",
        ),
        (
            "import os; os._exit(7)",
            "observations",
            "its process exited with status 7; nothing else was checked",
        ),
        ("return [Uptime(len(bytearray(1 << 40)))]", "memory", "MemoryError; nothing else was checked"),
    ],
    ids=["crash", "exit", "memory"],
)
def test_what_takes_a_process_down_is_told_and_not_run_here(
    site: Site, body: str, check: str, text: str
) -> None:
    collector = f"""
class Collector:
    name = "falling"
    isolation = "process"
    interval = 60
    deadline = 30

    def collect(self):
        {body}
"""
    site.module.write_text(MODULE.format(body=collector, collectors="[Collector()]"))
    code, report = site.check()
    assert (code, told(report)) == (1, [(check, text)])
    assert [one["name"] for one in report["collectors"]] == ["falling"]


def test_what_only_one_may_have_is_free_when_the_kit_makes_a_collector_again(
    site: Site, tmp_path: Path
) -> None:
    collector = f"""
import fcntl

class Collector:
    name = "alone"

    def __init__(self):
        self.lock = open({str(tmp_path / "lock")!r}, "w")
        fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def collect(self):
        return [Uptime(5)]

    def close(self):
        self.lock.close()
"""
    site.module.write_text(MODULE.format(body=collector, collectors="[Collector()]"))
    code, report = site.check()
    assert (code, [one["name"] for one in report["collectors"]]) == (0, ["alone"]), report
