"""Every rule of the heartbeat, case by case."""

from __future__ import annotations

import json
from typing import Any

import pytest
from wire.reference import EXAMPLE, LIMIT, MISSING, body, wrong_fields

from openclaw_exporter.errors import FieldsError
from openclaw_exporter.wire.heartbeat import Heartbeat, build, decode

FULL = {f"r{index:02d}.{'x' * 59}": 0.1 for index in range(30)}


def fields_of(error: FieldsError) -> list[str]:
    return [problem.field for problem in error.problems]


def refused(raw: bytes) -> list[str]:
    with pytest.raises(FieldsError) as caught:
        decode(raw)
    return fields_of(caught.value)


def test_the_example_of_the_source_is_read() -> None:
    heartbeat = decode(body())
    assert heartbeat == Heartbeat(**(EXAMPLE | {"tags": tuple(EXAMPLE["tags"])}))
    assert heartbeat.sent_ms == 1_770_381_296_000


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_every_kind_of_buffer_is_read(kind: type[bytes]) -> None:
    assert decode(kind(body())) == decode(body())
    # The slow way reads them too.
    assert decode(kind(body(unknown=1))) == decode(body())
    without_uptime = body(uptime_seconds=MISSING)
    assert decode(kind(without_uptime)).uptime_seconds is None


def test_the_sources_short_node_id_is_refused() -> None:
    assert refused(body(node_id="uuid-1234")) == ["node_id"]


ACCEPTED: list[tuple[str, Any]] = [
    ("hostname", "a"),
    ("hostname", "A1-b.C2"),
    ("hostname", "1.2.3.4"),
    ("hostname", "x" * 63),
    ("hostname", ".".join(["x" * 63] * 3 + ["y" * 61])),
    ("version", "1"),
    ("version", "v" * 64),
    ("version", '"\\quoted\\"'),
    ("version", "é" * 64),
    ("version", "2.0 β \U0001f980"),
    ("capacity", {"workers": 0, "available_slots": LIMIT}),
    ("capacity", {"workers": 1, "available_slots": 1, "gpu.memory_gib": 79.5, "a": 0.5}),
    ("capacity", {"workers": 1, "available_slots": 1, **FULL}),
    ("queue_depth", {}),
    ("queue_depth", {"A-z_0.9:x": 0, "t" * 64: LIMIT}),
    ("queue_depth", {f"topic-{index}": index for index in range(32)}),
    ("last_heartbeat", "2024-02-29T23:59:59.999Z"),
    ("tags", []),
    ("tags", ["x" * 128] * 32),
    ("tags", ["é" * 64, "日" * 42, 'quote"', "back\\slash", " "]),
    ("uptime_seconds", 0),
    ("uptime_seconds", LIMIT),
]


@pytest.mark.parametrize(("field", "value"), ACCEPTED)
def test_what_keeps_the_rules_is_accepted_unchanged(field: str, value: Any) -> None:
    heartbeat = decode(body(**{field: value}))
    assert getattr(heartbeat, field) == (tuple(value) if field == "tags" else value)
    assert not wrong_fields(EXAMPLE | {field: value})


