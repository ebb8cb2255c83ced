"""RFC 3339 times as the contract writes them: UTC, `Z`, at most milliseconds."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final

DATE_TIME: Final = (
    r"[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"
)
"""Regular expression of date and time without fraction and zone; the calendar is checked apart. A leap
second (`:60`) is left out: RFC 3339 allows it, but Unix time has no number for it."""

_SECONDS: Final = len("2026-02-06T12:34:56")
_is_date_time = re.compile(DATE_TIME).fullmatch
_is_fraction = re.compile(r"\.(?!000)[0-9]{3}Z").fullmatch
_TIMESTAMP = re.compile(rf"({DATE_TIME})(?:\.([0-9]{{1,3}}))?Z")
_UNIX_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - every time here is UTC, and naive arithmetic is quicker
_MILLISECOND = timedelta(milliseconds=1)


def format_ms(ms: int) -> str:
    """Return a time as its one normal text: no fraction on a whole second, three digits otherwise.

    Args:
        ms: Unix milliseconds.

    Raises:
        ValueError: The time is not between the years 1 and 9999.
    """
    seconds, fraction = divmod(ms, 1000)
    return f"{_text_of(seconds)}.{fraction:03d}Z" if fraction else f"{_text_of(seconds)}Z"


def parse_ms(text: str) -> int:
    """Return the Unix milliseconds of an RFC 3339 time in UTC with `Z` and at most three fraction digits.

    Raises:
        ValueError: The text has another form, or the calendar has no such day.
    """
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        raise ValueError("a time is written YYYY-MM-DDThh:mm:ss[.mmm]Z")
    seconds, fraction = match.groups()
    return ms_of(seconds) + (int(fraction.ljust(3, "0")) if fraction else 0)


def is_normal(text: str) -> bool:
    """Tell whether a text is a time, and as `format_ms` writes it."""
    end = text[_SECONDS:]
    if end != "Z" and not _is_fraction(end):
        return False
    try:
        ms_of(text[:_SECONDS])
    except ValueError:
        return False
    return True


# A whole fleet beats within the same few seconds.
@lru_cache(maxsize=2048)
def ms_of(seconds: str) -> int:
    """Return the Unix milliseconds of a time without fraction and zone.

    Raises:
        ValueError: It does not match `DATE_TIME`, or the calendar has no such day.
    """
    if not _is_date_time(seconds):
        raise ValueError("a time is written YYYY-MM-DDThh:mm:ss[.mmm]Z")
    try:
        moment = datetime.fromisoformat(seconds)
    except ValueError:
        raise ValueError("the calendar has no such day") from None
    return (moment - _UNIX_EPOCH) // _MILLISECOND


@lru_cache(maxsize=2048)
def _text_of(seconds: int) -> str:
    try:
        return (_UNIX_EPOCH + timedelta(seconds=seconds)).isoformat()
    except OverflowError:
        raise ValueError("a time lies between the years 1 and 9999") from None
