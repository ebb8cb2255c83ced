from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from openclaw_exporter.agent.settings import ProcessSettings
from openclaw_exporter.cli.collecting import Apart
from openclaw_exporter.plugin.host import LoadedCollector

HERE = Path(__file__).parent

APART: dict[str, str | int] = {"isolation": "process", "interval": 60, "deadline": 30}
"""In a process of its own, with time enough on a crowded machine."""


class Site:
    """A directory with the distribution of one plugin, on Python's path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        info = path / "openclaw_probe-1.2.3.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: openclaw-probe\nVersion: 1.2.3\n")
        (info / "entry_points.txt").write_text("[openclaw_exporter]\nprobe = openclaw_probe\n")
        (path / "openclaw_probe.py").write_text((HERE / "plugin_under_test.py").read_text())

    def run(
        self, *arguments: str, tables: str = "", **options: str | int
    ) -> subprocess.CompletedProcess[str]:
        """Run a command, with these options of the plugin and these further tables."""
        config = self.path / "agent.toml"
        lines = [f"{key} = {json.dumps(value)}" for key, value in options.items()]
        config.write_text("\n".join([tables, "[plugins.probe]", *lines]))
        environ = {**os.environ, "PYTHONPATH": str(self.path), "OPENCLAW_CONFIG": str(config)}
        return subprocess.run(
            (sys.executable, "-m", "openclaw_exporter", *arguments),
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
            env=environ,
        )


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def probe_of(result: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    collectors: list[dict[str, Any]] = json.loads(result.stdout)["collectors"]
    assert [collector["plugin"] for collector in collectors] == ["probe"]
    return collectors[0]


def test_what_a_plugin_yields_is_shown_to_people(site: Site) -> None:
    result = site.run("collect", "probe")
    assert (result.returncode, result.stderr) == (0, "")
    assert "probe/probe: 5 observations in" in result.stdout
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["capacity", "workers", "4"] in rows
    assert ["queue", "depth", "worker", "7,", "oldest", "1.5", "s", "{message}"] in rows
    assert ["gauge", "probe.temperature{place=rack}", "21.5", "Cel"] in rows
    assert ["tag", "gpu", "true"] in rows


def test_what_a_plugin_yields_is_json_for_scripts(site: Site) -> None:
    result = site.run("collect", "probe", "--json")
    probe = probe_of(result)
    assert (result.returncode, probe["error"], probe["refused"]) == (0, None, [])
    assert {"type": "QueueDepth", "topic": "worker", "depth": 7, "oldest_age": 1.5} in probe["observations"]


def test_a_collector_that_raises_is_named_and_ends_with_1(site: Site) -> None:
    result = site.run("collect", "probe", "--json", fault="raise")
    assert result.returncode == 1
    assert probe_of(result)["error"] == "OSError: the disk is gone"
    text = site.run("collect", "probe", fault="raise")
    assert (text.returncode, "failed: OSError: the disk is gone" in text.stdout) == (1, True)
    assert "Traceback" not in text.stderr


def test_a_collector_that_hangs_is_given_up_at_its_deadline(site: Site) -> None:
    result = site.run("collect", "probe", "--json", fault="hang")
    assert result.returncode == 1
    assert probe_of(result)["error"] == "not done within its deadline of 0.3 s"


def test_a_collector_that_crashes_in_a_process_of_its_own_is_named(site: Site) -> None:
    result = site.run("collect", "--json", fault="crash", **APART)
    assert (result.returncode, result.stderr) == (1, "")
    collected = {item["plugin"]: item for item in json.loads(result.stdout)["collectors"]}
    assert collected["probe"]["error"] == "its process was ended by SIGSEGV"
    text = site.run("collect", "probe", fault="crash", **APART)
    assert "failed: its process was ended by SIGSEGV" in text.stdout


def test_a_plugin_whose_table_asks_for_a_process_is_not_imported_here(site: Site) -> None:
    result = site.run("collect", "probe", "--json", **APART)
    probe = probe_of(result)
    assert (result.returncode, probe["error"], len(probe["observations"])) == (0, None, 5)
    (site.path / "openclaw_probe.py").write_text("import os\nos._exit(9)")
    result = site.run("collect", "probe", **APART)
    assert (result.returncode, result.stdout) == (1, "")
    assert "plugin 'probe': it cannot be loaded in a process of its own" in result.stderr
    assert "status 9" in result.stderr


SLOW = """
import time
from openclaw_exporter.plugin import Uptime, hookimpl

