from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
COUNTING = """
from openclaw_exporter.plugin import Measurement, Uptime, hookimpl

class Counting:
    name = "counting"
    interval = 60
    deadline = 60
    closed = False

    def __init__(self):
        self.number = 0

    def collect(self):
        self.number += 1
        if self.number == 3:
            raise OSError("the third is lost")
        yield Measurement("probe.rounds", self.number, "{round}", "counter")
        yield Measurement("Bad", 1, "s")

    def close(self):
        open(__file__ + ".closed", "w").close()

@hookimpl
def openclaw_collectors():
    return [Counting()]
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    info = tmp_path / "openclaw_probe-1.2.3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: openclaw-probe\nVersion: 1.2.3\n")
    (info / "entry_points.txt").write_text("[openclaw_exporter]\nprobe = openclaw_probe\n")
    (tmp_path / "openclaw_probe.py").write_text(COUNTING)
    return tmp_path


@contextmanager
def watching(site: Path, *options: str, output: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Run `collect probe --watch`, its output to a file or to a terminal, and end it by Ctrl-C."""
    with (site / "out").open("wb") as out, (site / "err").open("wb") as err:
        process = subprocess.Popen(
            (sys.executable, "-m", "openclaw_exporter", "collect", "probe", "--watch", *options),
            stdout=out if output is None else output,
            stderr=err,
            env={**os.environ, "PYTHONPATH": str(site), "TERM": "xterm", "COLUMNS": "100"},
        )
        try:
            yield process
            process.send_signal(signal.SIGINT)
            assert process.wait(120) == 0
        finally:
            process.kill()
            process.wait()
    assert (site / "err").read_text() == ""


def written(site: Path, text: str) -> bool:
    return text in (site / "out").read_text()


def test_lines_where_there_is_no_terminal_until_ctrl_c(site: Path) -> None:
    with watching(site, "--interval", "0.1"):
        wait_until(lambda: written(site, "probe.rounds 5"), what="the fifth round")
    lines = (site / "out").read_text().splitlines()
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ probe/counting "
    assert all(re.match(stamp, line) for line in lines)
    said = [re.sub(stamp, "", line) for line in lines]
    assert said[0].startswith("refused (name): ")
    assert said[1] == "counter probe.rounds 1 {round}"
    assert "failed: OSError: the third is lost" in said
    assert (site / "openclaw_probe.py.closed").exists()


def test_a_line_of_json_for_each_round(site: Path) -> None:
    with watching(site, "--json", "--interval", "0.2"):
        wait_until(lambda: len((site / "out").read_text().splitlines()) >= 4, what="the fourth round")
    rounds = [json.loads(line)["collectors"][0] for line in (site / "out").read_text().splitlines()[:4]]
    assert [one["error"] for one in rounds] == [None, None, "OSError: the third is lost", None]
    assert [one["observations"][0]["value"] for one in rounds if one["observations"]] == [1, 2, 4]


def test_a_live_table_on_a_terminal(site: Path) -> None:
    leader, follower = pty.openpty()
    seen = b""
    with watching(site, "--interval", "0.2", output=follower):
        os.close(follower)
        deadline = time.monotonic() + 120
        while b"every 0.2 s" not in seen or b"the third is lost" not in seen:
            assert time.monotonic() < deadline, seen
            seen += os.read(leader, 65_536)
    os.close(leader)
    assert b"probe/counting" in seen
    assert b"probe.rounds" in seen
    assert b"\x1b[" in seen


def test_the_interval_is_that_of_the_configuration(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = site / "openclaw_probe.py"
    module.write_text(module.read_text().replace("    interval = 60\n    deadline = 60\n", ""))
    config = site / "agent.toml"
    config.write_text("[collection]\ninterval = 0.3\ndeadline = 0.2\n")
    leader, follower = pty.openpty()
    seen = b""
    monkeypatch.setenv("OPENCLAW_CONFIG", str(config))
    with watching(site, output=follower):
        os.close(follower)
        deadline = time.monotonic() + 120
        while b"every 0.3 s" not in seen:
            assert time.monotonic() < deadline, seen
            seen += os.read(leader, 65_536)
    os.close(leader)


def test_the_interval_belongs_to_watch() -> None:
    result = subprocess.run(
        (sys.executable, "-m", "openclaw_exporter", "collect", "--interval", "5"),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert (result.returncode, "--interval belongs to --watch" in result.stderr) == (2, True)


def test_a_plugin_without_collectors_cannot_be_watched(site: Path) -> None:
    (site / "openclaw_probe.py").write_text("raise RuntimeError('no driver')")
    result = subprocess.run(
        (sys.executable, "-m", "openclaw_exporter", "collect", "probe", "--watch"),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        env={**os.environ, "PYTHONPATH": str(site)},
    )
    assert (result.returncode, "Traceback" in result.stderr) == (2, False)
    assert "no driver" in result.stderr
    assert "there is no collector to watch" in result.stderr
