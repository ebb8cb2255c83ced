"""When things happen, as arithmetic."""

from __future__ import annotations

import math
from email.utils import formatdate
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_exporter.client import in_rollout
from openclaw_exporter.client.pacing import (
    BeatSchedule,
    ReplayPace,
    RetryPlan,
    backoff_delay,
    most_retries,
    parse_http_date,
    parse_retry_after,
)
from openclaw_exporter.client.rollout import stable_fraction

intervals = st.integers(1, 3600)
fractions = st.floats(0, 1, exclude_max=True)
starts = st.floats(0, 1e9)


@given(retry=st.integers(0, 10_000), interval=intervals, seed=st.integers())
def test_backoff_stays_in_its_bounds(retry: int, interval: int, seed: int) -> None:
    delay = backoff_delay(retry, interval, Random(seed))
    assert 0 <= delay <= min(2.0 ** min(retry, 60), interval / 2)


@given(retry=st.integers(0, 12), interval=intervals)
def test_backoff_has_full_jitter(retry: int, interval: int) -> None:
    random = Random(1)
    ceiling = min(2.0**retry, interval / 2)
    delays = sorted(backoff_delay(retry, interval, random) for _ in range(400))
    # Uniform between nothing and the ceiling: every quarter is visited about as often.
    for quarter in range(4):
        inside = [delay for delay in delays if quarter <= delay / ceiling * 4 < quarter + 1]
        assert 60 <= len(inside) <= 150


@given(start=starts, interval=intervals, fraction=fractions, late=st.lists(st.floats(0, 5), max_size=40))
def test_beats_keep_their_phase(start: float, interval: int, fraction: float, late: list[float]) -> None:
    schedule = BeatSchedule(start, interval, fraction)
    assert schedule.next == start
    now = start
    for lateness in late:
        now = schedule.next + lateness * interval
        before = schedule.next
        schedule.advance(now)
        assert now < schedule.next <= now + interval * (1 + 1e-9)
        assert schedule.next > before
        place = (schedule.next - start) / interval - fraction
        assert math.isclose(place, round(place), abs_tol=1e-4)


@given(start=starts, fraction=fractions, old=intervals, new=intervals, after=st.floats(0, 1e5))
def test_another_interval_never_delays_by_more_than_itself(
    start: float, fraction: float, old: int, new: int, after: float
) -> None:
    schedule = BeatSchedule(start, old, fraction)
    schedule.advance(start + after)
    schedule.change_interval(new, start + after)
    assert schedule.interval == new
    assert start + after < schedule.next
    assert schedule.next <= start + after + max(new, old if new == old else 0) * (1 + 1e-9) + 1e-6


def test_a_fleet_that_starts_together_does_not_beat_together() -> None:
    seconds = [0] * 60
    for number in range(10_000):
        schedule = BeatSchedule(0.0, 60, stable_fraction(f"node-{number}", "phase"))
        schedule.advance(0.0)
        seconds[int(schedule.next) % 60] += 1
    assert max(seconds) <= 1.5 * 10_000 / 60


@given(
    interval=st.integers(10, 3600),
    seed=st.integers(),
    took=st.floats(0, 20),
)
def test_retries_end_within_one_interval_and_in_number(interval: int, seed: int, took: float) -> None:
    plan = RetryPlan(Random(seed))
    now, first, retries = 0.0, None, 0
    while True:
        now += took
        first = now if first is None else first
        plan.plan(now, interval, beat=math.inf, not_before=-math.inf, spread=0.0)
        if plan.next == math.inf:
            break
        assert now <= plan.next <= now + interval / 2
        assert plan.next < first + interval
        now = plan.next
        retries += 1
    assert retries <= most_retries(interval)
    plan.succeed()
    plan.plan(now, interval, beat=math.inf, not_before=-math.inf, spread=0.0)
    assert plan.next <= now + 1


def test_a_retry_gives_way_to_the_beat() -> None:
    plan = RetryPlan(Random(1))
    plan.plan(0.0, 60, beat=0.0, not_before=-math.inf, spread=0.0)
    assert plan.next == math.inf


@given(
    interval=st.integers(30, 120),
    seed=st.integers(),
    beats=st.integers(1, 30),
)
def test_replays_are_one_a_beat_and_a_batch_a_minute(interval: int, seed: int, beats: int) -> None:
    pace = ReplayPace(Random(seed))
    sent: list[float] = []
    for beat in range(beats):
        pace.allow(beat * interval, interval)
        while pace.next < (beat + 1) * interval:
            sent.append(pace.next)
            pace.take()
    assert sent == sorted(sent)
    for beat in range(beats):
        at = beat * interval
        here = [moment for moment in sent if at <= moment < at + 60]
        assert len(here) <= 10 + 60 // interval + 1
    assert len(sent) <= beats + 10 * (beats * interval // 60 + 1)


@given(seed=st.integers())
def test_a_batch_is_spread_over_its_minute(seed: int) -> None:
    pace = ReplayPace(Random(seed))
    pace.allow(0.0, 60)
    due = []
    while pace.next < math.inf:
        due.append(pace.next)
        pace.take()
    assert len(due) == 11
    assert all(
        len([moment for moment in due if start <= moment < start + 6]) <= 3 for start in range(0, 60, 6)
    )


def test_what_was_not_used_lapses() -> None:
    pace = ReplayPace(Random(1))
    pace.allow(0.0, 60)
    pace.allow(1000.0, 60)
    assert pace.next >= 1000.0
    pace.stop()
    assert pace.next == math.inf


@given(seconds=st.integers(0, 10**9))
def test_retry_after_in_seconds(seconds: int) -> None:
    assert parse_retry_after(f" {seconds} ", 0.0) == min(seconds, 300)


@given(unix=st.integers(0, 4 * 10**9), ahead=st.integers(-1000, 1000))
def test_retry_after_as_a_date(unix: int, ahead: int) -> None:
    date = formatdate(unix + ahead, usegmt=True)
    assert parse_retry_after(date, unix) == min(max(ahead, 0), 300)


@pytest.mark.parametrize(
    "text",
    ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"],
)
def test_the_three_forms_of_an_http_date(text: str) -> None:
    assert parse_http_date(text) == 784_111_777


@given(st.integers(0, 253_402_300_799))
def test_a_date_is_read_as_it_is_written(moment: int) -> None:
    assert parse_http_date(formatdate(moment, usegmt=True)) == moment


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "Sun, 06 Xyz 1994 08:49:37 GMT",
        "Sun, 32 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 25:49:37 GMT",
    ],
)
def test_what_is_no_date_is_none(text: str) -> None:
    assert parse_http_date(text) is None


@given(text=st.text(max_size=40))
def test_no_header_breaks_the_reading(text: str) -> None:
    assert 0.0 <= parse_retry_after(text, 0.0) <= 300.0


@given(node=st.uuids(), low=st.floats(0, 100), high=st.floats(0, 100))
def test_the_rollout_only_grows(node: object, low: float, high: float) -> None:
    low, high = sorted((low, high))
    assert in_rollout(str(node), high) or not in_rollout(str(node), low)
    assert in_rollout(str(node), 100)
    assert not in_rollout(str(node), 0)


def test_the_rollout_takes_its_share() -> None:
    chosen = sum(in_rollout(f"node-{number}", 25) for number in range(10_000))
    assert 2300 < chosen < 2700
