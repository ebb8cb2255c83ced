"""Loading plugins: what is broken in one costs exactly that one."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from openclaw_exporter.plugin.host import installed_plugins, load_plugins

if TYPE_CHECKING:
    from conftest import Install

GOOD = """
from openclaw_exporter.plugin import Uptime, hookimpl

class Clock:
    name = "clock"
    def collect(self):
        yield Uptime(1)

@hookimpl
def openclaw_collectors():
    return [Clock()]
"""

WITH_OPTIONS = """
from __future__ import annotations
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated
from msgspec import Meta
from openclaw_exporter.plugin import Capacity, hookimpl

if TYPE_CHECKING:
    from nowhere import Collector

@dataclass(frozen=True)
class Options:
    slots: Annotated[int, Meta(ge=1, le=9)] = 3

class Slots:
    name = "slots"
    interval = 20
    deadline = 4.0
    isolation = "process"
    series_budget = 7
    def __init__(self, options):
        self.options = options
    def collect(self):
        yield Capacity("slots", self.options.slots)

@hookimpl
def openclaw_collectors(options: Options) -> list[Collector]:
    return [Slots(options)]
"""


def hook(body: str, *, preamble: str = "") -> str:
    """Return the code of a plugin whose hook has this body."""
    return f"{GOOD}\n{preamble}\n@hookimpl\ndef openclaw_collectors():\n    {body}\n"


def test_an_entry_point_becomes_its_collectors(install: Install) -> None:
    install("clock", GOOD, distribution="acme-clock", version="2.1")
    loaded = load_plugins({}, only={"clock"}, default_interval=30, default_deadline=7)
    assert loaded.failures == ()
    (collector,) = loaded.collectors
    assert (collector.plugin, collector.name) == ("clock", "clock")
    assert (collector.interval, collector.deadline) == (30, 7)
    assert (collector.isolation, collector.series_budget) == ("thread", 300)
    assert loaded.distributions == {"clock": ("acme-clock", "2.1")}


def test_a_collector_states_its_own_defaults_and_the_table_overrides_them(install: Install) -> None:
    install("slots", WITH_OPTIONS)
    (own,) = load_plugins({}, only={"slots"}).collectors
    assert (own.interval, own.deadline, own.isolation, own.series_budget) == (20, 4, "process", 7)
    table = {"slots": 5, "interval": 2, "deadline": 1.5, "isolation": "thread", "series_budget": 50}
    (configured,) = load_plugins({"slots": table}, only={"slots"}).collectors
    assert (configured.interval, configured.deadline) == (2, 1.5)
    assert (configured.isolation, configured.series_budget) == ("thread", 50)
    assert [o.amount for o in configured.collector.collect()] == [5]
    assert configured.options_table == table


def test_a_deadline_never_exceeds_the_interval(install: Install) -> None:
    install("clock", GOOD)
    (collector,) = load_plugins({"clock": {"interval": 1}}, only={"clock"}).collectors
    assert collector.deadline == 1
    wrong = load_plugins({"clock": {"interval": 1, "deadline": 2}}, only={"clock"})
    assert wrong.collectors == ()
    assert "2 s, is longer than the interval, 1 s" in wrong.failures[0].message


def test_a_deadline_above_the_collectors_own_interval_is_named(install: Install) -> None:
    install("slots", WITH_OPTIONS)
    (failure,) = load_plugins({"slots": {"deadline": 25}}, only={"slots"}).failures
    assert failure.problems[0].key == "plugins.slots.deadline"
    assert failure.problems[0].allowed == "up to 20"


def test_every_wrong_key_of_a_table_is_reported_at_once(install: Install) -> None:
    install("slots", WITH_OPTIONS)
    table = {"slots": 12, "slot": 1, "intervall": 3, "isolation": "container"}
    loaded = load_plugins({"slots": table}, only={"slots"}, source="agent.toml")
    (failure,) = loaded.failures
    problems = {problem.key: problem for problem in failure.problems}
    assert set(problems) == {f"plugins.slots.{key}" for key in table}
    assert problems["plugins.slots.slots"].allowed == "an integer from 1 to 9"
    assert problems["plugins.slots.slot"].nearest == "slots"
    assert problems["plugins.slots.intervall"].nearest == "interval"
    assert problems["plugins.slots.isolation"].allowed == "one of 'thread', 'process'"
    assert {problem.source for problem in failure.problems} == {"agent.toml"}
    assert loaded.plugins[0].options_type is not None


def test_a_plugin_without_options_takes_the_hosts_keys_only(install: Install) -> None:
    install("clock", GOOD)
    assert load_plugins({"clock": {"interval": 5}}, only={"clock"}).failures == ()
    (failure,) = load_plugins({"clock": {"colour": 1}}, only={"clock"}).failures
    assert failure.problems[0].key == "plugins.clock.colour"


def test_a_disabled_plugin_is_not_even_imported(install: Install) -> None:
    module = install("sleepy", "raise RuntimeError('imported')")
    loaded = load_plugins({"sleepy": {"enabled": False}}, only={"sleepy"})
    assert (loaded.failures, loaded.collectors) == ((), ())
    assert [plugin.enabled for plugin in loaded.plugins] == [False]
    assert module not in sys.modules


def test_a_table_without_a_plugin_names_the_nearest(install: Install) -> None:
    install("clock", GOOD)
    loaded = load_plugins({"clokc": {}, "clock": {}}, source="agent.toml")
    (failure,) = [failure for failure in loaded.failures if failure.plugin == "clokc"]
    assert "agent.toml: plugins.clokc: no such plugin is installed" in failure.message
    assert failure.problems[0].nearest == "clock"
    assert "clock" in [collector.plugin for collector in loaded.collectors]


def test_asking_for_a_plugin_that_is_not_installed_is_a_failure() -> None:
    (failure,) = load_plugins({}, only={"no-such-plugin-here"}).failures
    assert failure.plugin == "no-such-plugin-here"


def test_two_distributions_with_one_plugin_name_load_neither(install: Install) -> None:
    install("clock", GOOD, distribution="acme-clock")
    install("clock", GOOD, distribution="other-clock")
    loaded = load_plugins({}, only={"clock"})
    assert loaded.collectors == ()
    message = loaded.failures[0].message
    assert "acme-clock" in message
    assert "other-clock" in message
    assert len(installed_plugins()["clock"]) == 2


BROKEN = {
    "import error": ("import no_such_module_anywhere", "No module named 'no_such_module_anywhere'"),
    "syntax error": ("def f(:", "SyntaxError"),
    "exit at import": ("raise SystemExit(3)", "SystemExit: 3"),
    "interrupt at import": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "no hook": ("x = 1", "no function openclaw_collectors marked with @hookimpl"),
    "unmarked hook": ("def openclaw_collectors():\n    return []", "marked with @hookimpl"),
    "unknown hook": (hook("return []", preamble="@hookimpl\ndef openclaw_colectors(): ..."), "unknown hook"),
    "unknown argument": (
        GOOD + "\n@hookimpl\ndef openclaw_collectors(setings):\n    return []",
        "setings",
    ),
    "hook raises": (hook("raise ValueError('bad\\nluck')"), "raised ValueError: bad luck"),
    "hook exits": (hook("raise SystemExit"), "raised SystemExit"),
    "generator raises": (hook("yield Clock(); raise OSError('half')"), "raised OSError: half"),
    "returns nothing": (hook("return None"), "returned NoneType, not a list"),
    "returns text": (hook("return 'clock'"), "returned str, not a list"),
    "returns a mapping": (hook("return {'clock': 1}"), "returned dict, not a list"),
    "returns one collector": (hook("return Clock()"), "returned Clock, not a list"),
    "endless collectors": (
        hook("import itertools; return (Clock() for _ in itertools.count())"),
        "more than 64 collectors",
    ),
    "rubbish in the list": (hook("return [Clock(), 7]"), "name of a collector (int) is none"),
    "no name": (hook("return [type('X', (), {'collect': lambda s: []})()]"), "is none; allowed"),
    "bad name": (hook("Clock.name = 'My clock'; return [Clock()]"), "'My clock'"),
    "name that ends in a newline": (hook("Clock.name = 'clock\\n'; return [Clock()]"), "allowed: [a-z]"),
    "name that raises": (
        hook("return [type('X', (), {'name': property(lambda s: 1 / 0)})()]"),
        "reading 'name' of a collector raised ZeroDivisionError",
    ),
    "no collect": (hook("return [type('X', (), {'name': 'x'})()]"), "has no method collect()"),
    "async collect": (
        hook("return [A()]", preamble="class A:\n    name = 'a'\n    async def collect(self): ..."),
        "collect() of collector 'a' is async",
    ),
    "same name twice": (hook("return [Clock(), Clock()]"), "two of its collectors are named 'clock'"),
    "wrong own default": (hook("Clock.isolation = 'moon'; return [Clock()]"), "one of 'thread', 'process'"),
    "newer API": (f"OPENCLAW_PLUGIN_API = 2\n{GOOD}", "needs version 2 of the plugin API and this exporter"),
    "API of a wrong type": (f"OPENCLAW_PLUGIN_API = '1'\n{GOOD}", "not a whole number from 1"),
    "options of no dataclass": (
        GOOD + "\n@hookimpl\ndef openclaw_collectors(options: dict):\n    return []",
        "which is no dataclass",
    ),
    "options that cannot be resolved": (
        "from __future__ import annotations\n"
        + GOOD
        + "\n@hookimpl\ndef openclaw_collectors(options: Nowhere):\n    return []",
        "import the class at run time",
    ),
    "options that take the host's key": (
        "from dataclasses import dataclass\n@dataclass\nclass O:\n    interval: int = 1\n"
        + GOOD
        + "\n@hookimpl\ndef openclaw_collectors(options: O):\n    return []",
        "uses the host's own key 'interval'",
    ),
    "options with an unresolvable field": (
        "from dataclasses import dataclass\n@dataclass\nclass O:\n    x: 'Nowhere' = 1\n"
        + GOOD
        + "\n@hookimpl\ndef openclaw_collectors(options: O):\n    return []",
        "its options class is wrong",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plugin_is_named_in_one_line_and_costs_only_itself(install: Install, case: str) -> None:
    code, expected = BROKEN[case]
    install("broken", code, distribution="acme-broken", version="0.9")
    install("clock", GOOD)
    loaded = load_plugins({}, only={"broken", "clock"})
    assert [collector.plugin for collector in loaded.collectors] == ["clock"]
    (failure,) = loaded.failures
    assert failure.plugin == "broken"
    assert failure.message.startswith("plugin 'broken' (acme-broken 0.9): ")
    assert expected in failure.message
    assert "\n" not in failure.message


def test_an_entry_point_to_a_missing_attribute_is_a_failure(install: Install) -> None:
    install("lost", GOOD, target="json:no_such_attribute")
    assert "no_such_attribute" in load_plugins({}, only={"lost"}).failures[0].message


OBJECT = """
from openclaw_exporter.plugin import hookimpl

