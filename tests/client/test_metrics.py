"""What the publisher reports, read through a real SDK."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

import pytest
from client.virtual import Reply, VirtualClock, Wire, away, drive, http_date
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from openclaw_exporter.client import BufferSettings
from openclaw_exporter.client.answers import Outcome, outcome_of
from openclaw_exporter.client.buffer import DropReason
from openclaw_exporter.telemetry.catalogue import CATALOGUE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from openclaw_exporter.client import Publisher

    Make = Callable[..., Publisher]


class Metrics:
    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader])
        self.meter = self.provider.get_meter("test")

    def series(self, name: str) -> dict[tuple[tuple[str, Any], ...], Any]:
        """Return the points of an instrument by their attributes."""
        collected = self.reader.get_metrics_data()
        found: dict[tuple[tuple[str, Any], ...], Any] = {}
        for resource in collected.resource_metrics if collected else []:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    assert metric.name in CATALOGUE
                    assert metric.unit == CATALOGUE[metric.name].unit
                    if metric.name == name:
                        for point in metric.data.data_points:
                            found[tuple(sorted((point.attributes or {}).items()))] = point
        return found

    def value(self, name: str, **attributes: Any) -> Any:
        key = tuple(sorted((name.replace("__", "."), value) for name, value in attributes.items()))
        return self.series(name)[key].value


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    made = Metrics()
    yield made
    made.provider.shutdown()


def test_counters_exist_from_the_start(virtual: Make, metrics: Metrics) -> None:
    virtual(meter=metrics.meter)
    for name in (
        "openclaw.publish.success_total",
        "openclaw.publish.failure_total",
        "openclaw.buffer.dropped",
    ):
        points = metrics.series(name)
        assert points
        assert {point.value for point in points.values()} == {0}


def test_every_reason_and_every_failure_without_an_answer_is_there_at_0() -> None:
    reasons = {zero["reason"] for zero in CATALOGUE["openclaw.buffer.dropped"].zeros}
    assert reasons == set(get_args(DropReason))
    kinds = {str(zero["error.type"]) for zero in CATALOGUE["openclaw.publish.failure_total"].zeros}
    assert {kind for kind in kinds if kind.isalpha()} == {"connection", "dns", "protocol", "timeout", "tls"}
    for kind in kinds:
        if kind.isdigit():
            assert outcome_of(int(kind)) is Outcome.BACKOFF


def test_attempts(virtual: Make, clock: VirtualClock, wire: Wire, metrics: Metrics) -> None:
    statuses = iter([200, 503, 200, 422, 401, 401, 200])
    wire.answer = lambda _request: Reply(next(statuses, 200))
    wire.takes = 0.03
    publisher = virtual(meter=metrics.meter)
    drive(publisher, clock, 600)
    stats = publisher.stats
    assert metrics.value("openclaw.publish.success_total") == stats.success
    failures = {
        (dict(key).get("error.type"), dict(key).get("openclaw.retryable")): point.value
        for key, point in metrics.series("openclaw.publish.failure_total").items()
        if point.value
    }
    assert failures == {("503", True): 1, ("422", False): 1, ("401", False): 2}
    assert sum(failures.values()) == stats.failure
    latency = metrics.series("openclaw.latency_seconds")
    counts = {dict(key)["http.response.status_code"]: point.count for key, point in latency.items()}
    assert counts == {200: stats.success, 503: 1, 422: 1, 401: 2}
    point = next(iter(latency.values()))
    assert point.explicit_bounds == CATALOGUE["openclaw.latency_seconds"].bounds
    assert all(0.029 < point.sum / point.count < 0.031 for point in latency.values())


def test_an_attempt_without_an_answer(virtual: Make, wire: Wire, metrics: Metrics) -> None:
    wire.answer = away
    virtual(meter=metrics.meter).tick()
    found = metrics.series("openclaw.publish.failure_total")
    assert found[(("error.type", "connection"), ("openclaw.retryable", True))].value == 1
    assert metrics.series("openclaw.latency_seconds") == {}


def test_what_happens_before_it_is_known_where_to_report_is_told_later(
    virtual: Make, clock: VirtualClock, wire: Wire, metrics: Metrics
) -> None:
    statuses = iter([503, 200])
    wire.answer = lambda _request: Reply(next(statuses, 200))
    publisher = virtual(measured=False)
    drive(publisher, clock, 130)
    assert metrics.series("openclaw.publish.success_total") == {}
    publisher.measure(metrics.meter)
    before = publisher.stats
    assert (before.failure, before.success > 0) == (1, True)
    assert metrics.value("openclaw.publish.success_total") == before.success
    assert metrics.value("openclaw.buffer.limit") > 0
    latency = metrics.series("openclaw.latency_seconds")
    assert sum(point.count for point in latency.values()) == before.success + 1
    drive(publisher, clock, 130)
    assert metrics.value("openclaw.publish.success_total") == publisher.stats.success > before.success
    publisher.stop(draining=False)
    assert metrics.series("openclaw.buffer.limit") == {}


def test_the_buffer(virtual: Make, clock: VirtualClock, wire: Wire, metrics: Metrics) -> None:
    wire.answer = away
    publisher = virtual(meter=metrics.meter, buffer=BufferSettings(max_heartbeats=4))
    drive(publisher, clock, 600)
    assert metrics.value("openclaw.buffer.usage") == 4
    assert metrics.value("openclaw.buffer.limit") == 4
    assert metrics.value("openclaw.buffer.dropped", reason="overflow") == publisher.stats.dropped > 0
    publisher.stop(draining=False)
    assert metrics.series("openclaw.buffer.usage") == {}


def test_skew_and_credentials(virtual: Make, clock: VirtualClock, wire: Wire, metrics: Metrics) -> None:
    wire.answer = lambda _request: Reply(200, {"Date": http_date(clock.wall() + 90)})
    publisher = virtual(meter=metrics.meter)
    assert metrics.series("openclaw.publish.clock_skew") == {}
    assert metrics.series("openclaw.publish.last_success.timestamp") == {}
    publisher.tick()
    assert metrics.value("openclaw.publish.last_success.timestamp") == clock.wall()
    assert metrics.value("openclaw.publish.clock_skew") == pytest.approx(90, abs=1)
    ends = {
        dict(key)["openclaw.credential"]: point.value
        for key, point in metrics.series("openclaw.credential.not_after").items()
    }
    assert set(ends) == {"certificate", "ca", "token"}
    assert ends["token"] == pytest.approx(clock.wall() + 600, abs=1)
    begins = metrics.series("openclaw.credential.not_before")
    assert all(point.value < ends[dict(key)["openclaw.credential"]] for key, point in begins.items())


def test_two_publishers_share_a_meter(
    virtual: Make, clock: VirtualClock, wire: Wire, metrics: Metrics
) -> None:
    first = virtual(meter=metrics.meter)
    first.tick()
    first.stop(draining=False)
    second = virtual(meter=metrics.meter)
    second.tick()
    assert metrics.value("openclaw.publish.success_total") == 2
    assert metrics.value("openclaw.buffer.usage") == 0
