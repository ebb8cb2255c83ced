"""The rule files of `dashboards/rules`, for a Prometheus under test."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parents[2] / "dashboards" / "rules"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"\b(\d+)([smhd])\b")


def rule_groups() -> list[dict[str, Any]]:
    """Return the groups of all files, recording rules first."""
    files = [FOLDER / "openclaw-recording.yml", FOLDER / "openclaw-alerts.yml"]
    return [group for path in files for group in yaml.safe_load(path.read_text())["groups"]]


def every_second() -> str:
    """Return all rules as one file, evaluated as often as Prometheus evaluates rules anyway."""
    groups = [{key: value for key, value in group.items() if key != "interval"} for group in rule_groups()]
    return yaml.safe_dump({"groups": groups}, sort_keys=False)


def shortened(factor: int, *, least: int) -> str:
    """Return all rules as one file, with every duration divided: windows, offsets and `for`.

    A window stays long enough to hold a few samples, so short ones shrink less than long ones. Thresholds of
    values (300 s of age, 7 days of life, 2.5 s of latency) are no durations of Prometheus, and stay.

    Args:
        factor: By how much.
        least: Seconds that a window has at least.
    """
    groups = []
    for group in rule_groups():
        rules = []
        for rule in group["rules"]:
            # A recorded name tells its window, and keeps telling the original one.
            names = re.split(r"(\b\w+:\w+:\w+\b)", rule["expr"])
            parts = [
                part if number % 2 else _DURATION.sub(lambda m: _divided(m, factor, least), part)
                for number, part in enumerate(names)
            ]
            changed = {**rule, "expr": "".join(parts)}
            if "for" in rule:
                changed["for"] = _DURATION.sub(lambda m: _divided(m, factor, 0), rule["for"])
            rules.append(changed)
        groups.append({"name": group["name"], "rules": rules})
    return yaml.safe_dump({"groups": groups}, sort_keys=False)


def _divided(found: re.Match[str], factor: int, least: int) -> str:
    seconds = int(found[1]) * _UNITS[found[2]] // factor
    return f"{max(seconds, least)}s"
