"""What a collector says while its source is gone, and after that."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Final, TypeAlias

from openclaw_exporter.plugin.guard import SeriesKey, series_key
from openclaw_exporter.plugin.observations import Capacity, Measurement, Observation, QueueDepth, Uptime
from openclaw_exporter.plugin.testing.findings import Finding, Findings, or_passed
from openclaw_exporter.plugin.testing.series import named

if TYPE_CHECKING:
    from openclaw_exporter.plugin.runner import Run, Runner

BreakSource: TypeAlias = Callable[[], AbstractContextManager[object]]
"""Makes a context in which the collector's source is gone, and after which it is there again."""

_TRIES: Final = 50
_PAUSE: Final = 0.2


def check_source(runner: Runner, break_source: BreakSource) -> Findings:
    """Hold that a collector whose source is gone says "unknown", never zero, and comes back by itself."""
    before = runner.run()
    with break_source():
        gone = runner.run()
    found = [*check_gone(before, gone)]
    if not _comes_back(runner, before):
        seconds = _TRIES * _PAUSE
        text = f"the source is back, and the collector is not after {seconds:g} s of trying"
        found.append(Finding("source", "failure", text))
    return or_passed("source", found, f"{spoken(gone)} while its source was gone, and came back by itself")


def check_gone(before: Run, gone: Run) -> Findings:
    """Compare a good collection with one that was made while the source was gone."""
    if before.failed or not before.observations:
        return (Finding("source", "failure", "nothing was collected while the source was there"),)
    found = wrong_when_gone(before, gone)
    if not found and says_the_same(before, gone):
        text = "everything is as before while its source is gone: raise, or leave out what is not known"
        return (Finding("source", "failure", text),)
    return found


def wrong_when_gone(before: Run, gone: Run) -> Findings:
    """Return what no collector may do without its source: hang, or say zero for what it does not know."""
    if gone.overdue:
        text = "the collection did not end within its deadline: give its connection a time-out"
        return (Finding("source", "failure", text),)
    was = _values(before.observations)
    zeros = [key for key, value in _values(gone.observations).items() if value == 0 and was.get(key) != 0]
    return tuple(
        Finding("source", "failure", f"{named(key)} is 0 while its source is gone; leave it out")
        for key in sorted(zeros, key=named)
    )


def says_the_same(before: Run, gone: Run) -> bool:
    """Whether a collection says as much as the one before it, and complains of nothing."""
    same = _values(before.observations).keys() <= _values(gone.observations).keys()
    return same and not gone.error and not gone.rejected


def _comes_back(runner: Runner, before: Run) -> bool:
    wanted = {series_key(item)[0] for item in before.observations}
    for _ in range(_TRIES):
        run = runner.run()
        if not run.failed and wanted <= {series_key(item)[0] for item in run.observations}:
            return True
        time.sleep(_PAUSE)
    return False


def spoken(run: Run) -> str:
    """Return how a collector said that it does not know."""
    if run.error:
        return f"it raised {run.error_type}"
    if run.rejected:
        return f"it said which parts it could not read ({len(run.rejected)})"
    return "it left out what it could not know"


def _values(observations: Sequence[Observation]) -> dict[SeriesKey, float]:
    values: dict[SeriesKey, float] = {}
    for item in observations:
        match item:
            case Capacity():
                values[series_key(item)] = item.amount
            case QueueDepth():
                values[series_key(item)] = item.depth
            case Measurement(unit=unit) if unit:  # a state of 0 or 1, which has none, may say "down"
                values[series_key(item)] = item.value
            case Uptime():
                values[series_key(item)] = item.seconds
    return values