class Slow:
    name = "slow"

    def collect(self):
        time.sleep(2)
        yield Uptime(5)

@hookimpl
def openclaw_collectors(options):
    return [Slow()]
"""


@pytest.mark.parametrize(
    ("isolation", "late"),
    [("thread", "not done within its deadline of 0.4 s"), ("process", "its process did not answer in time")],
)
def test_the_deadline_is_that_of_the_configuration_as_in_the_agent(
    site: Site, isolation: str, late: str
) -> None:
    (site.path / "openclaw_probe.py").write_text(SLOW)
    patient = "[collection.process]\nstart_deadline = 120"
    tables = f"[collection]\ndeadline = 0.4\n{patient}"
    result = site.run("collect", "probe", "--json", tables=tables, isolation=isolation)
    assert (result.returncode, probe_of(result)["error"]) == (1, late)
    checked = site.run("plugins", "check", "probe", "--json", tables=tables, isolation=isolation)
    findings = json.loads(checked.stdout)["collectors"][0]["findings"]
    failed = [finding["check"] for finding in findings if finding["severity"] == "failure"]
    assert (checked.returncode, failed) == (1, ["deadline"])
    tables = f"[collection]\ninterval = 60\ndeadline = 60\n{patient}"
    result = site.run("collect", "probe", "--json", tables=tables, isolation=isolation)
    assert (result.returncode, probe_of(result)["error"]) == (0, None)


GREEDY = """
import mmap
from openclaw_exporter.plugin import Uptime, hookimpl

