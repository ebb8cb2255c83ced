from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_exporter.wire.timestamps import format_ms, parse_ms

YEAR_1 = -62_135_596_800_000
YEAR_10000 = 253_402_300_800_000


@given(st.integers(YEAR_1, YEAR_10000 - 1))
def test_every_millisecond_survives_the_round_trip(ms: int) -> None:
    assert parse_ms(format_ms(ms)) == ms


@given(st.datetimes(timezones=st.just(UTC)))
def test_parsing_agrees_with_the_standard_library(moment: datetime) -> None:
    moment = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    text = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    since_epoch = moment - datetime(1970, 1, 1, tzinfo=UTC)
    assert parse_ms(text) == since_epoch // timedelta(milliseconds=1)


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1, "1970-01-01T00:00:00.001Z"),
        (120, "1970-01-01T00:00:00.120Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (1_770_381_296_000, "2026-02-06T12:34:56Z"),
        (951_782_400_000, "2000-02-29T00:00:00Z"),
        (YEAR_1, "0001-01-01T00:00:00Z"),
        (YEAR_10000 - 1, "9999-12-31T23:59:59.999Z"),
    ],
)
def test_a_time_has_one_normal_text(ms: int, text: str) -> None:
    assert format_ms(ms) == text
    assert parse_ms(text) == ms


@pytest.mark.parametrize("fraction", ["", ".0", ".00", ".000"])
def test_zero_fractions_are_the_same_time(fraction: str) -> None:
    assert format_ms(parse_ms(f"2026-02-06T12:34:56{fraction}Z")) == "2026-02-06T12:34:56Z"


@pytest.mark.parametrize(("fraction", "ms"), [(".1", 100), (".12", 120), (".123", 123), (".01", 10)])
def test_fractions_are_read_by_place(fraction: str, ms: int) -> None:
    assert parse_ms(f"1970-01-01T00:00:00{fraction}Z") == ms


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-02-06",
        "2026-02-06T12:34Z",
        "2026-02-06T12:34:56",
        "2026-02-06T12:34:56z",
        "2026-02-06t12:34:56Z",
        "2026-02-06 12:34:56Z",
        "2026-02-06T12:34:56+00:00",
        "2026-02-06T12:34:56-00:00",
        "2026-02-06T12:34:56.Z",
        "2026-02-06T12:34:56.1234Z",
        "2026-02-06T12:34:56,5Z",
        "2026-02-06T12:34:60Z",
        "2016-12-31T23:59:60Z",
        "2026-02-06T24:00:00Z",
        "2026-02-06T12:60:00Z",
        "2026-02-29T00:00:00Z",
        "1900-02-29T00:00:00Z",
        "2026-04-31T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-00-01T00:00:00Z",
        "2026-01-00T00:00:00Z",
        "2026-01-32T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "10000-01-01T00:00:00Z",
        "-2026-01-01T00:00:00Z",
        "20260206T123456Z",
        "2026-W06-5T12:34:56Z",
        "2026-02-06T12:34:56Z\n",
        " 2026-02-06T12:34:56Z",
        "٢٠٢٦-02-06T12:34:56Z",
        "2026-02-06T12:34:56.٣Z",
    ],
)
def test_any_other_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"a time is written|the calendar has no such day"):
        parse_ms(text)


@pytest.mark.parametrize("ms", [YEAR_1 - 1, YEAR_10000, 10**30, -(10**30)])
def test_a_time_that_rfc_3339_cannot_write_is_refused(ms: int) -> None:
    with pytest.raises(ValueError, match="between the years 1 and 9999"):
        format_ms(ms)
