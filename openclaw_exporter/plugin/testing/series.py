"""The same collector run over and over: are its series the same, and do their number stay?"""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from openclaw_exporter.plugin.guard import SeriesKey, series_key
from openclaw_exporter.plugin.observations import Measurement, Observation, Tag
from openclaw_exporter.plugin.testing.findings import Finding, Findings, Severity, or_passed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from openclaw_exporter.plugin.runner import Run

_SHOWN: Final = 10
_COMPARED: Final = 2
_NEAR_BUDGET: Final = 0.8
_SHARES: Final = (".ratio", ".utilization")


def named(key: SeriesKey) -> str:
    """Return a series in one line."""
    name, attributes = key
    listed = ", ".join(f"{attribute}={value}" for attribute, value in sorted(attributes, key=str))
    return f"{name}{{{listed}}}" if listed else name


def check_repeatability(runs: Sequence[Run]) -> Findings:
    """Compare good collections that follow each other.

    A metric that is there in one collection and missing in the next, a counter that goes down: failures.
    Fewer than two good collections are a warning, because nothing was compared.
    A series that comes and goes (a queue, an interface) or a value that is now whole and now not: warnings.
    """
    good = [{series_key(item): item for item in run.observations} for run in runs if not run.failed]
    if len(good) < _COMPARED:
        text = f"not checked: {len(good)} of {len(runs)} collections succeeded, and it takes two to compare"
        return (Finding("repeatability", "warning", text),)
    found = dict.fromkeys(_differences(good))
    return or_passed("repeatability", list(found)[:_SHOWN], f"the same metrics in {len(good)} collections")


def _differences(runs: Sequence[dict[SeriesKey, Observation]]) -> Iterator[Finding]:
    check = "repeatability"
    for before, now in pairwise(runs):
        names_before, names_now = {key[0] for key in before}, {key[0] for key in now}
        flicker = names_before ^ names_now
        for name in sorted(flicker):
            yield Finding(check, "failure", f"{name} is in one collection and missing in the next")
        for key in sorted((before.keys() ^ now.keys()), key=named):
            if key[0] not in flicker:
                yield Finding(check, "warning", f"{named(key)} comes and goes between collections")
        for key in before.keys() & now.keys():
            yield from _changes(key, before[key], now[key])


def _changes(key: SeriesKey, before: Observation, now: Observation) -> Iterator[Finding]:
    check = "repeatability"
    if isinstance(before, Tag) and before != now:
        yield Finding(check, "warning", f"the tag {before.key} changes from collection to collection")
    if not isinstance(before, Measurement) or not isinstance(now, Measurement):
        return
    if type(before.value) is not type(now.value):
        kinds = f"{type(before.value).__name__} and {type(now.value).__name__}"
        yield Finding(check, "warning", f"{named(key)} is {kinds} in turn; one of them would be steadier")
    if now.kind == "counter" and now.value < before.value:
        yield Finding(check, "failure", f"{named(key)} is a counter and went down")


def check_series(runs: Sequence[Run], *, budget: int) -> Findings:
    """Hold that the number of different series settles; an attribute that always changes fills any budget."""
    seen: set[SeriesKey] = set()
    fresh: list[set[SeriesKey]] = []
    for run in runs:
        keys = {series_key(item) for item in run.observations if not isinstance(item, Tag)}
        fresh.append(keys - seen)
        seen |= keys
    text = f"{len(seen)} series in {len(runs)} collections, of a budget of {budget}"
    later = fresh[len(fresh) // 2 :]
    grown = [keys for keys in later if keys]
    if len(grown) > len(later) // 2:
        example = named(min(grown[-1], key=named))
        return (
            Finding(
                "series",
                "failure",
                f"new series in almost every collection ({text}), such as {example}: "
                "an attribute holds a value that always changes",
            ),
        )
    found = []
    if len(seen) > _NEAR_BUDGET * budget:
        found.append(Finding("series", "warning", f"near the budget: {text}; state a series_budget"))
    return or_passed("series", found, text)


def check_names(observations: Iterable[Observation]) -> Findings:
    """Hold the rules for names that one observation alone cannot show, or that want judgement."""
    units: dict[str, tuple[str, str]] = {}
    spelled: defaultdict[str, set[str]] = defaultdict(set)
    for item in observations:
        if isinstance(item, Measurement):
            units[item.name] = (item.unit, item.kind)
            spelled[item.name.replace(".", "_")].add(item.name)
    found = [
        Finding("names", "failure", f"{' and '.join(sorted(names))} are one name in Prometheus")
        for names in spelled.values()
        if len(names) > 1
    ]
    for name, (unit, kind) in sorted(units.items()):
        if unit == "1" and not name.endswith(_SHARES):
            text = f"{name} has unit '1': a share ends in .ratio, a count has an {{annotation}}"
            found.append(Finding("names", "warning", text))
        if kind == "counter" and not unit:
            found.append(
                Finding("names", "warning", f"{name} is a counter without a unit, such as {{event}}")
            )
    return or_passed("names", found, f"{len(units)} metric names")


def check_observations(runs: Sequence[Run]) -> Findings:
    """Hold that collections succeed and that the guard refuses nothing.

    A part that could not be read, an exception that is yielded, is a warning.
    """
    found: dict[str, Finding] = {}
    for run in runs:
        if run.error is not None:
            found.setdefault(run.error, Finding("observations", "failure", f"collect() raised {run.error}"))
        for rejection in run.rejected:
            line = f"refused ({rejection.reason}): {rejection.detail}"
            severity: Severity = "warning" if rejection.reason == "partial" else "failure"
            found.setdefault(line, Finding("observations", severity, line))
    if not any(run.observations for run in runs) and not found:
        found[""] = Finding(
            "observations", "warning", "it yielded nothing at all, so there was little to check"
        )
    listed = list(found.values())[:_SHOWN]
    most = max((len(run.observations) for run in runs), default=0)
    return or_passed("observations", listed, f"{most} observations, none refused")


def check_deadline(runs: Sequence[Run], *, deadline: float) -> Findings:
    """Hold that every collection ended within its deadline, and tell what it costs."""
    slowest = max((run.seconds for run in runs), default=0.0)
    late = sum(run.overdue for run in runs)
    if late:
        text = f"{late} of {len(runs)} collections did not end within {deadline:g} s"
        return (Finding("deadline", "failure", text),)
    cpu = sorted(run.cpu_seconds for run in runs)[len(runs) // 2] if runs else 0.0
    text = f"the slowest of {len(runs)} took {slowest * 1e3:.1f} ms of {deadline:g} s; {cpu * 1e3:.1f} ms CPU"
    if slowest > deadline / 2:
        return (Finding("deadline", "warning", f"more than half of its deadline: {text}"),)
    return (Finding("deadline", "passed", text),)
