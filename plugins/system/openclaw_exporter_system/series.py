"""What several groups of metrics share."""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING, Any

from openclaw_exporter.plugin import Measurement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


def cpu_times(times: Any, attributes: dict[str, int]) -> Iterator[Measurement]:
    """Yield CPU seconds by mode. Linux counts a guest's time in `user` and `nice` already."""
    modes = {mode: getattr(times, mode) for mode in ("user", "nice", "system", "idle")}
    modes |= {mode: getattr(times, mode) for mode in ("iowait", "steal") if hasattr(times, mode)}
    modes["interrupt"] = getattr(times, "irq", 0.0) + getattr(times, "softirq", 0.0)
    for mode, seconds in modes.items():
        yield Measurement("system.cpu.time", seconds, "s", "counter", {"cpu.mode": mode, **attributes})


def by_state(
    name: str, key: str, states: dict[str, int], attributes: dict[str, str] | None = None
) -> Iterator[Measurement]:
    """Yield one series for each state."""
    for state, amount in states.items():
        yield Measurement(name, amount, "By", "updowncounter", {key: state, **(attributes or {})})


def matcher(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Return whether a name matches one of the shell patterns."""
    joined = "|".join(fnmatch.translate(pattern) for pattern in patterns)
    matches = re.compile(joined).match if joined else None
    return (lambda name: matches(name) is not None) if matches else (lambda _name: False)
