"""What is shown of values and of foreign errors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_exporter.plugin.redaction import (
    MAX_LINE,
    describe_error,
    is_secret_key,
    one_line,
    redact,
    shown,
)

SECRET = "correct-horse-battery"  # noqa: S105 - it guards nothing


@pytest.mark.parametrize(
    "text",
    [
        f"cannot connect to redis://{SECRET}@db:6379/0",
        f"cannot connect to redis://me:{SECRET}@db:6379/0 twice",
        f"rediss://:{SECRET}@[::1]:6379",
        f"Authorization: Bearer {SECRET}",
        f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----",
        f"https://db/?password={SECRET}&x=1",
    ],
)
def test_a_secret_in_a_text_is_hidden(text: str) -> None:
    assert SECRET not in redact(text)
    assert SECRET not in one_line(text)
    assert SECRET not in describe_error(ValueError(text))
    assert SECRET not in shown("url", text)


def test_a_json_web_token_is_hidden() -> None:
    text = "refused eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl, sorry"
    assert redact(text) == "refused ***, sorry"


def test_an_innocent_text_stays() -> None:
    text = "redis://db:6379/0 and me@example.org and https://db/a@b"
    assert redact(text) == text


@pytest.mark.parametrize(
    "name", ["password", "api_key", "token", "client_secret", "redis_password", "dsn", "TOKEN"]
)
def test_the_value_of_a_secret_key_is_never_shown(name: str) -> None:
    assert is_secret_key(name)
    assert shown(name, SECRET) == "a string (hidden)"
    assert shown(name, 5) == "an integer (hidden)"


@pytest.mark.parametrize("name", ["password_file", "token_path", "interval", "key", "tokenizer", "secretary"])
def test_names_of_places_and_other_words_are_no_secrets(name: str) -> None:
    assert not is_secret_key(name)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, "true"),
        (5, "5"),
        (0.5, "0.5"),
        ("x", "'x'"),
        ({"password": SECRET}, "a table of 1"),
        ([SECRET], "a list of 1"),
    ],
)
def test_values_are_shown_as_they_are_written_and_members_are_not(value: object, expected: str) -> None:
    assert shown("interval", value) == expected


def test_long_values_are_cut() -> None:
    assert len(shown("name", "x" * 10_000)) == 80


@given(st.text())
def test_one_line_is_one_bounded_printable_line(text: str) -> None:
    line = one_line(text)
    assert line.isprintable()
    assert len(line) <= MAX_LINE


def test_an_error_whose_text_raises_is_named_by_its_type() -> None:
    class BrokenError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert describe_error(BrokenError()) == "BrokenError"


@pytest.mark.parametrize("raised", [ValueError, SystemExit, KeyboardInterrupt])
def test_an_error_that_cannot_be_told_is_named(raised: type[BaseException]) -> None:
    class SpeechlessError(Exception):
        def __str__(self) -> str:
            raise raised

    assert describe_error(SpeechlessError()) == "SpeechlessError"
