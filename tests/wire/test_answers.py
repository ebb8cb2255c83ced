from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_exporter.wire.answers import Recorded, encode_recorded, read_epoch, read_interval


def test_the_answer_has_the_members_of_the_contract() -> None:
    body = encode_recorded(Recorded("recorded", "2026-02-06T12:36:56Z", 60))
    assert json.loads(body) == {
        "result": "recorded",
        "expires_at": "2026-02-06T12:36:56Z",
        "interval_seconds": 60,
    }
    assert read_interval(body) == 60


@pytest.mark.parametrize(
    "body",
    [b"", b"OK", b"[]", b"null", b"{}", b"60", b"\xff", b'{"interval_seconds": "60"}', b"[" * 100_000,
     b'{"interval_seconds": 60.0}', b'{"interval_seconds": true}', b'{"interval_seconds": 0}',
     b'{"interval_seconds": -1}', b'{"interval_seconds": 1e999}', b'{"interval_seconds": 9007199254740992}'],
)  # fmt: skip
def test_another_receivers_body_is_no_error(body: bytes) -> None:
    assert read_interval(body) is None


def test_the_epoch_of_a_conflict_is_read() -> None:
    assert read_epoch(b'{"type": "urn:x", "status": 409, "epoch": 1700000000000}') == 1_700_000_000_000
    assert read_epoch(b'{"epoch": 0}') == 0
    assert read_epoch(b'{"epoch": "1"}') is None


@given(st.binary())
def test_no_body_makes_the_readers_raise(body: bytes) -> None:
    assert read_interval(body) is None or body.strip().startswith(b"{")
    assert read_epoch(body) is None or body.strip().startswith(b"{")
