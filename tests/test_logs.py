from __future__ import annotations

import io
import json
import logging
from typing import TYPE_CHECKING

import pytest

from openclaw_exporter.logs import MAX_CAUSES, Episodes, JsonFormatter, TextFormatter, set_up_logging

if TYPE_CHECKING:
    from collections.abc import Iterator


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def root_logging() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], level = before
    root.setLevel(level)


def test_a_file_gets_json_and_a_terminal_gets_text(root_logging: None) -> None:
    file, terminal = io.StringIO(), Terminal()
    set_up_logging(stream=file)
    logging.getLogger("openclaw_exporter.agent").warning("late by %d s", 3, extra={"node_id": "n1"})
    set_up_logging(stream=terminal)
    logging.getLogger("openclaw_exporter.agent").warning("late by %d s", 3)
    line = json.loads(file.getvalue())
    assert line["message"] == "late by 3 s"
    assert line["level"] == "warning"
    assert line["node_id"] == "n1"
    assert line["time"].endswith("Z")
    assert terminal.getvalue().endswith("WARNING agent: late by 3 s\n")


def test_a_json_line_stays_one_line_with_an_exception() -> None:
    try:
        int("two\nlines")
    except ValueError as error:
        info = (type(error), error, error.__traceback__)
    record = logging.LogRecord("x", logging.ERROR, "f", 1, "broke", None, info)
    text = JsonFormatter().format(record)
    assert "\n" not in text
    assert "ValueError" in json.loads(text)["exception"]


def test_a_foreign_logger_keeps_its_name() -> None:
    record = logging.LogRecord("uvicorn.error", logging.INFO, "f", 1, "started", None, None)
    assert TextFormatter().format(record).endswith("INFO    uvicorn.error: started")


def test_an_episode_is_logged_when_it_begins_with_each_further_cause_and_when_it_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    episodes = Episodes(logging.getLogger("episode"))
    logged = [
        episodes.begin("publish", "timeout", "no answer"),
        episodes.begin("publish", "timeout", "no answer"),
        episodes.begin("publish", "refused", "connection refused"),
        episodes.begin("publish", "timeout", "no answer"),
        episodes.begin("publish", "refused", "connection refused"),
        episodes.holds("publish"),
        episodes.end("publish", "publishing again"),
        episodes.end("publish", "publishing again"),
        episodes.holds("publish"),
    ]
    assert logged == [True, False, True, False, False, True, True, False, False]
    assert [record.message for record in caplog.records] == [
        "no answer",
        "connection refused",
        "publishing again (after 0 s)",
    ]


def test_an_ended_episode_begins_anew(caplog: pytest.LogCaptureFixture) -> None:
    episodes = Episodes(logging.getLogger("episode"))
    assert episodes.begin("publish", "timeout", "no answer")
    episodes.end("publish", "publishing again")
    assert episodes.begin("publish", "timeout", "no answer")


def test_causes_without_end_are_no_lines_without_end(caplog: pytest.LogCaptureFixture) -> None:
    episodes = Episodes(logging.getLogger("episode"))
    logged = [episodes.begin("publish", str(number), "odd") for number in range(3 * MAX_CAUSES)]
    assert sum(logged) == len(caplog.records) == MAX_CAUSES


def test_two_conditions_are_told_apart(caplog: pytest.LogCaptureFixture) -> None:
    episodes = Episodes(logging.getLogger("episode"))
    assert episodes.begin("a", "x", "a is down")
    assert episodes.begin("b", "x", "b is down")
    assert episodes.end("a", "a is back")
    assert episodes.holds("b")