REFUSED: list[tuple[str, Any, list[str]]] = [
    ("node_id", "0F8FAD5B-D9CB-469F-A165-70867728950E", ["node_id"]),
    ("node_id", "0f8fad5bd9cb469fa16570867728950e", ["node_id"]),
    ("node_id", "{0f8fad5b-d9cb-469f-a165-70867728950e}", ["node_id"]),
    ("node_id", "urn:uuid:0f8fad5b-d9cb-469f-a165-70867728950e", ["node_id"]),
    ("node_id", "0f8fad5b-d9cb-469f-a165-70867728950e\n", ["node_id"]),
    ("node_id", "0f8fad5b-d9cb-469f-a165-7086772895", ["node_id"]),
    ("node_id", "0f8fad5b-d9cb-469f-a165-70867728950g", ["node_id"]),
    ("node_id", "0f8fad5b-d9cb-469f-a165-70867728950\u0665", ["node_id"]),
    ("node_id", "", ["node_id"]),
    ("node_id", 5, ["node_id"]),
    ("node_id", None, ["node_id"]),
    ("node_id", f"{EXAMPLE['node_id']} host", ["node_id"]),
    ("hostname", "", ["hostname"]),
    ("hostname", ".", ["hostname"]),
    ("hostname", "a.", ["hostname"]),
    ("hostname", ".a", ["hostname"]),
    ("hostname", "a..b", ["hostname"]),
    ("hostname", "-a", ["hostname"]),
    ("hostname", "a-", ["hostname"]),
    ("hostname", "a_b", ["hostname"]),
    ("hostname", "a b", ["hostname"]),
    ("hostname", "a\n", ["hostname"]),
    ("hostname", "é", ["hostname"]),
    ("hostname", "x" * 64, ["hostname"]),
    ("hostname", ".".join(["x" * 63] * 3 + ["y" * 62]), ["hostname"]),
    ("hostname", ["a"], ["hostname"]),
    ("version", "", ["version"]),
    ("version", "v" * 65, ["version"]),
    ("version", 1.2, ["version"]),
    *[("version", f"1{character}2", ["version"]) for character in "\x00\t\n\x1f\x7f\x80\x9f\u2028\u2029"],
    ("capacity", [], ["capacity"]),
    ("capacity", None, ["capacity"]),
    ("capacity", {}, ["capacity.workers", "capacity.available_slots"]),
    ("capacity", {"workers": 1}, ["capacity.available_slots"]),
    ("capacity", {"workers": 1.0, "available_slots": 1}, ["capacity.workers"]),
    ("capacity", {"workers": 1, "available_slots": 0.5}, ["capacity.available_slots"]),
    ("capacity", {"workers": True, "available_slots": 1}, ["capacity.workers"]),
    ("capacity", {"workers": "1", "available_slots": 1}, ["capacity.workers"]),
    ("capacity", {"workers": None, "available_slots": 1}, ["capacity.workers"]),
    ("capacity", {"workers": -1, "available_slots": 1}, ["capacity.workers"]),
    ("capacity", {"workers": LIMIT + 1, "available_slots": 1}, ["capacity.workers"]),
    ("capacity", {"workers": 1, "available_slots": 1, "gpu": -0.5}, ["capacity.gpu"]),
    ("capacity", {"workers": 1, "available_slots": 1, "gpu": -1}, ["capacity.gpu"]),
    ("capacity", {"workers": 1, "available_slots": 1, "gpu": "1"}, ["capacity.gpu"]),
    ("capacity", {"workers": 1, "available_slots": 1, "gpu": True}, ["capacity.gpu"]),
    ("capacity", {"workers": 1, "available_slots": 1, "gpu": {}}, ["capacity.gpu"]),
    *[("capacity", {"workers": 1, "available_slots": 1, name: 1}, ["capacity"])
      for name in ("", "Gpu", "1gpu", "gpu-mem", "gpu mem", "_g", ".g", "g" * 64, "gé", "gpu\n", "g\x00")],
    ("capacity", {"workers": 1, "available_slots": 1, **FULL, "one.more": 1}, ["capacity"]),
    ("queue_depth", [], ["queue_depth"]),
    ("queue_depth", {"": 1}, ["queue_depth"]),
    ("queue_depth", {"t" * 65: 1}, ["queue_depth"]),
    ("queue_depth", {"a b": 1}, ["queue_depth"]),
    ("queue_depth", {"a\n": 1}, ["queue_depth"]),
    ("queue_depth", {"a/b": 1}, ["queue_depth"]),
    ("queue_depth", {"é": 1}, ["queue_depth"]),
    ("queue_depth", {"a": -1}, ["queue_depth.a"]),
    ("queue_depth", {"a": 1.0}, ["queue_depth.a"]),
    ("queue_depth", {"a": False}, ["queue_depth.a"]),
    ("queue_depth", {"a": "1"}, ["queue_depth.a"]),
    ("queue_depth", {"a": LIMIT + 1}, ["queue_depth.a"]),
    ("queue_depth", {f"t{index}": 1 for index in range(33)}, ["queue_depth"]),
    ("last_heartbeat", "2026-02-06T12:34:56z", ["last_heartbeat"]),
    ("last_heartbeat", "2026-02-30T12:34:56Z", ["last_heartbeat"]),
    ("last_heartbeat", "2026-02-06T12:34:60Z", ["last_heartbeat"]),
    ("last_heartbeat", "2026-02-06T12:34:56Z\n", ["last_heartbeat"]),
    ("last_heartbeat", "2026-02-06T12:34:56.1234Z", ["last_heartbeat"]),
    ("last_heartbeat", 1_770_381_296, ["last_heartbeat"]),
    ("tags", {}, ["tags"]),
    ("tags", "region:x", ["tags"]),
    ("tags", ["x"] * 33, ["tags"]),
    ("tags", ["ok", ""], ["tags[1]"]),
    ("tags", ["x" * 129], ["tags[0]"]),
    ("tags", ["é" * 65], ["tags[0]"]),
    ("tags", ["日" * 43], ["tags[0]"]),
    ("tags", [1, None, "ok", ["x"]], ["tags[0]", "tags[1]", "tags[3]"]),
    *[("tags", [f"a{character}"], ["tags[0]"]) for character in "\x00\t\r\n\x1b\x7f\x85\x9f\u2028\u2029"],
    ("uptime_seconds", None, ["uptime_seconds"]),
    ("uptime_seconds", 1.0, ["uptime_seconds"]),
    ("uptime_seconds", 1e2, ["uptime_seconds"]),
    ("uptime_seconds", -1, ["uptime_seconds"]),
    ("uptime_seconds", "1", ["uptime_seconds"]),
    ("uptime_seconds", True, ["uptime_seconds"]),
    ("uptime_seconds", LIMIT + 1, ["uptime_seconds"]),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value", "named"), REFUSED)
def test_what_breaks_a_rule_is_named_and_not_repeated(field: str, value: Any, named: list[str]) -> None:
    assert wrong_fields(EXAMPLE | {field: value}) == {field}
    with pytest.raises(FieldsError) as caught:
        decode(body(**{field: value}))
    assert fields_of(caught.value) == named
    for problem in caught.value.problems:
        assert problem.message.isascii()
        assert problem.message.isprintable()
        assert len(problem.message) < 160


@pytest.mark.parametrize("field", [name for name in EXAMPLE if name != "uptime_seconds"])
def test_every_field_but_the_uptime_is_required(field: str) -> None:
    assert refused(body(**{field: MISSING})) == [field]


def test_everything_that_is_wrong_is_named_at_once() -> None:
    assert refused(b"{}") == [name for name in EXAMPLE if name != "uptime_seconds"]
    everything = dict.fromkeys(EXAMPLE, False)
    assert refused(json.dumps(everything).encode()) == list(EXAMPLE)


def test_a_flood_of_wrong_entries_has_a_short_answer() -> None:
    with pytest.raises(FieldsError) as caught:
        decode(body(tags=[1] * 8000, queue_depth={f"t{index}": -1 for index in range(2000)}))
    assert len(caught.value.problems) == 2 + 32 + 32


@pytest.mark.parametrize("raw", [b"[]", b"null", b"1", b'"x"', b"true", b" [{}] "])
def test_json_that_is_no_object_is_a_wrong_field(raw: bytes) -> None:
    assert refused(raw) == ["$"]


def test_a_publisher_gets_the_same_checks() -> None:
    with pytest.raises(FieldsError) as caught:
        build(
            node_id="x",
            hostname="",
            version="\ud800",
            capacity={"workers": 1.5, "available_slots": 1, "gpu": float("nan"), "cpu": float("inf"), "X": 1},
            queue_depth={"a": -1},
            last_heartbeat="now",
            tags=["\udfff"],
            uptime_seconds=-1,
        )
    assert fields_of(caught.value) == [
        "node_id", "hostname", "version", "capacity.workers", "capacity.gpu", "capacity.cpu", "capacity",
        "queue_depth.a", "last_heartbeat", "tags[0]", "uptime_seconds",
    ]  # fmt: skip


def test_a_publishers_mistaken_types_are_named() -> None:
    arguments = EXAMPLE | {"capacity": {"workers": 1, "available_slots": 1, 5: 1}, "tags": "gpu:true"}
    with pytest.raises(FieldsError) as caught:
        build(**arguments | {"version": object(), "queue_depth": {None: 1}})
    assert fields_of(caught.value) == ["version", "capacity", "queue_depth", "tags"]


def test_a_heartbeat_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        decode(body()).version = "2"  # type: ignore[misc]
