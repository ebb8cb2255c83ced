"""The host's edge: garbage never raises, and what passes keeps the contract's and the catalogue's rules."""

from __future__ import annotations

import itertools
import math
import pickle
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openclaw_exporter.plugin import Capacity, Measurement, Observation, QueueDepth, Tag, Uptime
from openclaw_exporter.plugin.guard import Guard, series_key

if TYPE_CHECKING:
    from collections.abc import Iterator


class Text(str):
    """A string of a plugin's own class."""

    __slots__ = ()


class Number(float):
    """A number of a plugin's own class, as numpy has."""

    __slots__ = ()


class Broken:
    """Anything that raises when it is touched."""

    def __repr__(self) -> str:
        raise RuntimeError

    def __eq__(self, other: object) -> bool:
        raise RuntimeError

    __hash__ = None  # type: ignore[assignment] # unhashable on purpose


def m(
    name: str = "app.level", value: Any = 1, unit: Any = "1", kind: Any = "gauge", **attributes: Any
) -> Any:
    """Return a measurement whose attribute keys are written with `__` for the dot."""
    return Measurement(
        name, value, unit, kind, {key.replace("__", "."): value for key, value in attributes.items()}
    )


def refuse(item: object) -> tuple[str, str]:
    """Return reason and detail of the one refusal that the item causes."""
    checked = Guard().check([item])
    assert checked.observations == ()
    (rejection,) = checked.rejected
    return rejection.reason, rejection.detail


GOOD: list[Observation] = [
    Capacity("workers", 24),
    Capacity("available_slots", 2**53 - 1),
    Capacity("memory_gib", 0.5),
    QueueDepth("tenant:a.b-C", 0),
    QueueDepth("worker", 2**53 - 1, 12.5),
    Uptime(0),
    Tag("gpu", "true"),
    Tag("swarm.name", "Blau grün ☃"),
    Measurement("app.queue.wait", -1.5, "s"),
    Measurement("app.level", 3, "{level}", "updowncounter", {"app.name": "x", "app.on": True, "app.n": 1}),
    Measurement("system.cpu.load_average.1m", 0.1, "{thread}"),
    Measurement("app.hit.ratio", 0.5, "1"),
    Measurement("app.up", 1, ""),
]


def test_good_observations_pass_unchanged_and_in_order() -> None:
    checked = Guard().check(iter(GOOD))
    assert checked.rejected == ()
    assert list(checked.observations) == GOOD
    assert pickle.loads(pickle.dumps(checked.observations)) == checked.observations  # noqa: S301 - our own


def test_whole_floats_become_integers_where_the_contract_wants_integers() -> None:
    checked = Guard().check([Capacity("workers", 24.0), Capacity("cores", 10**20), m(value=10**20)])
    assert [type(o.amount) for o in checked.observations if isinstance(o, Capacity)] == [int, float]
    assert [type(o.value) for o in checked.observations if isinstance(o, Measurement)] == [float]