class Greedy:
    name = "greedy"
    interval = 60
    deadline = 60

    def collect(self):
        with mmap.mmap(-1, 700 * 1024**2, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as never_touched:
            yield Uptime(len(never_touched) / 1024**2)

@hookimpl
def openclaw_collectors(options):
    return [Greedy()]
"""


def test_the_limits_of_a_process_are_those_of_the_configuration(site: Site) -> None:
    (site.path / "openclaw_probe.py").write_text(GREEDY)
    refused = site.run("collect", "probe", "--json", isolation="process")
    assert (refused.returncode, "Cannot allocate memory" in probe_of(refused)["error"]) == (1, True)
    tables = f"[collection.process]\nmemory_limit = {2 * 1024**3}"
    given = site.run("collect", "probe", "--json", tables=tables, isolation="process")
    assert (given.returncode, probe_of(given)["observations"][0]["seconds"]) == (0, 700)


def test_a_mistake_in_the_collections_table_is_told(site: Site) -> None:
    result = site.run("collect", "probe", tables="[collection]\nintervall = 3")
    assert (result.returncode, result.stdout) == (2, "")
    assert "collection.intervall: unknown key; did you mean 'interval'?" in result.stderr
    result = site.run("plugins", "check", "probe", tables="[collection]\ndeadline = 'x'")
    assert (result.returncode, "collection.deadline: got 'x'" in result.stderr) == (2, True)


FAILING_ABSENT = """
from openclaw_exporter.plugin import Uptime, hookimpl

class Good:
    name = "good"

    def collect(self):
        return [Uptime(5)]

class Bad(Good):
    name = "bad"
    isolation = "process"
    interval = 60
    deadline = 30

    def absent(self):
        raise OSError("the bus is gone")

@hookimpl
def openclaw_collectors(options):
    return [Bad(), Good()]
"""


def test_a_collector_that_cannot_say_whether_it_is_absent_is_named(site: Site) -> None:
    (site.path / "openclaw_probe.py").write_text(FAILING_ABSENT)
    result = site.run("collect", "probe", "--json")
    assert (result.returncode, result.stderr) == (1, "")
    told = {one["collector"]: one["error"] for one in json.loads(result.stdout)["collectors"]}
    assert told == {"bad": "OSError: the bus is gone", "good": None}


def test_a_collector_that_hangs_before_its_process_has_begun_is_given_up() -> None:
    go_on = threading.Event()

    class Hanging:
        name = "hanging"

        def collect(self) -> tuple[()]:
            return ()

        def absent(self) -> None:
            go_on.wait()

    loaded = LoadedCollector("probe", "hanging", Hanging(), 60, 30, "process", 100, {})
    apart = Apart(loaded, ProcessSettings())
    apart.deadline = 0.3
    try:
        assert apart.run().overdue
    finally:
        go_on.set()
        apart.close()


def test_what_the_host_refuses_is_named_and_ends_with_1(site: Site) -> None:
    result = site.run("collect", "probe", "--json", fault="garbage")
    probe = probe_of(result)
    assert result.returncode == 1
    assert [refusal["reason"] for refusal in probe["refused"]] == ["range"]
    assert len(probe["observations"]) == 4
    assert "refused (range):" in site.run("collect", "probe", fault="garbage").stdout


def test_a_plugin_that_does_not_load_ends_with_1(site: Site) -> None:
    (site.path / "openclaw_probe.py").write_text("raise RuntimeError('no driver')")
    result = site.run("collect", "probe")
    assert result.returncode == 1
    assert "no driver" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_unknown_plugin_is_a_mistake_with_the_nearest_name(site: Site) -> None:
    result = site.run("collect", "prob")
    assert result.returncode == 2
    assert "no plugin 'prob' is installed; did you mean 'probe'?" in result.stderr


def test_a_disabled_plugin_is_a_mistake(site: Site) -> None:
    environ = {**os.environ, "PYTHONPATH": str(site.path), "OPENCLAW_PLUGINS_PROBE_ENABLED": "false"}
    result = subprocess.run(
        (sys.executable, "-m", "openclaw_exporter", "collect", "probe"),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        env=environ,
    )
    assert (result.returncode, "the plugin 'probe' is disabled" in result.stderr) == (2, True)


def test_plugins_are_listed_for_people(site: Site) -> None:
    result = site.run("plugins")
    assert result.returncode == 0
    row = next(line.split() for line in result.stdout.splitlines() if line.startswith("probe "))
    assert row == ["probe", "openclaw-probe", "1.2.3", "probe", "thread", "loaded", "fault"]


def test_plugins_are_listed_for_scripts_with_their_options(site: Site) -> None:
    listed = json.loads(site.run("plugins", "--json").stdout)
    probe = next(plugin for plugin in listed if plugin["name"] == "probe")
    assert probe["status"] == "loaded"
    assert probe["options"] == [
        {
            "key": "plugins.probe.fault",
            "allowed": "a string",
            "default": '""',
            "required": False,
            "variable": "OPENCLAW_PLUGINS_PROBE_FAULT",
            "description": "What is to go wrong.",
        }
    ]


def test_a_broken_plugin_is_listed_with_its_fault(site: Site) -> None:
    (site.path / "openclaw_probe.py").write_text("raise RuntimeError('no driver')")
    result = site.run("plugins", "--json")
    probe = next(plugin for plugin in json.loads(result.stdout) if plugin["name"] == "probe")
    assert (result.returncode, probe["status"], "no driver" in probe["error"]) == (0, "failed", True)
    assert "no driver" in site.run("plugins").stderr


def test_a_table_without_a_plugin_is_listed_with_the_nearest_name(site: Site) -> None:
    result = site.run("plugins")
    assert result.returncode == 0
    config = site.path / "other.toml"
    config.write_text("[plugins.prob]\n")
    listed = site.run("plugins", "--json", "--config", str(config))
    stranger = next(plugin for plugin in json.loads(listed.stdout) if plugin["name"] == "prob")
    assert "did you mean 'probe'?" in stranger["error"]


def test_without_plugins_the_remedy_is_told(tmp_path: Path) -> None:
    script = (
        "import importlib.metadata as m; m.entry_points = lambda **_: m.EntryPoints(()); "
        "import openclaw_exporter.plugin.host as h; h.entry_points = m.entry_points; "
        "from openclaw_exporter.cli import main; main()"
    )
    for command in ("plugins", "collect"):
        result = subprocess.run(
            (sys.executable, "-c", script, command),
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
            cwd=tmp_path,
        )
        assert (result.returncode, "openclaw-exporter[plugins]" in result.stdout) == (0, True)
