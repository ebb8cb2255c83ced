"""The conformance kit as a pytest plugin, and its assertions."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from openclaw_exporter.plugin import Capacity, Measurement, QueueDepth, Uptime
from openclaw_exporter.plugin.runner import Run, runner_for
from openclaw_exporter.plugin.testing import (
    Collected,
    assert_all_observations_covered,
    assert_conforms,
    assert_observation,
    assert_unknown,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class Fixed:
    """A collector that yields what it was given."""

    name = "fixed"

    def __init__(self, *items: Any) -> None:
        self._items = items

    def collect(self) -> Iterable[Any]:
        yield from self._items


class Broken(Fixed):
    def collect(self) -> Iterable[Any]:
        raise ConnectionRefusedError("nobody listens")


def collected_from(collector: Any) -> Collected:
    runner = runner_for(collector)
    try:
        return Collected(runner.run())
    finally:
        runner.close()


@pytest.fixture
def sight() -> Collected:
    return collected_from(
        Fixed(
            Capacity("workers", 4),
            QueueDepth("orders", 7, 1.5),
            QueueDepth("letters", 0),
            Measurement("probe.wait", 0.1 + 0.2, "s", attributes={"place": "rack"}),
        )
    )


def test_an_observation_is_found_by_equality_by_fields_and_by_a_function(sight: Collected) -> None:
    assert assert_observation(sight, Capacity("workers", 4)) == Capacity("workers", 4)
    assert_observation(sight, QueueDepth, topic="orders", oldest_age=lambda age: age > 1)
    assert_observation(sight, Measurement, value=pytest.approx(0.3), attributes={"place": "rack"})


def test_what_is_missing_is_said_with_what_is_there(sight: Collected) -> None:
    with pytest.raises(AssertionError) as caught:
        assert_observation(sight, QueueDepth, topic="parcels")
    text = str(caught.value)
    assert text.startswith("no observation is QueueDepth(topic='parcels'); collected:\n")
    assert "  QueueDepth(topic='letters', depth=0, oldest_age=None)" in text


def test_more_than_one_is_no_answer(sight: Collected) -> None:
    with pytest.raises(AssertionError, match=r"^2 observation is QueueDepth\(\)"):
        assert_observation(sight, QueueDepth)


def test_a_function_that_cannot_judge_a_value_says_no(sight: Collected) -> None:
    with pytest.raises(AssertionError, match="no observation"):
        assert_observation(sight, QueueDepth, topic="letters", oldest_age=lambda age: age > 1)


def test_a_field_that_is_none_is_a_mistake_of_the_test(sight: Collected) -> None:
    with pytest.raises(TypeError, match="QueueDepth has no field 'length'; it has depth, oldest_age, topic"):
        assert_observation(sight, QueueDepth, length=7)


def test_a_failed_collection_has_no_observation_to_assert() -> None:
    with pytest.raises(AssertionError, match="failed: ConnectionRefusedError: nobody listens"):
        assert_observation(collected_from(Broken()), Uptime)


def test_each_observation_has_to_be_asserted_somewhere(sight: Collected) -> None:
    assert_observation(sight, Capacity("workers", 4))
    assert_observation(sight, QueueDepth, topic="orders")
    with pytest.raises(AssertionError) as caught:
        assert_all_observations_covered(sight)
    first, *rest = str(caught.value).splitlines()
    assert first == "2 of 4 observations are asserted nowhere:"
    assert len(rest) == 2
    assert_observation(sight, QueueDepth("letters", 0))
    assert_observation(sight, Measurement, name="probe.wait")
    assert_all_observations_covered(sight)


def test_unknown_is_to_raise_or_to_leave_out_with_an_error() -> None:
    assert_unknown(collected_from(Broken()))
    assert_unknown(collected_from(Fixed(OSError("gone"))))
    assert_unknown(collected_from(Fixed(Uptime(1), OSError("gone"))), QueueDepth)


@pytest.mark.parametrize(
    ("collected", "text"),
    [
        (collected_from(Fixed(QueueDepth("orders", 0))), r"this is not unknown: QueueDepth\("),
        (collected_from(Fixed()), "neither raised nor yielded an exception"),
        (Collected(Run(1.0, overdue=True)), "it did not end within its deadline: give its connection"),
    ],
    ids=["a zero", "silence", "hanging"],
)
def test_what_is_not_unknown(collected: Collected, text: str) -> None:
    with pytest.raises(AssertionError, match=text):
        assert_unknown(collected)


def test_a_collector_that_does_not_conform_is_named_with_every_finding() -> None:
    with pytest.raises(AssertionError) as caught:
        assert_conforms(Fixed(QueueDepth("orders", -1), Measurement("Bad", 1, "s")), runs=8)
    lines = str(caught.value).splitlines()
    assert lines[0] == "the collector 'fixed' does not conform:"
    assert [line.split(":")[0].strip() for line in lines[1:]] == ["failure (observations)"] * 2


def test_findings_can_be_allowed_and_warnings_can_count() -> None:
    findings = assert_conforms(Fixed(QueueDepth("orders", -1)), runs=8, allow=["observations"])
    assert any(one.check == "memory" for one in findings)
    assert_conforms(Fixed(), runs=8)
    with pytest.raises(AssertionError, match="it yielded nothing at all"):
        assert_conforms(Fixed(), runs=8, strict=True)
    with pytest.raises(ValueError, match="there is no check 'observation'; there are load, "):
        assert_conforms(Fixed(), allow=["observation"])


TESTS = """
import threading, time
import pytest
from openclaw_exporter.plugin import Uptime
from openclaw_exporter.plugin.testing import assert_observation

