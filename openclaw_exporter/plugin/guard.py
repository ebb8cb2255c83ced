"""The host's edge: what a collector yields is checked here, and only what keeps the rules passes.

One guard stands before one collector and lives as long as the agent, because it counts the different series
that the collector has exported over that whole time: the OpenTelemetry SDK keeps at most 2 000 attribute
sets for one instrument over a process's life and reports only an overflow after that.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from openclaw_exporter.plugin.observations import (
    Capacity,
    Kind,
    Measurement,
    Observation,
    QueueDepth,
    Tag,
    Uptime,
)
from openclaw_exporter.plugin.redaction import describe_error
from openclaw_exporter.plugin.rules import RejectedError, checked

__all__ = ["MAX_OF_A_KIND", "Checked", "Guard", "Rejection", "SeriesKey", "series_key"]

MAX_OF_A_KIND: Final = 32
"""Resources, topics and tags in one heartbeat, and so in one collection."""

_SLACK: Final = 256
"""How many items beyond its series budget a collection may yield before it is stopped."""

SeriesKey = tuple[str, frozenset[tuple[str, object]]]
"""The name of a metric and its attributes; two observations with the same key are the same series."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """One item that was refused.

    Attributes:
        reason: A short stable word, the metrics' `error.type`: one of `rules.Reason`.
        detail: What was refused and why, in one line.
    """

    reason: str
    detail: str


class Checked(msgspec.Struct, frozen=True):
    """The outcome of one collection."""

    observations: tuple[Observation, ...]
    rejected: tuple[Rejection, ...]


def series_key(observation: Observation) -> SeriesKey:
    """Return what tells this observation from every other one, over all collectors of a node.

    A tag is told by its key alone: a node that is `gpu:true` and `gpu:false` says nothing.
    """
    match observation:
        case Measurement():  # nearly all of them
            return observation.name, frozenset(observation.attributes.items())
        case Capacity():
            return "openclaw.node.capacity", frozenset({("openclaw.resource", observation.resource)})
        case QueueDepth():
            attribute = ("messaging.destination.name", observation.topic)
            return "openclaw.node.queue.depth", frozenset({attribute})
        case Uptime():
            return "openclaw.node.uptime", frozenset()
        case Tag():
            return "tag", frozenset({("key", observation.key)})


class Guard:
    """Checks the collections of one collector, one after the other; not for several threads at once.

    Args:
        series_budget: How many different series may pass over the guard's life. A tag is no series.
    """

    def __init__(self, series_budget: int = 300) -> None:
        self._budget = series_budget
        self._series: set[SeriesKey] = set()
        self._instruments: dict[str, tuple[Kind, str]] = {}

    @property
    def series(self) -> int:
        """How many different series have passed so far."""
        return len(self._series)

    def check(self, observations: Iterable[object]) -> Checked:
        """Return what passes and what was refused; stop an endless collection.

        Raises:
            Exception: Whatever the iterable itself raises. Nothing of such a collection stands, because
                half a collection cannot be told from a whole one; what the budget has counted stays counted.
                A collector that wants the rest to stand yields the exception instead.
        """
        if isinstance(observations, (str, bytes, Mapping)) or not isinstance(observations, Iterable):
            kind = type(observations).__name__
            return Checked((), (Rejection("type", f"collect() returned {kind}, not observations"),))
        return _Collection(self._budget, self._series, self._instruments).run(iter(observations))


class _Collection:
    """One run through a guard."""

    def __init__(self, budget: int, series: set[SeriesKey], instruments: dict[str, tuple[Kind, str]]) -> None:
        self._budget = budget
        self._series = series
        self._instruments = instruments
        self._taken: dict[SeriesKey, Observation] = {}
        self._counts: Counter[type] = Counter()
        self._rejected: list[Rejection] = []

    def run(self, items: Iterator[object]) -> Checked:
        for number, item in enumerate(items):
            if number >= self._budget + _SLACK:
                text = f"stopped after {number} items (series budget {self._budget})"
                self._rejected.append(Rejection("flood", text))
                _close(items)
                break
            if isinstance(item, Exception):
                self._rejected.append(Rejection("partial", describe_error(item)))
                continue
            try:
                self._take(checked(item))
            except RejectedError as refusal:
                self._rejected.append(Rejection(refusal.reason, refusal.detail))
        return Checked(tuple(self._taken.values()), tuple(self._rejected))

    def _take(self, observation: Observation) -> None:
        key = series_key(observation)
        if key in self._taken:
            raise RejectedError("duplicate", f"{_label(key)} was yielded twice in one collection")
        kind = type(observation)
        if kind in _COUNTED and self._counts[kind] >= MAX_OF_A_KIND:
            raise RejectedError("budget", f"{_label(key)}: more than {MAX_OF_A_KIND} {_COUNTED[kind]}")
        if isinstance(observation, Measurement):
            self._check_instrument(observation)
        if not isinstance(observation, Tag) and key not in self._series:
            if len(self._series) >= self._budget:
                raise RejectedError(
                    "budget", f"{_label(key)}: the budget of {self._budget} series is used up"
                )
            self._series.add(key)
            if isinstance(observation, Measurement):
                self._instruments.setdefault(observation.name, (observation.kind, observation.unit))
        self._counts[kind] += 1
        self._taken[key] = observation

    def _check_instrument(self, measurement: Measurement) -> None:
        """Refuse a second kind or unit under one name: an instrument has one of each."""
        now = (measurement.kind, measurement.unit)
        before = self._instruments.get(measurement.name, now)
        if now != before:
            text = f"{measurement.name} is a {before[0]} in {before[1]!r}, not a {now[0]} in {now[1]!r}"
            raise RejectedError("conflict", text)


_COUNTED: Final[Mapping[type, str]] = {Capacity: "resources", QueueDepth: "topics", Tag: "tags"}


def _label(key: SeriesKey) -> str:
    name, attributes = key
    listed = ", ".join(f"{attribute}={value!r}" for attribute, value in sorted(attributes, key=str))
    return f"{name}{{{listed}}}"[:200]


def _close(items: Iterator[object]) -> None:
    """End a generator that was stopped early; what it says to that does not matter any more."""
    close = getattr(items, "close", None)
    if callable(close):
        with contextlib.suppress(Exception):
            close()
