"""The rules: promtool's word, each alert's form, its cases and its runbook."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from openclaw_exporter.cli.app import app
from support.skip import built

ROOT = Path(__file__).parents[2]
RULES = ROOT / "dashboards" / "rules"
RUNBOOKS = ROOT / "docs" / "runbooks"
CASES = sorted((RULES / "tests").glob("*.yml"))
# The table of alerts with what people rely on: how long, and how urgent.
EXPECTED = {
    "PublishBudgetBurnFast": ("2m", "critical"),
    "PublishBudgetBurnSlow": ("15m", "warning"),
    "PublishStalled": ("5m", "warning"),
    "PublishLatencyHigh": ("15m", "warning"),
    "HeartbeatsLate": ("2m", "warning"),
    "NodesExpired": ("0m", "warning"),
    "MassExpiry": ("1m", "critical"),
    "ExpiryHeld": ("0m", "critical"),
    "RegistryAbsent": ("5m", "critical"),
    "ReceiverOverloaded": ("10m", "critical"),
    "CollectorFailing": ("5m", "warning"),
    "QueueBacklogGrowing": ("15m", "warning"),
    "CapacityShort": ("30m", "warning"),
    "GpuUnhealthy": ("5m", "critical"),
    "CredentialExpiring": ("15m", "warning"),
    "ClockSkewed": ("15m", "warning"),
}


def rules() -> list[dict[str, Any]]:
    files = sorted(RULES.glob("*.yml"))
    groups = [group for path in files for group in yaml.safe_load(path.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}
EACH = pytest.mark.parametrize("name", EXPECTED)


def promtool(*arguments: str | Path) -> str:
    done = subprocess.run(
        (built("promtool"), *arguments), capture_output=True, text=True, check=False, cwd=RULES / "tests"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_files_are_valid() -> None:
    assert "SUCCESS" in promtool("check", "rules", *sorted(RULES.glob("*.yml")))


@pytest.mark.parametrize("cases", CASES, ids=lambda path: str(path.stem))
def test_every_case_comes_out(cases: Path) -> None:
    assert "SUCCESS" in promtool("test", "rules", cases)


@EACH
def test_each_alert_has_a_case_that_fires_and_one_that_stays_silent(name: str) -> None:
    """A case fires where ALERTS is expected to have the alert; a silent case names it and expects nothing."""
    fires = silent = False
    for path in CASES:
        for case in yaml.safe_load(path.read_text())["tests"]:
            expected = [
                sample["labels"] for test in case["promql_expr_test"] for sample in test["exp_samples"]
            ]
            fires = fires or any(f'alertname="{name}"' in labels for labels in expected)
            fires = fires or (name in case["name"] and any("severity=" in labels for labels in expected))
            nothing = any(not test["exp_samples"] for test in case["promql_expr_test"])
            silent = silent or (name in case["name"] and (nothing or "and not" in case["name"]))
            silent = silent or (
                name.startswith("PublishBudgetBurn") and "and Slow stay silent" in case["name"]
            )
    assert fires
    assert silent


def test_the_table_is_complete() -> None:
    assert {name: (rule["for"], rule["labels"]["severity"]) for name, rule in ALERTS.items()} == EXPECTED


@EACH
def test_each_alert_says_what_is_the_matter(name: str) -> None:
    annotations = ALERTS[name]["annotations"]
    assert annotations["summary"]
    assert "{{" not in annotations["summary"], "a summary groups; labels belong to the description"
    assert annotations["description"].endswith(".") or annotations["description"].endswith(").")
    page = annotations["runbook_url"].removeprefix(
        "https://github.com/openclaw/openclaw-exporter/blob/main/docs/runbooks/"
    )
    assert page == f"{name}.md"


@EACH
def test_each_alert_has_a_runbook(name: str) -> None:
    text = (RUNBOOKS / f"{name}.md").read_text()
    assert text.startswith(f"# {name}\n\n**Meaning.**")
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings == ["Look at, in order", "Mend", "Silence", "Escalate"]
    steps = re.findall(r"^(\d)\. ", text, re.MULTILINE)
    assert [int(step) for step in steps] == list(range(1, len(steps) + 1))
    assert len(steps) >= 4
    assert "`" in text
    index = (RUNBOOKS / "README.md").read_text()
    assert f"| {name} | {EXPECTED[name][1]} | [{name}]({name}.md) |" in index


def test_runbooks_name_commands_and_options_that_are_there() -> None:
    for page in RUNBOOKS.glob("*.md"):
        for line in re.findall(r"openclaw-exporter ([a-z][^`\n]*)", page.read_text()):
            words = line.split()
            command = app.get_command(None, words[0])  # type: ignore[arg-type]
            assert command is not None, f"{page.name}: {line}"
            options = {option for parameter in command.params for option in parameter.opts}
            for sub in getattr(command, "commands", {}).values():
                options |= {option for parameter in sub.params for option in parameter.opts}
            given = {word for word in words if word.startswith("--")}
            assert given <= options, f"{page.name}: {line}"


def test_receivers_that_tell_the_same_are_counted_once() -> None:
    for rule in rules():
        for shared in (
            "openclaw_registry_node_count",
            "openclaw_registry_capacity",
            "openclaw_registry_queue_depth",
        ):
            for found in re.finditer(rf"{shared}\b", rule["expr"]):
                before = rule["expr"][: found.start()]
                once = re.search(r"max by \([^)]*\) \(\s*$", before) or before.endswith("absent(")
                assert once, rule.get("alert") or rule["record"]
