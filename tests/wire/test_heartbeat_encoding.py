"""Strict JSON, and the one canonical encoding of what it says."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest
from wire.reference import EXAMPLE, LIMIT, MISSING, body

from openclaw_exporter.errors import FieldsError, MalformedBodyError
from openclaw_exporter.wire.heartbeat import MAX_BODY_BYTES, build, decode, digest, encode


def refused(raw: bytes) -> list[str]:
    with pytest.raises(FieldsError) as caught:
        decode(raw)
    return [problem.field for problem in caught.value.problems]


MALFORMED: list[tuple[str, bytes, str]] = [
    ("empty", b"", "malformed-json"),
    ("blank", b"  \n", "malformed-json"),
    ("text", b"hello", "malformed-json"),
    ("cut", body()[:-1], "malformed-json"),
    ("trailing", body() + b"x", "malformed-json"),
    ("two", body() + body(), "malformed-json"),
    ("comment", b"/* */" + body(), "malformed-json"),
    ("trailing comma", body()[:-1] + b",}", "malformed-json"),
    ("single quotes", body().replace(b'"', b"'"), "malformed-json"),
    ("bom", b"\xef\xbb\xbf" + body(), "malformed-json"),
    ("utf-16", body().decode().encode("utf-16"), "malformed-json"),
    ("nan", body().replace(b"24", b"NaN"), "malformed-json"),
    ("infinity", body().replace(b"24", b"Infinity"), "malformed-json"),
    ("minus infinity", body().replace(b"24", b"-Infinity"), "malformed-json"),
    ("leading zero", body().replace(b"24", b"024"), "malformed-json"),
    ("plus", body().replace(b"24", b"+24"), "malformed-json"),
    ("hex", body().replace(b"24", b"0x18"), "malformed-json"),
    ("bare point", body().replace(b"24", b"24."), "malformed-json"),
    ("lone surrogate", body().replace(b"gpu:true", b"\\ud800"), "malformed-json"),
    ("raw control", body().replace(b"gpu:true", b"gpu\ntrue"), "malformed-json"),
    ("bad escape", body().replace(b"gpu:true", b"\\x41"), "malformed-json"),
    ("nul", body() + b"\x00", "malformed-json"),
    ("utf-8", body().replace(b"gpu:true", b"gpu\xff"), "malformed-utf8"),
    ("overlong utf-8", body().replace(b"gpu:true", b"\xc0\xaf"), "malformed-utf8"),
    ("surrogate in utf-8", body().replace(b"gpu:true", b"\xed\xa0\x80"), "malformed-utf8"),
    ("utf-8 in a dropped field", body(unknown="@@").replace(b"@@", b"\xff"), "malformed-utf8"),
    ("utf-8 in a dropped name", body(unknown=1).replace(b"unknown", b"\xff"), "malformed-utf8"),
    ("huge", body().replace(b"24", b"1e309"), "malformed-number"),
    ("huge negative", body().replace(b"24", b"-1e309"), "malformed-number"),
    ("400 digits", body().replace(b"24", b"9" * 400), "malformed-number"),
    ("400 digits, negative", body().replace(b"24", b"-" + b"9" * 400), "malformed-number"),
    ("309 digits", body().replace(b"24", b"2" + b"0" * 308), "malformed-number"),
    ("5000 digits", body().replace(b"24", b"9" * 5000), "malformed-number"),
    ("huge, dropped", body(unknown=[{"a": 7777}]).replace(b"7777", b"1e999"), "malformed-number"),
    ("400 digits, dropped", body(unknown=[{"a": 7777}]).replace(b"7777", b"9" * 400), "malformed-number"),
    ("400 digits, shadowed", body().replace(b'"workers"', b'"workers": %s, "workers"' % (b"9" * 400)),
     "malformed-number"),
    ("400 digits, shadowed and dropped", b'{"x": %s, "x": 1}' % (b"9" * 400), "malformed-number"),
    ("deep array", b"[" * 8000 + b"]" * 8000, "malformed-nesting"),
    ("deep object", b'{"a":' * 2700 + b"1" + b"}" * 2700, "malformed-nesting"),
    ("deep, dropped", body(unknown="@@").replace(b'"@@"', b"[" * 8000 + b"]" * 8000), "malformed-nesting"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("raw", "slug"), [case[1:] for case in MALFORMED], ids=[case[0] for case in MALFORMED]
)
def test_what_is_not_strict_json_is_malformed(raw: bytes, slug: str) -> None:
    with pytest.raises(MalformedBodyError) as caught:
        decode(raw)
    assert caught.value.slug == slug
    assert caught.value.status == 400


def test_309_digits_within_the_range_of_doubles_are_no_error() -> None:
    capacity = EXAMPLE["capacity"] | {"big": 10**308}
    assert decode(body(capacity=capacity, unknown=10**308)).capacity["big"] == 1e308


def test_long_digits_in_a_string_are_no_number() -> None:
    assert decode(body(unknown="9" * 400)) == decode(body())


def test_unknown_fields_are_dropped_at_any_depth() -> None:
    extra = {"future": {"deep": [1, 2.5, None, True, {"x": "y"}]}, "constructor": "x", "Tags": []}
    heartbeat = decode(body(**extra))
    assert heartbeat == decode(body())
    assert b"future" not in encode(heartbeat)


def test_of_duplicate_members_the_last_counts() -> None:
    raw = body().replace(b'"version": "1.2.0"', b'"version": 7, "version": "0", "version": "1.2.0"')
    assert decode(raw) == decode(body())
    nested = body().replace(b'"workers": 24', b'"workers": "x", "workers": 1, "workers": 24')
    assert decode(nested) == decode(body())
    assert refused(body()[:-1] + b', "version": 7}') == ["version"]


def test_a_name_written_with_escapes_is_the_same_name() -> None:
    assert decode(body().replace(b'"tags"', b'"t\\u0061gs"')) == decode(body())
    null = body(uptime_seconds=None).replace(b"uptime_seconds", b"uptime\\u005fseconds")
    assert refused(null) == ["uptime_seconds"]


def test_a_null_in_a_text_is_only_text() -> None:
    heartbeat = decode(body(tags=["null"], uptime_seconds=MISSING))
    assert heartbeat.tags == ("null",)
    assert heartbeat.uptime_seconds is None


@pytest.mark.parametrize("fraction", ["", ".0", ".00", ".000"])
def test_a_whole_second_is_one_key_however_it_is_written(fraction: str) -> None:
    heartbeat = decode(body(last_heartbeat=f"2026-02-06T12:34:56{fraction}Z"))
    assert heartbeat.last_heartbeat == "2026-02-06T12:34:56Z"
    assert encode(heartbeat) == encode(decode(body()))


@pytest.mark.parametrize("fraction", [".1", ".10", ".100"])
def test_a_fraction_is_one_key_however_it_is_written(fraction: str) -> None:
    heartbeat = decode(body(last_heartbeat=f"2026-02-06T12:34:56{fraction}Z"))
    assert heartbeat.last_heartbeat == "2026-02-06T12:34:56.100Z"
    assert heartbeat.sent_ms == 1_770_381_296_100


@pytest.mark.parametrize(
    ("spellings", "canonical"),
    [
        (["0", "0.0", "-0.0", "-0", "0e5", "0.000"], b"0"),
        (["80", "80.0", "8e1", "8.0E+1", "800e-1"], b"80"),
        (["0.5", "5e-1", "0.50"], b"0.5"),
        (["9007199254740991", "9007199254740991.0", "9.007199254740991e15"], b"9007199254740991"),
        (["9007199254740992", "9007199254740993", "9007199254740992.0"], b"9007199254740992.0"),
        (["1e22", "10000000000000000000000", "1.0e22"], b"1e22"),
        (["1" + "0" * 300, "1e300"], b"1e300"),
        (["1e-400", "0"], b"0"),
    ],
)
def test_equal_numbers_have_one_encoding(spellings: list[str], canonical: bytes) -> None:
    for spelling in spellings:
        raw = body(capacity=EXAMPLE["capacity"] | {"gpu": 7777}).replace(b"7777", spelling.encode())
        assert b'"gpu":' + canonical + b"," in encode(decode(raw)), spelling


def test_the_canonical_encoding_is_sorted_dense_utf_8() -> None:
    heartbeat = decode(body(tags=["é"], queue_depth={"b": 1, "a": 2, "B": 3}))
    assert (
        encode(heartbeat)
        == (
            '{"capacity":{"available_slots":5,"workers":24},"hostname":"chimera-01.prod",'
            '"last_heartbeat":"2026-02-06T12:34:56Z","node_id":"0f8fad5b-d9cb-469f-a165-70867728950e",'
            '"queue_depth":{"B":3,"a":2,"b":1},"tags":["é"],"uptime_seconds":86400,"version":"1.2.0"}'
        ).encode()
    )
    assert b"uptime" not in encode(decode(body(uptime_seconds=MISSING)))


def test_the_digest_is_that_of_the_canonical_encoding() -> None:
    heartbeat = decode(body())
    assert digest(heartbeat) == digest(encode(heartbeat)) == hashlib.sha256(encode(heartbeat)).digest()


@pytest.mark.parametrize("filling", ['"', "\\", "é", "日", "\U0001f980", "x", "/"])
def test_the_largest_heartbeat_fits_a_request(filling: str) -> None:
    tag = filling * (128 // len(filling.encode()))
    capacity = {"workers": LIMIT, "available_slots": LIMIT}
    capacity |= {f"r{index:02d}.{'x' * 59}": 2.2250738585072014e-308 for index in range(30)}
    heartbeat = build(
        node_id=EXAMPLE["node_id"],
        hostname=".".join(["x" * 63] * 3 + ["y" * 61]),
        version=filling * 64,
        capacity=capacity,
        queue_depth={f"{index:02d}{'t' * 62}": LIMIT for index in range(32)},
        last_heartbeat="2026-02-06T12:34:56.789Z",
        tags=[tag] * 32,
        uptime_seconds=LIMIT,
    )
    canonical = encode(heartbeat)
    assert 9_000 < len(canonical) <= MAX_BODY_BYTES
    assert decode(canonical) == heartbeat


def test_the_digest_does_not_depend_on_the_process() -> None:
    script = (
        "import sys; from openclaw_exporter.wire.heartbeat import decode, digest;"
        "print(digest(decode(sys.stdin.buffer.read())).hex())"
    )
    for seed in ("1", "2"):
        environment = {"PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, input=body(), env=environment, capture_output=True, check=True)
        assert done.stdout.decode().strip() == digest(decode(body())).hex()
