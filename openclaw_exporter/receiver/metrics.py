"""The receiver's metrics: plain counts in the hot path, read by the exporters' threads when they collect."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Final

from openclaw_exporter.receiver.census import UNKNOWN, Place, place_of
from openclaw_exporter.receiver.census_series import MAX_PLACES, CensusSeries, place_attributes
from openclaw_exporter.receiver.folding import MAX_VALUES, OTHER
from openclaw_exporter.receiver.process import observe_process
from openclaw_exporter.telemetry.instruments import Instruments
from openclaw_exporter.wire.problems import CASES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from opentelemetry.metrics import Meter

    from openclaw_exporter.receiver.answers import Answer
    from openclaw_exporter.receiver.census import Census
    from openclaw_exporter.receiver.liveness import Event, NodeState
    from openclaw_exporter.telemetry.instruments import Series
    from openclaw_exporter.telemetry.tally import TallySeries
    from openclaw_exporter.wire.answers import Result

RequestKey = tuple[str, str, int, str, str]
"""What a request is counted under: method, route, status, the slug of a server's error, scheme."""

Counts = tuple[list[int], float, float, float]
"""The counts by bucket, the sum, the least and the greatest of some durations."""

_COUNTED: Final = ("registered", "expired", "returned", "forgotten")
_SERVER_ERROR: Final = 500
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT"})
_READ_ONLY: Final = frozenset(
    {"invalid-query", "node-unknown", "not-found", "not-acceptable", "shutting-down", "length-required"}
)


