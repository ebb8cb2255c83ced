"""The conformance kit's checks, each against a collector that breaks exactly one rule."""

from __future__ import annotations

import itertools
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from openclaw_exporter.plugin import Capacity, Measurement, QueueDepth, Tag, Uptime
from openclaw_exporter.plugin.runner import Run, Runner, runner_for
from openclaw_exporter.plugin.testing import (
    CHECKS,
    check_collector,
    check_gone,
    check_import,
    check_leaks,
    check_names,
    check_privacy,
    failures,
    import_weight,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


class Probe:
    """A collector whose collections come from a function of the collection's number."""

    name = "probe"
    series_budget = 60

    def __init__(self, yields: Callable[[int], Iterable[Any]], deadline: float = 30.0) -> None:
        self._yields = yields
        self.deadline = deadline
        self._numbers = itertools.count()

    def collect(self) -> Iterable[Any]:
        return self._yields(next(self._numbers))


class Ending(Probe):
    """The same with a `close()`."""

    def __init__(
        self, yields: Callable[[int], Iterable[Any]], close: Callable[[], None], deadline: float = 30.0
    ) -> None:
        super().__init__(yields, deadline)
        self.close = close


def told(collector: Any, check: str, **options: Any) -> list[tuple[str, str]]:
    """Return severity and text of one check's findings."""
    return [(one.severity, one.text) for one in check_collector(collector, **options) if one.check == check]


def only(found: list[tuple[str, str]]) -> tuple[str, str]:
    assert len(found) == 1, found
    return found[0]


def good(number: int) -> list[Any]:
    return [
        Capacity("workers", 4),
        QueueDepth("orders", 7),
        Uptime(5.0 + number),
        Tag("gpu", "false"),
        Measurement("probe.orders", number, "{order}", "counter", {"place": "rack"}),
    ]


def test_a_good_collector_passes_every_check_that_can_be_made() -> None:
    findings = check_collector(Probe(good))
    said = {one.check: one.severity for one in findings}
    assert set(said.values()) == {"passed", "note"}, findings
    assert said.keys() == CHECKS.keys() - {"load", "options", "import"}
    assert said["source"] == "note"


def test_a_collector_that_hangs_fails_and_is_not_asked_for_ever() -> None:
    held = threading.Event()
    started = itertools.count()

    def hang(_number: int) -> list[Any]:
        next(started)
        held.wait(30)
        return []

    findings = check_collector(Probe(hang, deadline=0.3))
    held.set()
    assert ("failure", "1 of 1 collections did not end within 0.3 s") in [
        (one.severity, one.text) for one in findings
    ]
    assert next(started) == 1
    assert any(one.check == "close" and "not checked" in one.text for one in findings)


def test_more_than_half_of_the_deadline_is_a_warning() -> None:
    def slow(number: int) -> list[Any]:
        if number == 2:
            time.sleep(2.1)
        return good(number)

    severity, text = only(told(Probe(slow, deadline=4.0), "deadline"))
    assert (severity, text.split(":")[0]) == ("warning", "more than half of its deadline")


def test_raising_is_named_once_with_its_text() -> None:
    def broken(_number: int) -> list[Any]:
        raise ConnectionRefusedError("nobody listens")

    found = only(told(Probe(broken), "observations"))
    assert found == ("failure", "collect() raised ConnectionRefusedError: nobody listens")


def test_what_was_never_collected_passes_no_check_of_what_is_collected() -> None:
    def broken(_number: int) -> list[Any]:
        raise ConnectionRefusedError("nobody listens")

    said = {one.check: (one.severity, one.text) for one in check_collector(Probe(broken), runs=8)}
    nothing = ("warning", "not checked: no collection succeeded")
    assert {check: said[check] for check in ("names", "series", "privacy")} == {
        "names": nothing,
        "series": nothing,
        "privacy": nothing,
    }
    assert said["repeatability"] == (
        "warning",
        "not checked: 0 of 4 collections succeeded, and it takes two to compare",
    )


def test_one_good_collection_is_nothing_to_compare() -> None:
    def once(number: int) -> list[Any]:
        if number:
            raise ConnectionRefusedError("nobody listens")
        return good(number)

    findings = check_collector(Probe(once), runs=8)
    said = {one.check: (one.severity, one.text) for one in findings}
    assert said["repeatability"] == (
        "warning",
        "not checked: 1 of 4 collections succeeded, and it takes two to compare",
    )
    assert said["names"][0] == "passed"


def test_what_the_guard_refuses_is_a_failure_and_an_unread_part_a_warning() -> None:
    def bad(number: int) -> list[Any]:
        return [*good(number), QueueDepth("letters", -1), OSError("one disk is away")]

    assert told(Probe(bad), "observations") == [
        ("failure", "refused (range): QueueDepth: depth of letters is -1, below 0"),
        ("warning", "refused (partial): OSError: one disk is away"),
    ]


def test_to_yield_nothing_at_all_is_a_warning() -> None:
    assert only(told(Probe(lambda _number: []), "observations"))[0] == "warning"


@pytest.mark.parametrize(
    ("yields", "severity", "text"),
    [
        (
            lambda n: [Uptime(1)] if n % 2 else [Uptime(1), Capacity("slots", 1)],
            "failure",
            "openclaw.node.capacity is in one collection and missing in the next",
        ),
        (
            lambda n: [QueueDepth("a", 1), *([QueueDepth("b", 1)] if n % 2 else [])],
            "warning",
            "openclaw.node.queue.depth{messaging.destination.name=b} comes and goes between collections",
        ),
        (
            lambda n: [Measurement("probe.orders", 100 - n, "{order}", "counter")],
            "failure",
            "probe.orders is a counter and went down",
        ),
        (
            lambda n: [Measurement("probe.wait", 1.5 if n % 2 else 1, "s")],
            "warning",
            "probe.wait is",
        ),
        (lambda n: [Tag("turn", str(n))], "warning", "the tag turn changes from collection to collection"),
    ],
)
def test_two_collections_have_to_agree(yields: Callable[[int], Any], severity: str, text: str) -> None:
    found = told(Probe(yields), "repeatability")
    assert any(one[0] == severity and one[1].startswith(text) for one in found), found


def test_an_attribute_that_always_changes_is_found_before_the_budget_is_used_up() -> None:
    def growing(number: int) -> list[Any]:
        return [Measurement("probe.wait", 1.0, "s", attributes={"request": f"r{number}"})]

    severity, text = only(told(Probe(growing), "series"))
    assert severity == "failure"
    assert "probe.wait{request=r9}: an attribute holds a value that always changes" in text


def test_a_collector_near_its_budget_is_warned() -> None:
    def many(_number: int) -> list[Any]:
        return [Measurement("probe.wait", 1.0, "s", attributes={"place": place}) for place in range(50)]

    severity, text = only(told(Probe(many), "series"))
    assert (severity, text) == (
        "warning",
        "near the budget: 50 series in 10 collections, of a budget of 60; state a series_budget",
    )


def test_names_that_one_observation_cannot_show_to_be_wrong() -> None:
    found = check_names(
        [
            Measurement("probe.a.b", 1, "s"),
            Measurement("probe.a_b", 1, "s"),
            Measurement("probe.share", 0.5, "1"),
            Measurement("probe.good.ratio", 0.5, "1"),
            Measurement("probe.events", 1, "", "counter"),
        ]
    )
    assert [(one.severity, one.text.split(":")[0]) for one in found] == [
        ("failure", "probe.a.b and probe.a_b are one name in Prometheus"),
        ("warning", "probe.events is a counter without a unit, such as {event}"),
        ("warning", "probe.share has unit '1'"),
    ]


@pytest.mark.parametrize(
    ("item", "severity", "text"),
    [
        (Tag("owner", "jo@example.org"), "warning", "the tag owner holds what looks like an e-mail address"),
        (Tag("place", "/home/jo/spool"), "warning", "the tag place holds what looks like a home directory"),
        (
            Measurement("a.b", 1, "s", attributes={"peer": "192.0.2.7:6379"}),
            "warning",
            "the attribute peer of a.b holds an IP address",
        ),
        (
            Measurement("a.b", 1, "s", attributes={"peer": "2001:db8::7"}),
            "warning",
            "the attribute peer of a.b holds an IP address",
        ),
        (
            Measurement("a.b", 1, "s", attributes={"user.id": "7"}),
            "warning",
            "the attribute user.id of a.b is about a person by its name",
        ),
        (
            Measurement("a.b", 1, "s", attributes={"url": "redis://jo:secret@broker/0"}),
            "failure",
            "the attribute url of a.b looks like a secret",
        ),
        (Tag("api_key", "7c2f"), "failure", "the tag api_key looks like a secret"),
    ],
)
def test_text_that_could_be_personal_or_secret(item: Any, severity: str, text: str) -> None:
    found = check_privacy([item])
    assert (severity, text) in [(one.severity, one.text) for one in found], found
    assert not any(secret in str(found) for secret in ("jo@example", "secret@", "7c2f", "192.0.2.7"))


@pytest.mark.parametrize(
    "text", ["1.2.3", "12:30:45", "127.0.0.1", "a::b", "H100 80GB", "task:queue:a", "::"]
)
def test_ordinary_text_is_let_be(text: str) -> None:
    assert [one.severity for one in check_privacy([Tag("what", text)])] == ["passed"]


def test_the_login_name_of_whoever_checks_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", "josephine")
    found = check_privacy([Tag("runner", "host-7/josephine")])
    assert [one.text for one in found] == ["the tag runner holds the login name of whoever runs this check"]


def test_memory_that_grows_is_found_and_its_line_is_named() -> None:
    kept: list[bytes] = []

    def keeping(number: int) -> list[Any]:
        kept.append(bytes(2_000))
        return good(number)

    severity, text = only(told(Probe(keeping), "memory"))
    assert severity == "failure"
    assert "bytes more after each of" in text
    assert f"most from {Path(__file__).name}:" in text


def test_a_cache_with_a_bound_is_no_leak() -> None:
    kept: dict[int, bytes] = {}

    def caching(number: int) -> list[Any]:
        kept[number % 5] = bytes(2_000)
        return good(number)

    assert only(told(Probe(caching), "memory"))[0] == "passed"


def test_threads_that_pile_up_are_found_and_so_are_those_that_stay() -> None:
    end = threading.Event()
    started: list[threading.Thread] = []

    def threading_on(number: int) -> list[Any]:
        if len(started) < 40:
            started.append(threading.Thread(target=end.wait, name="stray", daemon=True))
            started[-1].start()
        return good(number)

    class Slow(Probe):
        """Slow enough that a phase of the leak check has no more runs than it was asked for."""

        def collect(self) -> Iterable[Any]:
            time.sleep(0.03)
            return super().collect()

    try:
        findings = failures(check_collector(Slow(threading_on), runs=16))
    finally:
        end.set()
        for thread in started:
            thread.join()
    said = {one.check: one.text for one in findings}
    assert "more threads after" in said["threads"]
    assert said["close"].startswith("threads go on after the end (stray): it wants a close()")


def test_descriptors_that_pile_up_are_found() -> None:
    held: list[socket.socket] = []

    def opening(number: int) -> list[Any]:
        time.sleep(0.02)
        held.append(socket.socket())
        return good(number)

    try:
        severity, text = only(told(Probe(opening), "descriptors", runs=16))
    finally:
        for one in held:
            one.close()
    assert (severity, "more file descriptors after" in text) == ("failure", True)


def test_a_connection_that_close_ends_leaves_nothing() -> None:
    held: list[socket.socket] = []

    def connected(number: int) -> list[Any]:
        if not held:
            held.append(socket.socket())
        return good(number)

    found = only(told(Ending(connected, lambda: held.pop().close()), "close"))
    assert found == ("passed", "close() left nothing behind")


def test_a_connection_that_stays_open_is_a_warning() -> None:
    with socket.socket() as first:
        held: list[socket.socket] = []

        def connected(number: int) -> list[Any]:
            held.extend([] if held else [first.dup()])
            return good(number)

        found = only(told(Probe(connected), "close"))
        held.pop().close()
    assert found == (
        "warning",
        "1 file descriptors stay open after the end: it wants a close() that ends them",
    )


def test_close_may_not_raise() -> None:
    def broken() -> None:
        raise ValueError("already closed")

    assert only(told(Ending(good, broken), "close")) == (
        "failure",
        "close() raised ValueError: already closed",
    )


def test_close_may_not_hang() -> None:
    held = threading.Event()
    found = only(told(Ending(good, lambda: held.wait(60) and None, deadline=5.0), "close"))
    held.set()
    assert found == ("failure", "close() did not end within 5 s")


def test_close_runs_on_the_thread_that_collected() -> None:
    threads: set[int] = set()

    def noting(number: int) -> list[Any]:
        threads.add(threading.get_ident())
        return good(number)

    check_collector(Ending(noting, lambda: threads.add(threading.get_ident())))
    assert len(threads) == 1
    assert threading.get_ident() not in threads


class Spool:
    """Counts files, in one of the ways to meet a directory that is gone."""

    name = "spool"
    deadline = 30.0

    def __init__(self, directory: Path, *, gone: Any = None, lasting: bool = False) -> None:
        self._directory = directory
        self._gone = gone
        self._lasting = lasting
        self._broken = False

    def collect(self) -> Iterator[Any]:
        try:
            place = Path("/nowhere") if self._broken else self._directory
            count = sum(1 for _ in place.iterdir())
        except OSError:
            self._broken = self._lasting
            if self._gone is None:
                raise
            yield from self._gone
            return
        yield QueueDepth("letters", count)
        yield Measurement("spool.up", 1, "")


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    directory = tmp_path / "spool"
    directory.mkdir()
    (directory / "letter").touch()
    return directory


def taken_away(directory: Path) -> Callable[[], Any]:
    @contextmanager
    def taking() -> Iterator[None]:
        aside = directory.with_suffix(".aside")
        directory.rename(aside)
        yield
        aside.rename(directory)

    return taking


@pytest.mark.parametrize(
    "gone",
    [
        None,
        [],
        [OSError("no directory")],
        [Measurement("spool.up", 0, "")],
    ],
    ids=["raises", "leaves out", "yields the error", "says down by a state of 0"],
)
def test_a_collector_that_says_unknown_passes_and_comes_back(spool: Path, gone: Any) -> None:
    found = told(Spool(spool, gone=gone), "source", break_source=taken_away(spool))
    assert only(found)[0] == "passed"


@pytest.mark.parametrize(
    ("gone", "text"),
    [
        (
            [QueueDepth("letters", 0)],
            "openclaw.node.queue.depth{messaging.destination.name=letters} is 0 while its source is gone",
        ),
        (
            [QueueDepth("letters", 1), Measurement("spool.up", 1, "")],
            "everything is as before while its source is gone",
        ),
    ],
)
def test_a_zero_and_a_value_of_the_past_are_found(spool: Path, gone: Any, text: str) -> None:
    found = told(Spool(spool, gone=gone), "source", break_source=taken_away(spool))
    assert only(found)[0] == "failure"
    assert found[0][1].startswith(text)


def test_a_collector_that_never_comes_back_is_found(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openclaw_exporter.plugin.testing.source._TRIES", 2)
    found = told(Spool(spool, lasting=True), "source", break_source=taken_away(spool))
    assert only(found) == ("failure", "the source is back, and the collector is not after 0.4 s of trying")


def test_a_source_that_was_never_there_checks_nothing(spool: Path) -> None:
    before = runner_run(Spool(spool.with_name("none")))
    (finding,) = check_gone(before, before)
    assert finding.text == "nothing was collected while the source was there"


def test_a_collection_that_hangs_without_its_source_is_found(spool: Path) -> None:
    (finding,) = check_gone(runner_run(Spool(spool)), Run(1.0, overdue=True))
    assert finding.text == "the collection did not end within its deadline: give its connection a time-out"


def runner_run(collector: Any) -> Run:
    runner = runner_for(collector)
    try:
        return runner.run()
    finally:
        runner.close()


def test_leaks_are_not_looked_for_in_a_collector_that_hangs() -> None:
    held = threading.Event()

    def hang_later(number: int) -> list[Any]:
        if number > 2:
            held.wait(30)
        return good(number)

    runner = Runner(Probe(hang_later), deadline=0.1, series_budget=60)
    (finding,) = check_leaks(runner, runs=8)
    held.set()
    runner.close()
    assert finding.text == "a collection hung, so leaks could not be looked for"


def test_a_run_given_up_does_not_answer_the_next_one() -> None:
    held = threading.Event()

    def first_hangs(number: int) -> list[Any]:
        if number == 0:
            held.wait(30)
        return [Uptime(float(number))]

    runner = Runner(Probe(first_hangs), deadline=0.1, series_budget=60)
    assert runner.run().overdue
    held.set()
    runner.deadline = 5.0
    assert runner.run().observations == (Uptime(1.0),)
    runner.close()
    assert not runner.hangs


def test_the_weight_of_an_import_is_told() -> None:
    weight = import_weight("sqlite3")
    assert weight is not None
    assert weight.seconds > 0
    (finding,) = check_import("sqlite3")
    assert (finding.severity, " MiB beyond the host's own" in finding.text) == ("note", True)
    assert import_weight("openclaw_no_such_module") is None
    assert check_import("openclaw_no_such_module")[0].text == "could not be measured"


def test_the_checks_need_no_pytest() -> None:
    code = (
        "import sys; sys.modules['pytest'] = None; import openclaw_exporter.plugin.testing as kit; "
        "print(sorted(kit.CHECKS)[0])"
    )
    done = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "close\n"), done.stderr
