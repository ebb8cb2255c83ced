"""What a collector says while its source is gone, and after that."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Final, TypeAlias

from openclaw_exporter.plugin.guard import SeriesKey, series_key
from openclaw_exporter.plugin.observations import Capacity, Measurement, Observation, QueueDepth, Uptime
from openclaw_exporter.plugin.testing.findings import Finding, Findings, or_passed
from openclaw_exporter.plugin.testing.series import label

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
    return or_passed("source", found, f"{_spoken(gone)} while its source was gone, and came back by itself")


def check_gone(before: Run, gone: Run) -> Findings:
    """Compare a good collection with one that was made while the source was gone."""
    return tuple(_gone(before, gone))


def _gone(before: Run, gone: Run) -> Iterator[Finding]:
    if before.failed or not before.observations:
        yield Finding("source", "failure", "nothing was collected while the source was there")
        return
    if gone.overdue:
        text = "the collection did not end within its deadline: give its connection a time-out"
        yield Finding("source", "failure", text)
        return
    was = _values(before.observations)
    now = _values(gone.observations)
    zeros = [key for key, value in now.items() if value == 0 and was.get(key) != 0]
    for key in sorted(zeros, key=label):
        yield Finding("source", "failure", f"{label(key)} is 0 while its source is gone; leave it out")
    if not gone.error and not gone.rejected and was.keys() <= now.keys() and not zeros:
        text = "everything is as before while its source is gone: raise, or leave out what is not known"
        yield Finding("source", "failure", text)


def _comes_back(runner: Runner, before: Run) -> bool:
    wanted = {series_key(item)[0] for item in before.observations}
    for _ in range(_TRIES):
        run = runner.run()
        if not run.failed and wanted <= {series_key(item)[0] for item in run.observations}:
            return True
        time.sleep(_PAUSE)
    return False


def _spoken(run: Run) -> str:
    if run.error:
        return f"it raised {run.error_type}"
    return f"it said which part it could not read ({len(run.rejected)})" if run.rejected else "it left out"


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
