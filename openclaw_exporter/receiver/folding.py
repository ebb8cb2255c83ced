"""Keeps what nodes choose (regions, versions, topics, …) from making series without end.

An attribute has so many values and an instrument so many series of their own; what comes on top is `other`.
A value that has a name of its own keeps it until one of twice its weight has none: of two hundred regions of
about one size it is always the same ones that are shown.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MAX_VALUES: Final = 20
"""Values of one attribute; what comes on top is `other`."""

MAX_SERIES: Final = 300
OTHER: Final = "other"

_LOYALTY: Final = 2

Key = tuple[str, ...]
K = TypeVar("K", str, tuple[str, ...])


class Folding:
    """Folds the series of one instrument, each time it is collected.

    Args:
        max_series: How many series it may have.
    """

    def __init__(self, max_series: int = MAX_SERIES) -> None:
        self._max_series = max_series
        self._values: defaultdict[int, set[str]] = defaultdict(set)
        self._keys: set[Key] = set()

    def fold(self, pairs: Iterable[tuple[Key, float]]) -> dict[Key, float]:
        """Return what is exported: the values of series that fall together are summed up.

        Args:
            pairs: The attributes' values, always as many, and the series' value, which is its weight.
        """
        series = dict(pairs)
        folded: dict[Key, float] = {}
        for key, name in self.names(series).items():
            folded[name] = folded.get(name, 0) + series[key]
        return folded

    def names(self, weights: Mapping[Key, float]) -> dict[Key, Key]:
        """Return under which attributes each series is exported."""
        names = {key: key for key in weights}
        for position in range(len(next(iter(weights), ()))):
            sums: defaultdict[str, float] = defaultdict(float)
            for key, name in names.items():
                sums[name[position]] += weights[key]
            kept = self._values[position] = _kept(sums, self._values[position], MAX_VALUES)
            names = {
                key: name if name[position] in kept else (*name[:position], OTHER, *name[position + 1 :])
                for key, name in names.items()
            }
        return self._cut(names, weights)

    def _cut(self, names: dict[Key, Key], weights: Mapping[Key, float]) -> dict[Key, Key]:
        sums: defaultdict[Key, float] = defaultdict(float)
        for key, name in names.items():
            sums[name] += weights[key]
        if len(sums) <= self._max_series:
            self._keys = set(sums)
            return names
        kept = self._keys = _kept(sums, self._keys, self._max_series - 1)
        return {key: name if name in kept else (OTHER,) * len(name) for key, name in names.items()}


def _kept(weights: Mapping[K, float], named: set[K], limit: int) -> set[K]:
    if len(weights) <= limit:
        return set(weights)
    order = sorted(weights, key=lambda one: (-weights[one] * (_LOYALTY if one in named else 1), one))
    return set(order[:limit])
