"""Values that nodes choose are cut to a limit, keep their names, and nothing gets lost on the way."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from openclaw_exporter.receiver.census import Census, Place
from openclaw_exporter.receiver.census_series import MAX_PLACES, CensusSeries
from openclaw_exporter.receiver.folding import MAX_SERIES, MAX_VALUES, OTHER, Folding
from openclaw_exporter.receiver.liveness import STATES

names = st.integers(0, 60).map(str)
fleets = st.dictionaries(st.tuples(names, names), st.integers(0, 100).map(float), max_size=600)


@given(st.lists(fleets, min_size=1, max_size=4))
def test_folding_keeps_the_sum_and_the_limits(collections: list[dict[tuple[str, ...], float]]) -> None:
    folding = Folding()
    for series in collections:
        result = folding.fold(series.items())
        assert sum(result.values()) == sum(series.values())
        assert len(result) <= MAX_SERIES
        for position in range(2):
            values = {key[position] for key in result}
            assert len(values - {OTHER}) <= MAX_VALUES
        if len(series) <= 15:
            assert result == series


def test_the_heaviest_values_keep_their_names() -> None:
    series = {(str(number),): float(number) for number in range(50)}
    result = Folding().fold(series.items())
    assert result.pop((OTHER,)) == sum(range(30))
    assert set(result) == {(str(number),) for number in range(30, 50)}


def test_regions_of_about_one_size_do_not_take_turns() -> None:
    chosen = random.Random(7)
    folding = Folding()
    shown = set()
    for _ in range(50):
        series = {(f"region-{number}",): chosen.uniform(90, 110) for number in range(200)}
        shown |= folding.fold(series.items()).keys()
    assert len(shown) == MAX_VALUES + 1


def test_one_that_outgrows_them_all_gets_a_name_and_one_that_is_gone_gives_its_up() -> None:
    folding = Folding()
    series = {(f"region-{number:02}",): 10.0 for number in range(25)}
    first = folding.fold(series.items())
    assert ("region-24",) not in first
    series["region-24",] = 30.0
    assert ("region-24",) in folding.fold(series.items())
    gone = min(first.keys() - {(OTHER,)})
    del series[gone]
    later = folding.fold(series.items())
    assert gone not in later
    assert len(later) == MAX_VALUES + 1


def test_states_are_told_apart_in_every_place_that_is_shown() -> None:
    census = Census()
    for region in range(60):
        for environment in ("prod", "staging", "test"):
            place = Place(f"region-{region}", environment)
            census.nodes["up", place] = 3 + region
            census.nodes["late", place] = 1
            census.silence[place.region] = float(region)
    sources = CensusSeries().sources
    series = {
        tuple(attributes.values()): value
        for value, attributes in sources["openclaw.registry.node.count"](census)
    }
    assert {state for state, _, _ in series} == set(STATES)
    assert len(series) % len(STATES) == 0
    assert len(series) <= MAX_PLACES * len(STATES) <= MAX_SERIES
    assert sum(value for (state, _, _), value in series.items() if state == "late") == 180
    assert sum(series.values()) == sum(census.nodes.values())
    silences = {
        attributes["openclaw.node.region"]: value
        for value, attributes in sources["openclaw.registry.node.silence"](census)
    }
    assert len(silences) == MAX_VALUES + 1
    assert silences[OTHER] == 39  # the largest regions have names; of the others the longest is told
