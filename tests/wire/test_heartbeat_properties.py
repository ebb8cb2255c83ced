"""What holds for every heartbeat and every body, searched by Hypothesis."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wire.reference import EXAMPLE, LIMIT, wrong_fields

from openclaw_exporter.errors import FieldsError, MalformedBodyError
from openclaw_exporter.wire.heartbeat import (
    MAX_BODY_BYTES,
    Heartbeat,
    _decode_slowly,
    build,
    decode,
    digest,
    encode,
)

if TYPE_CHECKING:
    import random

counts = st.integers(0, LIMIT)
amounts = st.one_of(counts, st.floats(0, allow_infinity=False, allow_nan=False), st.integers(0, 10**300))
texts = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1)
labels = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?", fullmatch=True)
times = st.from_regex(
    r"[12][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])T([01][0-9]|2[0-3])(:[0-5][0-9]){2}(\.[0-9]{1,3})?Z",
    fullmatch=True,
)
capacities = st.builds(
    lambda further, needed: further | needed,
    st.dictionaries(st.from_regex(r"[a-z][a-z0-9_.]{0,62}", fullmatch=True), amounts, max_size=6),
    st.fixed_dictionaries({"workers": counts, "available_slots": counts}),
)
heartbeats = st.fixed_dictionaries(
    {
        "node_id": st.uuids().map(str),
        "hostname": st.lists(labels, min_size=1, max_size=3).map(".".join),
        "version": texts.filter(lambda text: len(text) <= 64),
        "capacity": capacities,
        "queue_depth": st.dictionaries(
            st.from_regex(r"[A-Za-z0-9_.:-]{1,64}", fullmatch=True), counts, max_size=6
        ),
        "last_heartbeat": times,
        "tags": st.lists(texts.filter(lambda text: len(text.encode()) <= 128), max_size=6),
    },
    optional={"uptime_seconds": counts},
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**64), 2**64),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
    ),
    max_leaves=8,
)


def to_body(members: Any) -> bytes:
    return json.dumps(members, ensure_ascii=False).encode()


@given(heartbeats)
def test_what_is_built_survives_the_round_trip(members: dict[str, Any]) -> None:
    heartbeat = build(**members)
    canonical = encode(heartbeat)
    assert decode(canonical) == heartbeat
    assert encode(decode(canonical)) == canonical
    assert decode(to_body(members)) == heartbeat
    assert len(canonical) <= MAX_BODY_BYTES


@given(heartbeats, st.randoms(use_true_random=False), st.dictionaries(texts, values, max_size=3))
def test_the_digest_does_not_see_how_the_body_is_written(
    members: dict[str, Any], shuffler: random.Random, unknown: dict[str, Any]
) -> None:
    pairs = [(name, value) for name, value in unknown.items() if name not in EXAMPLE]
    # A shadowed duplicate of any type goes in front of the member that counts.
    shadows = [
        (name, shuffler.choice([None, 0, "x", [], {"a": 1}])) for name in members if shuffler.random() < 0.3
    ]
    shuffled = list(members.items())
    shuffler.shuffle(shuffled)
    text = ",\n ".join(
        f"{json.dumps(name)} : {json.dumps(value, ensure_ascii=shuffler.random() < 0.5, indent=1)}"
        for name, value in [*shadows, *pairs, *shuffled]
    )
    assert digest(decode(f"\t{{{text}}}\r\n".encode())) == digest(build(**members))


@settings(max_examples=300)
@given(
    heartbeats,
    st.dictionaries(st.sampled_from(list(EXAMPLE)), values),
    st.sets(st.sampled_from(list(EXAMPLE))),
)
def test_exactly_what_the_reference_refuses_is_refused(
    members: dict[str, Any], replaced: dict[str, Any], left_out: set[str]
) -> None:
    members = {name: value for name, value in (members | replaced).items() if name not in left_out}
    wrong = wrong_fields(members)
    if not wrong:
        heartbeat = decode(to_body(members))
        assert not wrong_fields(json.loads(encode(heartbeat)))
        return
    with pytest.raises(FieldsError) as caught:
        decode(to_body(members))
    assert {problem.field.partition(".")[0].partition("[")[0] for problem in caught.value.problems} == wrong


@given(st.floats(0, allow_infinity=False, allow_nan=False))
def test_no_number_is_longer_than_those_of_the_largest_heartbeat(amount: float) -> None:
    heartbeat = build(**EXAMPLE | {"capacity": EXAMPLE["capacity"] | {"gpu": amount}})
    without = build(**EXAMPLE | {"capacity": EXAMPLE["capacity"] | {"gpu": 0}})
    assert len(encode(heartbeat)) - len(encode(without)) + 1 <= len("2.2250738585072014e-308")


near_names = st.text(st.sampled_from("aZ09_.:-\n é\x00"), max_size=4)
near_texts = st.text(st.sampled_from('aZ09-. \n\x7f\x85\u2028é"\\'), max_size=5)
near_numbers = st.sampled_from(
    [0, 1, -1, 0.0, 1.0, 0.5, -0.5, LIMIT, LIMIT + 1, 1e300, 10**300, True, None, "1"]
)


@settings(max_examples=300)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "hostname": near_texts,
            "version": near_texts,
            "capacity": st.builds(
                lambda further, needed: further | needed,
                st.dictionaries(near_names, near_numbers, max_size=3),
                st.sampled_from(
                    [{"workers": 1, "available_slots": 0}, {"workers": 1.0, "available_slots": 0}, {}]
                ),
            ),
            "queue_depth": st.dictionaries(near_names, near_numbers, max_size=3),
            "tags": st.lists(near_texts, max_size=3),
            "uptime_seconds": near_numbers,
            "last_heartbeat": st.builds(
                "{}-{:02d}-{:02d}T{:02d}:{:02d}:{:02d}{}".format,
                st.sampled_from(["2024", "2026", "0000", "1900", "9999"]),
                st.integers(0, 13),
                st.integers(0, 32),
                st.integers(0, 24),
                st.integers(0, 60),
                st.integers(0, 60),
                st.sampled_from(
                    ["Z", ".0Z", ".000Z", ".5Z", ".123Z", ".1234Z", "z", "", "+00:00", "Z\n", ".Z"]
                ),
            ),
        },
    )
)
@pytest.mark.parametrize("before", [None, decode(to_body(EXAMPLE))])
def test_near_the_edges_of_the_rules_too(before: Heartbeat | None, replaced: dict[str, Any]) -> None:
    wrong = wrong_fields(EXAMPLE | replaced)
    raw = to_body(EXAMPLE | replaced)
    if wrong:
        with pytest.raises(FieldsError) as caught:
            decode(raw, before)
        assert {
            problem.field.partition(".")[0].partition("[")[0] for problem in caught.value.problems
        } == wrong
    else:
        # The quick way and the slow way make the same heartbeat.
        assert encode(decode(raw, before)) == encode(_decode_slowly(raw))


def check_outcome(raw: bytes, before: Heartbeat | None = None) -> None:
    try:
        heartbeat = decode(raw, before)
    except (MalformedBodyError, FieldsError):
        return
    assert not wrong_fields(json.loads(encode(heartbeat)))
    assert encode(heartbeat) == encode(_decode_slowly(raw))


@given(st.binary(max_size=200))
def test_random_bytes_raise_nothing_else(raw: bytes) -> None:
    check_outcome(raw)


@given(values)
def test_random_json_raises_nothing_else(value: Any) -> None:
    check_outcome(to_body(value))


PIECES = [
    b'"', b"{", b"}", b"[", b"]", b",", b":", b"null", b"true", b"NaN", b"1e999", b"-", b"0", b".5", b"Z",
    b"\\u0000", b"\\ud800", b"\xff", b"\xe2\x80\xa8", b"\x00", b"\n", b" ", b"9" * 400,
    b'"workers":1,', b'"tags":[],',
]  # fmt: skip


@settings(max_examples=1000)
@given(
    heartbeats,
    st.lists(
        st.tuples(
            st.floats(0, 1), st.integers(0, 12), st.one_of(st.sampled_from(PIECES), st.binary(max_size=3))
        ),
        min_size=1,
        max_size=4,
    ),
)
def test_mutated_bodies_raise_nothing_else(
    members: dict[str, Any], edits: list[tuple[float, int, bytes]]
) -> None:
    raw = to_body(members)
    before = decode(raw)
    for where, cut, piece in edits:
        start = int(where * len(raw))
        raw = raw[:start] + piece + raw[start + cut :]
    check_outcome(raw)
    check_outcome(raw, before)
