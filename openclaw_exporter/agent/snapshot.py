"""What is known now: the board that collectors' results are put on, and the snapshot that everyone reads.

A snapshot is immutable and complete: metrics and heartbeats of the same moment say the same. Observations
that are too old are not in it, whatever became of their collector.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping
from math import inf
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from openclaw_exporter.agent.names import MeasurementNames
from openclaw_exporter.plugin.guard import Rejection, series_key
from openclaw_exporter.plugin.observations import (
    Capacity,
    Measurement,
    Observation,
    QueueDepth,
    Tag,
    Uptime,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from openclaw_exporter.plugin.guard import SeriesKey

CollectorKey: TypeAlias = tuple[str, str]
"""The names of plugin and collector."""


class CollectorState(msgspec.Struct, frozen=True):
    """How one collector does, and what it last yielded.

    Attributes:
        plugin: The plugin's name.
        name: The collector's name.
        healthy: Whether its last run ended in time, raised nothing and yielded nothing that was refused.
        observations: What it contributes to the snapshot.
        taken_at: Unix seconds of the run that yielded them; 0 before the first.
        fresh_until: Monotonic seconds until which they stand.
        last_success: Unix seconds of the last healthy run.
        error_type: What the last run failed of.
        errors: Failures and refusals so far, by type.
        cpu_seconds: CPU time so far, of a collector in a process of its own.
        memory_bytes: Resident memory, of a collector in a process of its own.
        series_budget: Different series that it may export over its life.
    """

    plugin: str
    name: str
    healthy: bool = False
    observations: tuple[Observation, ...] = ()
    taken_at: float = 0.0
    fresh_until: float = 0.0
    last_success: float | None = None
    error_type: str | None = None
    errors: Mapping[str, int] = msgspec.field(default_factory=dict)
    cpu_seconds: float | None = None
    memory_bytes: int | None = None
    series_budget: int | None = None

    @property
    def key(self) -> CollectorKey:
        """Plugin and name."""
        return self.plugin, self.name

    @property
    def series(self) -> int:
        """How many series it exports now; a tag is none."""
        return sum(not isinstance(observation, Tag) for observation in self.observations)


class Snapshot(msgspec.Struct, frozen=True):
    """What is known now.

    Attributes:
        collectors: Every collector's state, in the order of the plugins.
        capacity: Amount by resource.
        queues: Depth, and age of the oldest message, by topic.
        uptime: Seconds since the node started.
        tags: What collectors tag the node with.
        measurements: All other metrics by name.
        valid_until: Monotonic seconds at which the first observation becomes too old.
    """

    collectors: tuple[CollectorState, ...] = ()
    capacity: Mapping[str, float] = msgspec.field(default_factory=dict)
    queues: Mapping[str, QueueDepth] = msgspec.field(default_factory=dict)
    uptime: float | None = None
    tags: tuple[Tag, ...] = ()
    measurements: Mapping[str, tuple[Measurement, ...]] = msgspec.field(default_factory=dict)
    valid_until: float = inf


_Keyed: TypeAlias = "tuple[tuple[SeriesKey, Observation], ...]"


class _Offer(msgspec.Struct):
    """What a collector offers to the snapshot; what others already say is left out of it at each merge."""

    state: CollectorState
    keyed: _Keyed = ()


class Board:
    """Where collectors' results are put and from where the snapshot is read, from any thread.

    Of two collectors that yield the same series, or the same name with another kind or unit, the first in
    the order of `arrange` stands. What the second offers is refused, counted and named.

    Args:
        clock: Monotonic seconds.
        on_change: Called with the new snapshot after each result, in the collector's thread.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        on_change: Callable[[Snapshot], None] = lambda _snapshot: None,
    ) -> None:
        self._clock = clock
        self._on_change = on_change
        self._lock = threading.Lock()
        self._names = MeasurementNames()
        self._offers: dict[CollectorKey, _Offer] = {}
        self._refused: dict[CollectorKey, Counter[str]] = {}
        self._snapshot = Snapshot()
        self._frozen = False

    def read(self) -> Snapshot:
        """Return what is known now. Cheap enough for a callback of OpenTelemetry."""
        snapshot = self._snapshot
        if self._frozen or self._clock() < snapshot.valid_until:
            return snapshot
        with self._lock:
            self._merge(None)
            return self._snapshot

    def freeze(self) -> None:
        """Keep what is known now for ever: for the last words of an agent that has stopped collecting."""
        self.read()
        with self._lock:
            self._frozen = True

    def arrange(self, keys: Iterable[CollectorKey]) -> None:
        """Set which collectors there are, and in which order their observations count."""
        with self._lock:
            self._offers = {key: self._offers.get(key) or _Offer(CollectorState(*key)) for key in keys}
            self._merge(None)

    def put(self, state: CollectorState) -> tuple[Rejection, ...]:
        """Replace a collector's state, and return what of its observations was refused.

        A collector that is not arranged any more is passed over.
        """
        refused: list[Rejection] = []
        with self._lock:
            offer = self._offers.get(state.key)
            if offer is None or self._frozen:
                return ()
            keyed = []
            for observation in state.observations:
                conflict = self._names.conflict(observation, state.key)
                if conflict:
                    refused.append(Rejection("conflict", conflict))
                else:
                    keyed.append((series_key(observation), observation))
            offer.state, offer.keyed = state, tuple(keyed)
            refused += self._merge(state.key)
            if refused:
                counts = self._refused.setdefault(state.key, Counter())
                counts.update(rejection.reason for rejection in refused)
                self._merge(None)
            snapshot = self._snapshot
        self._on_change(snapshot)
        return tuple(refused)

    def _merge(self, putting: CollectorKey | None) -> list[Rejection]:
        """Make the snapshot anew; return what was refused of the collector that puts. Call with the lock."""
        now = self._clock()
        taken: dict[SeriesKey, CollectorKey] = {}
        refused: list[Rejection] = []
        states: list[CollectorState] = []
        merging = _Merging()
        for key, offer in self._offers.items():
            if not offer.keyed or now >= offer.state.fresh_until:
                states.append(self._counted(offer.state, ()))
                continue
            merging.valid_until = min(merging.valid_until, offer.state.fresh_until)
            stands: list[Observation] = []
            for series, observation in offer.keyed:
                holder = taken.setdefault(series, key)
                if holder == key:
                    stands.append(observation)
                    merging.add(observation)
                elif key == putting:
                    refused.append(Rejection("duplicate", _duplicate(series, holder)))
            states.append(self._counted(offer.state, tuple(stands)))
        self._snapshot = merging.snapshot(states)
        return refused

    def _counted(self, state: CollectorState, observations: tuple[Observation, ...]) -> CollectorState:
        """Return the state with what stands of its observations, and with what was refused here counted."""
        counts = self._refused.get(state.key)
        errors = Counter(state.errors) + counts if counts else state.errors
        if len(observations) == len(state.observations) and not counts:
            return state
        whole = len(observations) == len(state.observations)
        healthy = state.healthy and whole
        return msgspec.structs.replace(state, observations=observations, errors=errors, healthy=healthy)