class Clock:
    name = "clock"
    def collect(self):
        return []

class Plugin:
    @hookimpl
    def openclaw_collectors(self, options):
        assert options is None
        return [Clock()]

plugin = Plugin()
"""


def test_an_object_can_be_a_plugin_too(install: Install) -> None:
    install("by-object", OBJECT, target="{module}:plugin")
    loaded = load_plugins({}, only={"by-object"})
    assert loaded.failures == ()
    assert [collector.name for collector in loaded.collectors] == ["clock"]


def test_an_error_text_shows_no_secret(install: Install) -> None:
    install("leaky", hook("raise ValueError('redis://me:hunter2@db Bearer abc.def')"))
    message = load_plugins({}, only={"leaky"}).failures[0].message
    assert "hunter2" not in message
    assert "abc.def" not in message


def test_a_plugin_that_hangs_at_import_is_given_up(install: Install) -> None:
    module = install("hanging", "import threading\nevent = threading.Event()\nevent.wait()\n" + GOOD)
    install("clock", GOOD)
    loaded = load_plugins({}, only={"hanging", "clock"}, load_deadline=0.2)
    assert "did not end within 0.2 s" in loaded.failures[0].message
    assert [collector.plugin for collector in loaded.collectors] == ["clock"]
    sys.modules[module].event.set()
    for thread in threading.enumerate():
        if thread.name == "load-hanging":
            thread.join()


def test_importing_the_host_loads_no_plugin_and_nothing_heavy() -> None:
    code = "import sys, openclaw_exporter.plugin.host; print(*sys.modules)"
    shown = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, check=True)
    loaded = set(shown.stdout.split())
    assert not loaded & {"opentelemetry", "httpx", "psutil", "redis", "pynvml", "openclaw_exporter_system"}
