"""Every metric that is asked for is made by something, and every instrument is looked at or excused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from dashboards.asking import all_asked
from dashboards.lint import base_name, metrics_of, parsed
from openclaw_exporter.telemetry.catalogue import CATALOGUE, prometheus_name

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = Path(__file__).parents[2] / "dashboards"
MADE = {prometheus_name(instrument): name for name, instrument in CATALOGUE.items()}
ELSEWHERE = {
    "target_info": "the resource of each process, by OpenTelemetry's rules",
    "hw_gpu_utilization_ratio": "hw.gpu.utilization as it is called where it comes by OTLP",
}
UNUSED = {
    "openclaw.registry.store.conflict": "with a shared store only: the panel would be empty elsewhere",
    "openclaw.registry.store.partition.away": "with a shared store only; readiness and 503s tell it too",
    "cgroup.pids.usage": "inside a container only: the panel would be empty elsewhere; load tells it too",
    "cgroup.pids.limit": "as cgroup.pids.usage",
}


@pytest.fixture(scope="module")
def used(parse: Callable[[str], dict[str, Any]]) -> dict[str, set[str]]:
    """Metric → who asks for it: dashboards by file name, rules by their own."""
    found: dict[str, set[str]] = {}
    for path in FOLDER.glob("*.json"):
        for asked in all_asked(json.loads(path.read_text())):
            for metric in metrics_of(parsed(asked.expression, parse)):
                found.setdefault(base_name(metric), set()).add(f"{path.stem}: {asked.where}")
    for path in (FOLDER / "rules").glob("*.yml"):
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                for metric in metrics_of(parse(rule["expr"])):
                    found.setdefault(base_name(metric), set()).add(rule.get("alert") or rule["record"])
    return found


def test_every_metric_that_is_used_is_made(used: dict[str, set[str]]) -> None:
    recorded = {
        rule["record"]
        for path in (FOLDER / "rules").glob("*.yml")
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
        if "record" in rule
    }
    strangers = {metric: who for metric, who in used.items() if metric not in {*MADE, *ELSEWHERE, *recorded}}
    assert not strangers
    unread = recorded - used.keys()
    assert not unread, "recorded for nobody"


def test_every_instrument_is_looked_at_or_excused(used: dict[str, set[str]]) -> None:
    unseen = {name for metric, name in MADE.items() if metric not in used}
    assert unseen == UNUSED.keys()
    assert all(UNUSED.values()), "an excuse is a reason"