REFUSED: list[tuple[Any, str, str]] = [
    (7, "type", "int is no observation"),
    (None, "type", "NoneType is no observation"),
    (object.__new__(Capacity), "type", "cannot be read"),
    (Capacity("Workers", 1), "name", "allowed: [a-z]"),
    (Capacity("workers\n", 1), "name", "allowed: [a-z]"),
    (Capacity(Text("workers"), 1), "type", "of type Text, not str"),
    (Capacity("w" * 64, 1), "name", "resource is"),
    (Capacity("workers", 1.5), "range", "not a whole number"),
    (Capacity("available_slots", 2**53), "range", "below 2^53"),
    (Capacity("workers", -1), "range", "below 0"),
    (Capacity("workers", True), "type", "of type bool"),
    (Capacity("cores", Number(1)), "type", "of type Number"),
    (Capacity("cores", math.nan), "range", "not finite"),
    (Capacity("cores", math.inf), "range", "not finite"),
    (Capacity("cores", 10**400), "range", "not finite"),
    (QueueDepth("a b", 1), "name", "topic is"),
    (QueueDepth("t" * 65, 1), "name", "topic is"),
    (QueueDepth("", 1), "name", "topic is"),
    (QueueDepth("worker", -1), "range", "below 0"),
    (QueueDepth("worker", 3.0), "type", "not int"),  # type: ignore[arg-type] # the point of the case
    (QueueDepth("worker", True), "type", "of type bool"),
    (QueueDepth("worker", 2**53), "range", "above"),
    (QueueDepth("worker", 1, -0.1), "range", "oldest_age of worker"),
    (QueueDepth("worker", 1, math.nan), "range", "not finite"),
    (Uptime(-1), "range", "below 0"),
    (Uptime("3"), "type", "of type str"),  # type: ignore[arg-type] # the point of the case
    (Tag("GPU", "true"), "name", "key is"),
    (Tag("gpu", ""), "text", "empty"),
    (Tag("gpu", "tr\x00ue"), "text", "control character"),
    (Tag("gpu", "\ud800"), "text", "control character"),
    (Tag("gpu", True), "type", "of type bool"),  # type: ignore[arg-type] # the point of the case
    (Tag("k", "é" * 64), "text", "longer than 127 bytes"),
    (m("Level"), "name", "lower case, dotted"),
    (m("level"), "name", "lower case, dotted"),
    (m("app..level"), "name", "lower case, dotted"),
    (m("app.level\n"), "text", "control character"),
    (m("a." + "b" * 254), "name", "lower case, dotted"),
    (m("app.requests_total"), "name", "ends in 'total'"),
    (m("app.requests.total"), "name", "ends in 'total'"),
    (m("app.wait.seconds", unit="s"), "name", "ends in 'seconds'"),
    (m("app.hit.ratio", unit="s"), "name", "ends in 'ratio'"),
    (m("openclaw.queue.depth"), "name", "reserved"),
    (m("openclaw_worker.count"), "name", "reserved"),
    (m(unit="By/{request}"), "unit", "one {annotation}"),
    (m(unit="ms"), "unit", "one {annotation}"),
    (m(unit="MiB"), "unit", "one {annotation}"),
    (m(unit=None), "type", "unit of app.level"),
    (m(kind="histogram"), "type", "allowed: counter, gauge, updowncounter"),
    (m(kind="counter", value=-1), "range", "below 0"),
    (m(value="1"), "type", "of type str"),
    (m(value=math.inf), "range", "not finite"),
    (Measurement("app.level", 1, "1", "gauge", None), "attributes", "not a mapping"),  # type: ignore[arg-type] # same
    (Measurement("app.level", 1, "1", "gauge", {1: "x"}), "attributes", "attribute key"),  # type: ignore[dict-item] # same
    (m(Name="x"), "attributes", "attribute key"),
    (m(app__a=[1]), "type", "attribute app.a"),
    (m(app__a=None), "type", "attribute app.a"),
    (m(app__a="x" * 256), "attributes", "longer than 255"),
    (m(app__a="x\ny"), "text", "control character"),
    (m(app__a=math.nan), "range", "not finite"),
    (m(app__a=2**63), "attributes", "beyond 64 bits"),
    (m(app__a=Broken()), "type", "attribute app.a"),
    (m(a__b=1, a_b=2), "attributes", "one label in Prometheus"),
    (m(**{f"k{n}": n for n in range(17)}), "attributes", "17 attributes"),
    (
        ValueError("key 'x' is a hash\nredis://me:secret@h"),
        "partial",
        "ValueError: key 'x' is a hash redis://***@h",
    ),
]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: f"{case[1]}-{case[2]}")
def test_garbage_is_refused_with_a_reason_and_a_line(case: tuple[Any, str, str]) -> None:
    item, reason, text = case
    got, detail = refuse(item)
    assert got == reason
    assert text in detail
    assert "\n" not in detail


