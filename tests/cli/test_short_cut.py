"""The agent's way past click says the same as click's own."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from openclaw_exporter.cli import agent_process
from openclaw_exporter.cli.app import app
from openclaw_exporter.cli.short_cut import agent_arguments, run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PARTS = (
    ("--config", "a.toml"),
    ("--config=a=b.toml",),
    ("--insecure-dev",),
    ("--log-level", "debug"),
    ("--log-level=error",),
    ("--log-format", "json"),
    ("--config",),
    ("--config=",),
    ("--log-level", "loud"),
    ("--log-format=",),
    ("--insecure-dev=yes",),
    ("--help",),
    ("--", "x"),
    ("--conf", "a.toml"),
    ("more",),
)
DEFAULTS = {"insecure_dev": False, "log_level": None, "log_format": None}


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the agent was started with, each time."""
    calls: list[dict[str, Any]] = []

    def run_agent(path: Path | None, **options: Any) -> int:
        calls.append({"path": path, **DEFAULTS, **options})
        return 0

    monkeypatch.setattr(agent_process, "run_agent", run_agent)
    return calls


def by_click(words: Sequence[str]) -> int:
    return CliRunner().invoke(app, ["agent", *words]).exit_code


@pytest.mark.parametrize("named", ["", "named.toml"])
def test_every_call_that_it_takes_means_what_click_makes_of_it(
    started: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    monkeypatch.setenv("OPENCLAW_CONFIG", named)
    taken = 0
    for parts in itertools.chain.from_iterable(itertools.product(PARTS, repeat=count) for count in (0, 1, 2)):
        words = [word for part in parts for word in part]
        arguments = agent_arguments(words)
        if arguments is None:
            continue
        taken += 1
        started.clear()
        with pytest.raises(SystemExit) as ended:
            run(arguments)
        assert ended.value.code == 0
        assert by_click(words) == 0, words
        first, second = started
        assert first == second, words
    assert taken > 40


def test_click_gets_what_is_not_plain(started: list[dict[str, Any]]) -> None:
    for part in PARTS[6:]:
        assert agent_arguments(part) is None
    assert by_click(["--log-level", "loud"]) == 2
    assert not started
