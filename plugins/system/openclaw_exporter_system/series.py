"""What several groups of metrics share."""

from __future__ import annotations

import fnmatch
import functools
import re
from typing import TYPE_CHECKING, Final

from openclaw_exporter.plugin import Measurement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_NAMES_KEPT: Final = 256


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

    @functools.lru_cache(_NAMES_KEPT)
    def is_matched(name: str) -> bool:
        return matches is not None and matches(name) is not None

    return is_matched
