"""The whole kit on one collector."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from openclaw_exporter.plugin.runner import Run, Runner, runner_for
from openclaw_exporter.plugin.testing.findings import Finding, Findings, or_passed
from openclaw_exporter.plugin.testing.leaks import Held, check_leaks, check_left_behind, python_threads
from openclaw_exporter.plugin.testing.privacy import check_privacy
from openclaw_exporter.plugin.testing.series import (
    check_deadline,
    check_names,
    check_observations,
    check_repeatability,
    check_series,
)
from openclaw_exporter.plugin.testing.source import check_source

if TYPE_CHECKING:
    from threading import Thread

    from openclaw_exporter.plugin.hooks import Collector
    from openclaw_exporter.plugin.testing.source import BreakSource

DEFAULT_RUNS: Final = 40
LEAST_RUNS: Final = 8
_OF_CONTENT: Final = ("names", "series", "privacy")
"""Checks of what is yielded: where no collection succeeded there is nothing that they could hold."""


def check_collector(
    collector: Collector,
    *,
    runs: int = DEFAULT_RUNS,
    deadline: float | None = None,
    series_budget: int | None = None,
    break_source: BreakSource | None = None,
) -> Findings:
    """Run every check on one collector, which is closed at the end.

    Args:
        collector: One that has not collected yet.
        runs: How many collections, at least 8: a quarter of them are compared with each other, the others
            are for leaks.
        deadline: Seconds for one collection; the collector's own, or the host's, where it is not given.
        series_budget: Likewise.
        break_source: Makes a context in which the collector's source is gone; without it that is not checked.
    """
    runs = max(runs, LEAST_RUNS)
    before, threads = Held.now(), python_threads()
    runner = runner_for(collector, deadline=deadline, budget=series_budget)
    findings = [*_checked(runner, runs), *_source(runner, break_source)]
    if any(finding.check == "deadline" and finding.severity == "failure" for finding in findings):
        runner.close()
        return (*findings, Finding("close", "warning", "not checked: a collection hangs"))
    findings += check_leaks(runner, runs=runs - runs // 4)
    findings += _closed(runner, before, threads)
    return tuple(findings)


def observe(runner: Runner, runs: int) -> list[Run]:
    """Collect so many times, and no more once a run hangs."""
    done: list[Run] = []
    for _ in range(runs):
        done.append(runner.run())
        if done[-1].overdue:
            break
    return done


def _checked(runner: Runner, runs: int) -> Findings:
    done = observe(runner, max(4, runs // 4))
    seen = [item for run in done for item in run.observations]
    ran = (
        *check_deadline(done, deadline=runner.deadline),
        *check_observations(done),
        *check_repeatability(done),
    )
    if all(run.failed for run in done):
        text = "not checked: no collection succeeded"
        return (*ran, *(Finding(check, "warning", text) for check in _OF_CONTENT))
    return (
        *ran,
        *check_names(seen),
        *check_series(done, budget=runner.series_budget),
        *check_privacy(seen),
    )


def _source(runner: Runner, break_source: BreakSource | None) -> Findings:
    if break_source is None:
        return (
            Finding("source", "note", "not checked: only the author's own test can take the source away"),
        )
    return check_source(runner, break_source)


def _closed(runner: Runner, before: Held, threads: frozenset[Thread]) -> Findings:
    closes = callable(getattr(runner.collector, "close", None))
    outcome = runner.close()
    if outcome.overdue:
        return (Finding("close", "failure", f"close() did not end within {runner.deadline:g} s"),)
    found = list(check_left_behind(before, Held.now(), python_threads() - threads, closes=closes))
    if outcome.error is not None:
        found.append(Finding("close", "failure", f"close() raised {outcome.error}"))
    text = "close() left nothing behind" if closes else "there is no close(), and nothing was left behind"
    return or_passed("close", found, text)