@pytest.mark.parametrize("returned", [None, 7, "text", b"bytes", {"a": 1}, Capacity("workers", 1)])
def test_what_is_no_iterable_of_observations_is_refused_as_a_whole(returned: Any) -> None:
    checked = Guard().check(returned)
    assert checked.observations == ()
    assert [rejection.reason for rejection in checked.rejected] == ["type"]


def test_the_second_of_two_equal_keys_is_refused_and_named() -> None:
    checked = Guard().check([QueueDepth("a", 1), QueueDepth("a", 2), Tag("gpu", "true"), Tag("gpu", "false")])
    assert checked.observations == (QueueDepth("a", 1), Tag("gpu", "true"))
    assert [rejection.reason for rejection in checked.rejected] == ["duplicate", "duplicate"]
    assert "messaging.destination.name='a'" in checked.rejected[0].detail


def test_the_same_key_in_the_next_collection_is_no_duplicate() -> None:
    guard = Guard()
    assert all(guard.check([QueueDepth("a", depth)]).rejected == () for depth in range(3))


def test_attributes_in_another_order_are_the_same_series() -> None:
    one, two = m(app__a=1, app__b=2), m(app__b=2, app__a=1)
    assert series_key(one) == series_key(two)
    assert len(Guard().check([one, two]).observations) == 1


def test_a_name_keeps_its_kind_and_unit_for_life() -> None:
    guard = Guard()
    assert guard.check([m(unit="s")]).rejected == ()
    (rejection,) = guard.check([m(unit="By")]).rejected
    assert rejection.reason == "conflict"
    assert guard.check([m(unit="s", kind="counter")]).rejected[0].reason == "conflict"


def test_the_series_budget_counts_over_the_whole_life() -> None:
    guard = Guard(series_budget=3)
    for round_ in range(5):
        checked = guard.check([m(app__id=round_), Tag("gpu", "true")])
        if round_ < 3:
            assert checked.rejected == ()
        else:
            assert [rejection.reason for rejection in checked.rejected] == ["budget"]
            assert checked.observations == (Tag("gpu", "true"),)
    assert guard.series == 3
    assert guard.check([m(app__id=1)]).rejected == ()


@pytest.mark.parametrize(
    "make", [lambda n: Capacity(f"r{n}", 1), lambda n: QueueDepth(f"t{n}", 1), lambda n: Tag(f"k{n}", "v")]
)
def test_a_heartbeat_holds_32_resources_topics_and_tags(make: Any) -> None:
    checked = Guard().check([make(n) for n in range(40)])
    assert len(checked.observations) == 32
    assert {rejection.reason for rejection in checked.rejected} == {"budget"}


def test_an_endless_collection_is_stopped_and_closed() -> None:
    closed = []

    def endless() -> Iterator[Observation]:
        try:
            for number in itertools.count():
                yield m(app__id=number)
        finally:
            closed.append(True)

    checked = Guard(series_budget=10).check(endless())
    assert len(checked.observations) == 10
    assert Counter(rejection.reason for rejection in checked.rejected) == {"budget": 256, "flood": 1}
    assert closed == [True]


def test_a_collection_that_does_not_let_itself_be_closed_is_left() -> None:
    def stubborn() -> Iterator[object]:
        while True:
            try:
                yield 1
            except GeneratorExit:
                yield 2

    checked = Guard(series_budget=1).check(stubborn())
    assert checked.rejected[-1].reason == "flood"


def test_a_collection_that_raises_leaves_nothing() -> None:
    def halfway() -> Iterator[Observation]:
        yield Capacity("workers", 1)
        raise ConnectionError("gone")

    guard = Guard()
    with pytest.raises(ConnectionError, match="gone"):
        guard.check(halfway())
    assert guard.check([Capacity("workers", 1)]).rejected == ()


def test_a_collector_cannot_change_what_has_passed() -> None:
    attributes = {"app.a": "x"}
    (passed,) = Guard().check([Measurement("app.level", 1, "1", "gauge", attributes)]).observations
    attributes["app.a"] = "y"
    assert isinstance(passed, Measurement)
    assert passed.attributes == {"app.a": "x"}