class ReceiverMetrics:
    """Every instrument of the receiver. See `Observers`.

    Args:
        meter: Where the instruments are made.
        system: The store's name.

    Attributes:
        children: Returns the process ids of the receiver's further processes.
        loop_lag: How late the event loop runs, seconds.
        expiry_held: Whether the brake on mass expiry holds.
    """

    def __init__(self, meter: Meter, system: str) -> None:
        self._instruments = Instruments(meter)
        self._system = system
        self._places: set[Place] = {Place(UNKNOWN, UNKNOWN)}
        self._events: Counter[tuple[str, Place]] = Counter()
        self._received: dict[str, int] = dict.fromkeys(("recorded", "duplicate", "history"), 0)
        self._refused: dict[tuple[str, int], int] = {
            (slug, case.status): 0 for slug, case in CASES.items() if slug not in _READ_ONLY
        }
        self.loop_lag = 0.0
        self.expiry_held = False
        self._interval = self._instruments.tally("openclaw.registry.heartbeat.interval").series()
        self._skew = self._instruments.tally("openclaw.registry.heartbeat.skew").series()
        self._store = self._instruments.tally("openclaw.registry.store.duration")
        self._operations: dict[str, TallySeries] = {}
        self._requests = self._instruments.tally("http.server.request.duration")
        self._answers: dict[RequestKey, TallySeries] = {}
        self.children: Callable[[], Iterable[int]] = tuple
        self._observe_counts()
        observe_process(self._instruments, children=lambda: self.children())  # noqa: PLW0108 - set later

    def watch(self, census: Callable[[], Census | None]) -> None:
        """Begin to export the registry's numbers; the source may be called from any thread."""

        def series(source: Callable[[Census], Iterable[Series]]) -> Iterable[Series]:
            counted = census()
            return () if counted is None else source(counted)

        first = census()
        for _, place in first.nodes if first is not None else ():
            self._place(place)
        for name, source in CensusSeries().sources.items():
            self._instruments.observe(name, partial(series, source))

    def watch_shared(self, conflicts: Callable[[], int], away: Callable[[], int]) -> None:
        """Begin to export what only a store has that receivers share.

        Args:
            conflicts: Returns how many nodes had changed when they were to be stored.
            away: Returns how many partitions cannot be reached.
        """
        self._instruments.observe("openclaw.registry.store.conflict", lambda: [(conflicts(), {})])
        self._instruments.observe("openclaw.registry.store.partition.away", lambda: [(away(), {})])

    def close(self) -> None:
        """Stop exporting."""
        self._instruments.close()

    def happened(self, event: Event, state: NodeState) -> None:
        """Count an event of a node."""
        if event in _COUNTED:
            self._events[event, self._place(place_of(state.tags))] += 1

    def heard(self, gap: float | None, skew_ms: int) -> None:
        """Note a live heartbeat."""
        if gap is not None:
            self._interval.record(gap)
        self._skew.record(abs(skew_ms) / 1000)

    def timed(self, operation: str, seconds: float) -> None:
        """Note one operation of the store."""
        series = self._operations.get(operation)
        if series is None:
            attributes = {"db.operation.name": operation, "db.system.name": self._system}
            series = self._operations[operation] = self._store.series(attributes)
        series.record(seconds)

    def received(self, result: Result) -> None:
        """Count a heartbeat that was answered 200."""
        self._received[result] += 1

    def refused(self, slug: str, status: int) -> None:
        """Count a heartbeat that was refused."""
        self._refused[slug, status] = self._refused.get((slug, status), 0) + 1

    def answered(self, method: str, route: str, answer: Answer, seconds: float, scheme: str) -> None:
        """Note a request that was answered."""
        key = (method, route, answer.status, answer.error if answer.status >= _SERVER_ERROR else "", scheme)
        series = self._answers.get(key)
        if series is None:
            # A method is the client's own word: those that are none share one key of this dictionary.
            series = self._request_series((method if method in _METHODS else "_OTHER", *key[1:]))
        series.record(seconds)

    def take(self) -> tuple[dict[tuple[str, int], int], dict[RequestKey, Counts]]:
        """Return the refused heartbeats and the requests since the last call, to be counted elsewhere."""
        refused = {key: count for key, count in self._refused.items() if count}
        self._refused = dict.fromkeys(self._refused, 0)
        taken = {key: series.take() for key, series in self._answers.items()}
        return refused, {key: counts for key, counts in taken.items() if any(counts[0])}

    def add(self, refused: Mapping[tuple[str, int], int], requests: Mapping[RequestKey, Counts]) -> None:
        """Count what another process has counted, as `take` returned it there."""
        for key, count in refused.items():
            self._refused[key] = self._refused.get(key, 0) + count
        for request, counts in requests.items():
            self._request_series(request).add(*counts)

    def _request_series(self, key: RequestKey) -> TallySeries:
        series = self._answers.get(key)
        if series is None:
            series = self._answers[key] = self._requests.series(_request_attributes(*key))
        return series

    def _place(self, place: Place) -> Place:
        """Return the place under which a node's events are counted; the first so many have their own."""
        if place not in self._places:
            region = _limited(place.region, {known.region for known in self._places})
            environment = _limited(place.environment, {known.environment for known in self._places})
            place = Place(region, environment)
            if len(self._places) >= MAX_PLACES - 1:
                place = Place(OTHER, OTHER)
            self._places = self._places | {place}
        return place

    def _observe_counts(self) -> None:
        for event in _COUNTED:
            name = f"openclaw.registry.node.{event}"
            self._instruments.observe(name, lambda event=event: self._event_series(event))  # type: ignore[misc]
        self._instruments.observe(
            "openclaw.registry.heartbeat.received",
            lambda: [(count, {"openclaw.result": kind}) for kind, count in self._received.items()],
        )
        self._instruments.observe(
            "openclaw.registry.heartbeat.refused",
            lambda: [
                (count, {"error.type": slug, "http.response.status_code": status})
                for (slug, status), count in list(self._refused.items())
            ],
        )
        self._instruments.observe("openclaw.registry.loop.lag", lambda: [(self.loop_lag, {})])
        self._instruments.observe("openclaw.registry.expiry.held", lambda: [(int(self.expiry_held), {})])

    def _event_series(self, event: str) -> Iterable[Series]:
        return [(self._events[event, place], place_attributes(*place)) for place in self._places]


def _request_attributes(
    method: str, route: str, status: int, error: str, scheme: str
) -> dict[str, str | int]:
    attributes: dict[str, str | int] = {
        "http.request.method": method,
        "http.response.status_code": status,
        "url.scheme": scheme,
    }
    if route:
        attributes["http.route"] = route
    # By the semantic conventions an error of the client's is none of the server's: its cause is counted in
    # `openclaw.registry.heartbeat.refused`.
    if status >= _SERVER_ERROR:
        attributes["error.type"] = error or str(status)
    return attributes


def _limited(value: str, known: set[str]) -> str:
    return value if value in known or len(known) < MAX_VALUES else OTHER
