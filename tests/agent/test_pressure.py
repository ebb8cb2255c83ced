"""Queue pressure, over all depths and thresholds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_exporter.agent.pressure import Slots, offered
from openclaw_exporter.agent.settings import PressureSettings, Threshold

SLOTS = st.integers(0, 10_000)
DEPTHS = st.integers(0, 1_000_000)
TOPICS = st.sampled_from(["planner", "worker", "judge"])
THRESHOLDS = st.tuples(st.integers(0, 100_000), st.integers(1, 100_000)).map(
    lambda pair: Threshold(soft=pair[0], hard=pair[0] + pair[1])
)
UNKNOWN = st.sampled_from(["keep", "withhold"])


@st.composite
def settings(draw: st.DrawFn) -> PressureSettings:
    topics = draw(st.dictionaries(TOPICS, THRESHOLDS))
    return PressureSettings(topics=topics, when_unknown=draw(UNKNOWN))


@given(SLOTS, st.dictionaries(TOPICS, DEPTHS), settings())
def test_slots_are_split_into_offered_and_withheld(
    available: int, depths: dict[str, int], pressure: PressureSettings
) -> None:
    slots = offered(available, depths, pressure)
    assert slots.available + slots.withheld == available
    assert 0 <= slots.available <= available
    assert (slots.topic is None) == (slots.withheld == 0)


@given(SLOTS, st.dictionaries(TOPICS, DEPTHS), settings(), TOPICS, DEPTHS)
def test_a_deeper_queue_never_offers_more(
    available: int, depths: dict[str, int], pressure: PressureSettings, topic: str, more: int
) -> None:
    before = depths.get(topic, 0)
    shallow = offered(available, {**depths, topic: before}, pressure)
    deep = offered(available, {**depths, topic: before + more}, pressure)
    assert deep.available <= shallow.available


@given(SLOTS, st.dictionaries(TOPICS, DEPTHS), settings())
def test_the_worst_topic_alone_counts(
    available: int, depths: dict[str, int], pressure: PressureSettings
) -> None:
    alone = [
        offered(
            available,
            depths,
            PressureSettings(topics={topic: threshold}, when_unknown=pressure.when_unknown),
        ).available
        for topic, threshold in pressure.topics.items()
    ]
    assert offered(available, depths, pressure).available == min(alone, default=available)


@given(SLOTS, THRESHOLDS, DEPTHS)
def test_soft_keeps_all_and_hard_none(available: int, threshold: Threshold, depth: int) -> None:
    slots = offered(available, {"worker": depth}, PressureSettings(topics={"worker": threshold}))
    if depth <= threshold.soft:
        assert slots == Slots(available, 0, None)
    elif depth >= threshold.hard:
        assert slots.available == 0


@pytest.mark.parametrize(
    ("depth", "left"), [(0, 10), (100, 10), (101, 9), (150, 5), (199, 0), (200, 0), (10**9, 0)]
)
def test_a_straight_line_between_rounded_down(depth: int, left: int) -> None:
    pressure = PressureSettings(topics={"worker": Threshold(soft=100, hard=200)})
    assert offered(10, {"worker": depth}, pressure).available == left


@pytest.mark.parametrize(
    ("when_unknown", "expected"), [("keep", Slots(8, 0, None)), ("withhold", Slots(0, 8, "worker"))]
)
def test_an_unknown_depth_counts_as_configured(when_unknown: str, expected: Slots) -> None:
    pressure = PressureSettings(
        topics={"worker": Threshold(soft=1, hard=2)},
        when_unknown=when_unknown,  # type: ignore[arg-type]
    )
    assert offered(8, {"other": 10**6}, pressure) == expected
    assert offered(8, {"worker": 0}, pressure) == Slots(8, 0, None)
