from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_exporter.errors import FieldsError
from openclaw_exporter.wire import headers

COUNT = st.integers(0, 2**53 - 1)


@given(COUNT, COUNT)
def test_a_sequence_survives_the_round_trip(epoch: int, number: int) -> None:
    sequence = headers.Sequence(epoch, number)
    assert headers.Sequence.parse(str(sequence)) == sequence


def test_sequences_order_by_epoch_then_number() -> None:
    texts = ["1700000000000.10", "1700000000000.9", "1700000000001.0"]
    assert [str(each) for each in sorted(map(headers.Sequence.parse, texts))] == [
        "1700000000000.9",
        "1700000000000.10",
        "1700000000001.0",
    ]


@pytest.mark.parametrize(
    "text",
    ["", "1", "1.", ".1", "1.2.3", "-1.0", "1.-1", "+1.0", "01.0", "1.00", "1 .0", "1.0\n", "1_0.0", "1e3.0",
     "٣.0", "9007199254740992.0", "0.9007199254740992", "9" * 5000 + ".0", "0x1.0"],
)  # fmt: skip
def test_a_wrong_sequence_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(FieldsError) as caught:
        headers.Sequence.parse(text)
    assert [problem.field for problem in caught.value.problems] == ["OpenClaw-Sequence"]
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize(("text", "seconds"), [("1", 1), ("60", 60), ("120", 120), ("86400", 86_400)])
def test_an_interval_is_whole_seconds(text: str, seconds: int) -> None:
    assert headers.parse_interval(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "0", "-60", "+60", "60.0", "060", "60s", " 60", "60\n", "86401", "99999", "9" * 5000, "٦٠", "6_0"],
)
def test_a_wrong_interval_is_refused(text: str) -> None:
    with pytest.raises(FieldsError) as caught:
        headers.parse_interval(text)
    assert [problem.field for problem in caught.value.problems] == ["OpenClaw-Interval"]


def test_replay_and_state_have_one_value_each() -> None:
    assert headers.parse_replay(headers.REPLAYED) is True
    assert headers.parse_state(headers.DRAINING) is True


@pytest.mark.parametrize("text", ["", "0", "true", "1 ", "2", "draining"])
def test_a_replay_is_never_guessed(text: str) -> None:
    with pytest.raises(FieldsError, match="OpenClaw-Replay"):
        headers.parse_replay(text)


@pytest.mark.parametrize("text", ["", "up", "Draining", "draining ", "1"])
def test_a_state_is_never_guessed(text: str) -> None:
    with pytest.raises(FieldsError, match="OpenClaw-State"):
        headers.parse_state(text)