class Counting:
    name = "counting"
    closed = None
    fails = False

    def __init__(self):
        self.number = 0
        self.threads = set()

    def collect(self):
        self.threads.add(threading.get_ident())
        self.number += 1
        if self.fails:
            raise OSError("gone")
        return [Uptime(self.number)]

    def close(self):
        Counting.closed = threading.get_ident() in self.threads and len(self.threads) == 1

@pytest.fixture
def collector():
    return Counting()

def test_run(run_collector, collector):
    assert_observation(run_collector(collector), Uptime(1))
    assert_observation(run_collector(collector), Uptime(2))

def test_the_collector_before_was_closed_on_its_thread():
    assert Counting.closed is True

def test_collected(collected):
    assert_observation(collected, Uptime(1))

def test_a_deadline(run_collector):
    class Slow(Counting):
        def collect(self):
            time.sleep(0.5)
    assert run_collector(Slow(), deadline=0.1).run.overdue

class TestFailing:
    @pytest.fixture
    def collector(self):
        collector = Counting()
        collector.fails = True
        return collector

    def test_must_fail(self, collected):
        pass

def test_close_that_raises_must_fail(run_collector):
    class Rude(Counting):
        def close(self):
            raise ValueError("no")
    run_collector(Rude())

def test_load_must_fail(load_plugin):
    load_plugin("no_such_plugin")
"""


def in_its_own(folder: Path, *options: str) -> str:
    alone = ("-p", "no:cacheprovider", "-W", "error", "-c", os.devnull, f"--rootdir={folder}")
    done = subprocess.run(
        (sys.executable, "-m", "pytest", "-q", *alone, *options, str(folder)),
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    return done.stdout


def test_the_fixtures_in_a_repository_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        "from openclaw_exporter.plugin.testing import assert_conforms\n"
        'pytest_plugins = ["openclaw_exporter.plugin.testing"]\n'
    )
    (tmp_path / "test_it.py").write_text(TESTS)
    shown = in_its_own(tmp_path)
    assert "2 failed, 5 passed, 1 error" in shown or "1 failed, 5 passed, 2 errors" in shown, shown
    assert "the collector 'counting' failed: OSError: gone" in shown
    assert "close() of the collector 'counting' raised ValueError: no" in shown
    assert "plugin 'no_such_plugin': " in shown


def test_the_fixture_collected_asks_for_a_collector(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("def test_it(collected): pass\n")
    shown = in_its_own(tmp_path, "-p", "openclaw_exporter.plugin.testing")
    assert "the fixture 'collected' needs a fixture 'collector' that returns your collector" in shown


def test_without_being_asked_for_it_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("def test_it(run_collector): pass\n")
    assert "fixture 'run_collector' not found" in in_its_own(tmp_path)
