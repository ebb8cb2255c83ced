"""Plugins that the agent never imports: a process of their own tells their collectors."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from agent.factory import BUNDLED_OFF

from openclaw_exporter.agent.collection import Collection
from openclaw_exporter.agent.elsewhere import load_elsewhere
from openclaw_exporter.agent.settings import CollectionSettings, ProcessSettings
from openclaw_exporter.agent.snapshot import Board
from support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.factory import Factory

    from openclaw_exporter.agent.agent import Agent

SETTINGS = CollectionSettings(interval=7.0, deadline=3.0, process=ProcessSettings(start_deadline=120.0))
TABLE = {"isolation": "process"}
TWO = """
class C:
    name = "one"
    interval = 2.0
    abandon_when_hung = True

    def collect(self):
        yield Uptime(5.0)

class D(C):
    name = "two"
    interval = 60.0
    series_budget = 9
    abandon_when_hung = False

@hookimpl
def openclaw_collectors():
    return [C(), D()]
"""
GOOD = """
class C:
    name = "good"

    def collect(self):
        yield Uptime(5.0)
"""


def test_the_collectors_are_known_and_run_and_the_module_is_not_imported(factory: Factory) -> None:
    factory.write("pair", TWO, footer="")
    loaded = load_elsewhere("pair", TABLE, SETTINGS, "agent.toml")
    assert not loaded.failures
    one, two = loaded.collectors
    assert (one.name, one.interval, one.deadline, one.series_budget, one.isolation) == (
        "one",
        2.0,
        2.0,
        300,
        "process",
    )
    assert (two.name, two.interval, two.deadline, two.series_budget) == ("two", 60.0, 3.0, 9)
    assert [getattr(item.collector, "abandon_when_hung", None) for item in (one, two)] == [True, False]
    assert factory.module("pair") not in sys.modules
    with pytest.raises(RuntimeError, match="a process of its own only"):
        one.collector.collect()
    board = Board()
    collection = Collection(board, lambda: SETTINGS.process)
    collection.start()
    collection.add([one])
    try:
        wait_until(lambda: board.read().uptime is not None)
    finally:
        collection.cancel()
        collection.join(60.0)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("ctypes.string_at(0)", "SIGSEGV"),
        ("os._exit(3)", "status 3"),
        ("raise ConnectionError('no driver')", "no driver"),
    ],
)
def test_an_import_that_goes_wrong_is_a_failure_of_the_plugin(factory: Factory, body: str, text: str) -> None:
    factory.write("bad", body, footer="")
    loaded = load_elsewhere("bad", TABLE, SETTINGS, "agent.toml")
    assert not loaded.collectors
    (failure,) = loaded.failures
    assert "plugin 'bad'" in failure.message
    assert text in failure.message


def test_an_import_that_hangs_is_given_up(factory: Factory) -> None:
    factory.write("slow", "time.sleep(3600)", footer="")
    settings = CollectionSettings(process=ProcessSettings(start_deadline=2.0, grace=0.1))
    (failure,) = load_elsewhere("slow", TABLE, settings, "agent.toml").failures
    assert "within 2 s" in failure.message or "in time" in failure.message


def test_a_mistake_in_the_table_names_the_file(factory: Factory) -> None:
    factory.write("pair", TWO, footer="")
    (failure,) = load_elsewhere("pair", {**TABLE, "intervall": 3}, SETTINGS, "agent.toml").failures
    assert "plugins.pair.intervall" in failure.message
    assert "agent.toml" in failure.message


def test_an_agent_survives_a_crash_at_import(factory: Factory, start: Callable[..., Agent]) -> None:
    factory.write("crash", "ctypes.string_at(0)", footer="")
    factory.write("good", GOOD)
    agent = start(plugins={**BUNDLED_OFF, "crash": TABLE, "good": {}})
    wait_until(lambda: agent.board.read().uptime == 5.0)
    wait_until(
        lambda: (
            [state.errors for state in agent.board.read().collectors if state.plugin == "crash"]
            == [{"load": 1}]
        ),
    )
