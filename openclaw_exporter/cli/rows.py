"""What collectors yield, for people and for scripts."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final

from openclaw_exporter.plugin import Capacity, Measurement, QueueDepth, Tag, Uptime

if TYPE_CHECKING:
    from openclaw_exporter.cli.collecting import Collected
    from openclaw_exporter.plugin import Observation

COLUMNS: Final = ("observation", "what", "value", "unit")


def described(one: Collected) -> dict[str, Any]:
    """Return what one collector yielded, for scripts."""
    return {
        "plugin": one.plugin,
        "collector": one.name,
        "seconds": round(one.seconds, 4),
        "error": one.error,
        "observations": [
            {"type": type(observation).__name__} | dataclasses.asdict(observation)
            for observation in one.observations
        ],
        "refused": [dataclasses.asdict(rejection) for rejection in one.rejected],
    }


def row(observation: Observation) -> tuple[object, ...]:
    """Return one observation as kind, what, value and unit."""
    match observation:
        case Capacity():
            return "capacity", observation.resource, observation.amount, ""
        case QueueDepth():
            age = "" if observation.oldest_age is None else f", oldest {observation.oldest_age:.1f} s"
            return "queue depth", observation.topic, f"{observation.depth}{age}", "{message}"
        case Uptime():
            return "uptime", "", round(observation.seconds, 1), "s"
        case Tag():
            return "tag", observation.key, observation.value, ""
        case Measurement():
            named = ", ".join(f"{key}={value}" for key, value in observation.attributes.items())
            what = f"{observation.name}{{{named}}}" if named else observation.name
            return observation.kind, what, observation.value, observation.unit