names = st.one_of(
    st.text(max_size=70),
    st.sampled_from(["workers", "available_slots", "app.a", "app.b_total", "openclaw.x.y", "a.b", "gpu"]),
    st.from_regex(r"[a-z][a-z0-9_.]{0,10}", fullmatch=True),
)
anything = st.one_of(
    names,
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=2**52, max_value=2**70),
    st.floats(),
    st.binary(max_size=5),
    st.builds(Broken),
    st.builds(Number, st.floats()),
    st.lists(st.integers(), max_size=2),
)
units = st.one_of(st.sampled_from(["", "1", "s", "By", "{x}", "By/{x}", "ms"]), anything)
kinds = st.one_of(st.sampled_from(["counter", "gauge", "updowncounter"]), anything)
mappings = st.one_of(st.dictionaries(names, anything, max_size=20), anything)
garbage: st.SearchStrategy[Any] = st.one_of(
    anything,
    st.builds(Capacity, st.one_of(names, anything), anything),
    st.builds(QueueDepth, st.one_of(names, anything), anything, anything),
    st.builds(Uptime, anything),
    st.builds(Tag, st.one_of(names, anything), anything),
    st.builds(Measurement, st.one_of(names, anything), anything, units, kinds, mappings),
    st.builds(ValueError, st.text(max_size=20)),
)


def is_plain_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type] # just looked


def keeps_the_rules(o: Any) -> bool:
    """Say by the text of the contract, and not by the guard's own code, whether an observation is right."""
    if type(o) is Capacity:
        whole = o.resource not in ("workers", "available_slots") or (
            type(o.amount) is int and o.amount < 2**53
        )
        name = re.fullmatch("[a-z][a-z0-9_.]{0,62}", o.resource)
        return bool(name) and is_plain_number(o.amount) and o.amount >= 0 and whole
    if type(o) is QueueDepth:
        age = o.oldest_age is None or (is_plain_number(o.oldest_age) and o.oldest_age >= 0)
        depth = type(o.depth) is int and 0 <= o.depth < 2**53
        return bool(re.fullmatch("[A-Za-z0-9_.:-]{1,64}", o.topic)) and depth and age
    if type(o) is Uptime:
        return is_plain_number(o.seconds) and o.seconds >= 0
    if type(o) is Tag:
        text = f"{o.key}:{o.value}"
        return 1 <= len(text.encode()) <= 128 and not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in text)
    assert type(o) is Measurement
    numbers = is_plain_number(o.value) and (o.kind != "counter" or o.value >= 0)
    if type(o.value) is int:
        numbers = numbers and -(2**63) <= o.value < 2**63
    name = o.name == o.name.lower() and not o.name.startswith("openclaw.") and not o.name.endswith("_total")
    unit = "/" not in o.unit and o.kind in ("counter", "gauge", "updowncounter")
    attributes = len(o.attributes) <= 16 and all(
        type(key) is str and type(value) in (str, bool, int, float) and str(value).isascii() is not None
        for key, value in o.attributes.items()
    )
    return numbers and name and unit and attributes


@settings(max_examples=400, deadline=None)
@given(st.lists(st.lists(garbage, max_size=12), max_size=4))
def test_random_garbage_never_raises_and_what_passes_keeps_the_rules(collections: list[list[Any]]) -> None:
    guard = Guard(series_budget=8)
    seen = set()
    for items in collections:
        checked = guard.check(iter(items))
        assert len(checked.observations) + len(checked.rejected) == len(items)
        assert all(keeps_the_rules(observation) for observation in checked.observations)
        keys = [series_key(observation) for observation in checked.observations]
        assert len(set(keys)) == len(keys)
        seen.update(key for key in keys if key[0] != "tag")
        assert all(rejection.detail.isprintable() for rejection in checked.rejected if rejection.detail)
    assert len(seen) <= 8
