"""`dashboards export`: from a checkout, and from a wheel without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from openclaw_exporter.cli import exporting
from openclaw_exporter.errors import UserError
from support.skip import built

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "dashboards"
BOARDS = ["exporter.json", "fleet.json", "gpu.json", "node.json", "receiver.json"]
RULES = ["openclaw-alerts.yml", "openclaw-recording.yml"]
EVERYTHING = {
    *(f"grafana/dashboards/{name}" for name in BOARDS),
    "grafana/provisioning/dashboards/openclaw.yaml",
    "grafana/provisioning/datasources/openclaw.yaml",
    *(f"prometheus/rules/{name}" for name in RULES),
}


def run(*arguments: str, cwd: Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = os.environ | ({"PYTHONPATH": str(path)} if path else {})
    return subprocess.run(
        (sys.executable, "-P", "-m", "openclaw_exporter", "dashboards", "export", *arguments),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        cwd=cwd,
        env=environment,
    )


def files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def test_everything_is_written_as_it_is_in_the_repository(tmp_path: Path) -> None:
    done = run("out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    assert files(out) == EVERYTHING
    assert {line.removeprefix("out/") for line in done.stdout.splitlines()} == EVERYTHING
    for name in BOARDS:
        assert (out / "grafana/dashboards" / name).read_text() == (SOURCE / name).read_text()
    for name in RULES:
        assert (out / "prometheus/rules" / name).read_text() == (SOURCE / "rules" / name).read_text()
    assert str(out / "prometheus/rules/*.yml") in done.stderr


def test_grafana_is_told_where_they_are(tmp_path: Path) -> None:
    exporting.write(tmp_path / 'a "b" c')
    exporting.write(tmp_path / "second", grafana_path="/var/lib/grafana/dashboards/openclaw")
    provisioning = "grafana/provisioning/dashboards/openclaw.yaml"
    here, there = (
        yaml.safe_load((tmp_path / name / provisioning).read_text())["providers"][0]
        for name in ('a "b" c', "second")
    )
    assert here["options"]["path"] == str(tmp_path / 'a "b" c' / "grafana/dashboards")
    assert there["options"]["path"] == "/var/lib/grafana/dashboards/openclaw"
    source = yaml.safe_load((tmp_path / "second/grafana/provisioning/datasources/openclaw.yaml").read_text())
    assert source["datasources"][0]["type"] == "prometheus"


def test_the_written_rules_are_loaded_by_a_prometheus_that_is_told_of_them(tmp_path: Path) -> None:
    exporting.write(tmp_path)
    config = tmp_path / "prometheus" / "prometheus.yml"
    config.write_text("rule_files: [rules/*.yml]\n")
    done = subprocess.run(
        (built("promtool"), "check", "config", config), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 rule files found" in done.stdout


def test_nothing_is_replaced_without_force(tmp_path: Path) -> None:
    exporting.write(tmp_path)
    own = tmp_path / "prometheus/rules/openclaw-alerts.yml"
    own.write_text("groups: []\n")
    (tmp_path / "grafana/dashboards/fleet.json").unlink()
    done = run(str(tmp_path), cwd=tmp_path)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "--force" in done.stderr
    assert not (tmp_path / "grafana/dashboards/fleet.json").exists(), "all or nothing"
    assert own.read_text() == "groups: []\n"
    done = run(str(tmp_path), "--force", "--json", cwd=tmp_path)
    assert done.returncode == 0
    assert set(map(Path, json.loads(done.stdout))) == {tmp_path / name for name in EVERYTHING}
    assert own.read_text() != "groups: []\n"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run("file/out", cwd=tmp_path)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "file/out" in done.stderr


def test_an_installation_without_dashboards_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "_IN_CHECKOUT", tmp_path)
    with pytest.raises(UserError, match="reinstall"):
        exporting.write(tmp_path / "out")


def test_a_wheel_has_them_all_and_needs_no_checkout(tmp_path: Path) -> None:
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps")
    subprocess.run((*pip, "--no-build-isolation", "--wheel-dir", str(tmp_path), str(ROOT)), check=True)
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    done = run("out", cwd=tmp_path, path=installed)
    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "out") == EVERYTHING
    assert not list(installed.rglob("promql.py")), "the code that makes them stays behind"
