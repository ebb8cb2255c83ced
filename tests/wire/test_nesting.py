"""The depth of JSON is limited by us, not by the parser of this version of Python."""

from __future__ import annotations

import pytest
from wire.reference import body

from openclaw_exporter.errors import MalformedBodyError
from openclaw_exporter.wire.heartbeat import decode
from openclaw_exporter.wire.nesting import MAX_DEPTH, is_too_deep
from openclaw_exporter.wire.tokens.compact import read_object


def nested(depth: int) -> bytes:
    return b'{"a":[' * (depth // 2) + b"[" * (depth % 2) + b"]" * (depth % 2) + b"]}" * (depth // 2)


@pytest.mark.parametrize("depth", [1, MAX_DEPTH - 1, MAX_DEPTH])
def test_what_is_just_deep_enough_passes(depth: int) -> None:
    assert not is_too_deep(nested(depth))


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, MAX_DEPTH + 2, 4000])
def test_one_more_is_too_deep(depth: int) -> None:
    assert is_too_deep(nested(depth))
    assert is_too_deep(bytearray(nested(depth)))


@pytest.mark.parametrize(
    "text",
    [
        b"[" + b"[]," * 5000 + b"[]]",
        b'["' + b"[{" * 500 + b'"]',
        rb'["\"' + b"[" * 500 + rb'\\"]',
        b'"' + b"[" * 500,
    ],
    ids=["beside one another", "in a string", "behind an escaped quote", "in a string without an end"],
)
def test_brackets_that_do_not_nest_do_not_count(text: bytes) -> None:
    assert not is_too_deep(text)


def test_a_heartbeat_may_drop_what_nests_as_deep_as_allowed() -> None:
    within = nested(MAX_DEPTH - 1)
    assert decode(body(unknown="@@").replace(b'"@@"', within)) == decode(body())
    for shape in (bytes, bytearray, memoryview):
        with pytest.raises(MalformedBodyError) as caught:
            decode(shape(body(unknown="@@").replace(b'"@@"', nested(MAX_DEPTH))))
        assert caught.value.slug == "malformed-nesting"


def test_a_tokens_parts_keep_to_the_same_depth() -> None:
    assert read_object(b'{"x":' + nested(MAX_DEPTH - 1) + b"}")["x"]
    with pytest.raises(ValueError, match="nested too deep"):
        read_object(b'{"x":' + nested(MAX_DEPTH) + b"}")