class _Merging:
    """A snapshot on its way."""

    def __init__(self) -> None:
        self.valid_until = inf
        self._capacity: dict[str, float] = {}
        self._queues: dict[str, QueueDepth] = {}
        self._uptime: float | None = None
        self._tags: list[Tag] = []
        self._measurements: dict[str, list[Measurement]] = {}

    def add(self, observation: Observation) -> None:
        match observation:
            case Capacity():
                self._capacity[observation.resource] = observation.amount
            case QueueDepth():
                self._queues[observation.topic] = observation
            case Uptime():
                self._uptime = observation.seconds
            case Tag():
                self._tags.append(observation)
            case Measurement():
                self._measurements.setdefault(observation.name, []).append(observation)

    def snapshot(self, states: Sequence[CollectorState]) -> Snapshot:
        return Snapshot(
            collectors=tuple(states),
            capacity=MappingProxyType(self._capacity),
            queues=MappingProxyType(self._queues),
            uptime=self._uptime,
            tags=tuple(self._tags),
            measurements=MappingProxyType(
                {name: tuple(measured) for name, measured in self._measurements.items()}
            ),
            valid_until=self.valid_until,
        )


def _duplicate(series: SeriesKey, holder: CollectorKey) -> str:
    name, attributes = series
    listed = ", ".join(f"{key}={value!r}" for key, value in sorted(attributes, key=str))
    return f"{name}{{{listed}}} comes from collector {'/'.join(holder)} already"[:200]
