"""Histograms that are counted in plain Python reach every reader as the SDK's own would."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader

from openclaw_exporter.telemetry.instruments import Instruments
from openclaw_exporter.telemetry.tally import tallies_of

NAME = "openclaw.registry.heartbeat.skew"
ATTRIBUTES = {"error.type": "x"}


class Scene:
    """A meter with one reader; the SDK's own histogram beside the tally, under another name."""

    def __init__(self, temporality: AggregationTemporality) -> None:
        self.reader = InMemoryMetricReader(preferred_temporality={Histogram: temporality})
        self.meter = MeterProvider([self.reader], shutdown_on_exit=False).get_meter("test")
        tallies_of(self.meter).feed(self.reader)
        instruments = Instruments(self.meter)
        self.tally = instruments.tally(NAME)
        bounds = self.tally.definition.bounds
        self.sdk = self.meter.create_histogram("sdk", explicit_bucket_boundaries_advisory=bounds)

    def record(self, value: float, attributes: dict[str, Any]) -> None:
        self.tally.series(attributes).record(value)
        self.sdk.record(value, attributes)

    def collect(self) -> dict[str, Any]:
        collected = self.reader.get_metrics_data()
        if collected is None:
            return {}
        (resource,) = collected.resource_metrics
        (scope,) = resource.scope_metrics
        return {metric.name: metric for metric in scope.metrics}


def essence(metric: Any) -> Any:
    """Return what does not depend on the moment of the call."""
    points = {
        tuple(sorted(point.attributes.items())): (
            point.count,
            pytest.approx(point.sum),
            list(point.bucket_counts),
            point.min,
            point.max,
            list(point.explicit_bounds),
        )
        for point in metric.data.data_points
    }
    return metric.data.aggregation_temporality, points


values = st.lists(
    st.one_of(st.floats(0, 5000), st.sampled_from([0.05, 0.1, 3600.5]))
    .map(float)
    .flatmap(lambda value: st.tuples(st.just(value), st.sampled_from([{}, ATTRIBUTES]))),
    min_size=1,
    max_size=30,
)


@pytest.mark.parametrize("temporality", [AggregationTemporality.CUMULATIVE, AggregationTemporality.DELTA])
@given(rounds=st.lists(values, min_size=1, max_size=4))
def test_a_tally_is_the_sdks_histogram(
    temporality: AggregationTemporality, rounds: list[list[tuple[float, dict[str, Any]]]]
) -> None:
    scene = Scene(temporality)
    for recorded in rounds:
        for value, attributes in recorded:
            scene.record(value, attributes)
        metrics = scene.collect()
        assert essence(metrics[NAME]) == essence(metrics["sdk"])
        assert metrics[NAME].unit == "s"


def test_a_series_without_values_and_a_meter_without_readers_export_nothing() -> None:
    scene = Scene(AggregationTemporality.CUMULATIVE)
    scene.tally.series()
    scene.sdk.record(1.0)
    assert NAME not in scene.collect()
    nobody = Instruments(NoOpMeterProvider().get_meter("nobody")).tally(NAME)
    nobody.series().record(1.0)


def test_only_histograms_have_tallies() -> None:
    with pytest.raises(KeyError, match=r"openclaw\.registry\.node\.count"):
        Instruments(NoOpMeterProvider().get_meter("nobody")).tally("openclaw.registry.node.count")
