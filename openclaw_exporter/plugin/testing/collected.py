"""What a test holds in its hand after one collection, and the assertions on it."""

from __future__ import annotations

import contextlib
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final, TypeVar

from openclaw_exporter.plugin.observations import Capacity, Measurement, QueueDepth, Tag, Uptime
from openclaw_exporter.plugin.testing.conformance import DEFAULT_RUNS, check_collector
from openclaw_exporter.plugin.testing.findings import CHECKS, Findings

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from openclaw_exporter.plugin.guard import Rejection
    from openclaw_exporter.plugin.observations import Observation
    from openclaw_exporter.plugin.runner import Run
    from openclaw_exporter.plugin.testing.source import BreakSource

_SHOWN: Final = 40


Kind = TypeVar("Kind", bound=Capacity | Measurement | QueueDepth | Tag | Uptime)


class Collected:
    """One collection, as it left the host's guard.

    It remembers which of its observations an assertion has looked at.

    Attributes:
        run: The bare outcome: duration, error, what was refused.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self._covered: set[int] = set()

    def __iter__(self) -> Iterator[Observation]:
        """Iterate over the observations; that covers none of them."""
        return iter(self.run.observations)

    def __len__(self) -> int:
        """How many observations there are."""
        return len(self.run.observations)

    @property
    def observations(self) -> tuple[Observation, ...]:
        """What passed the guard."""
        return self.run.observations

    @property
    def rejected(self) -> tuple[Rejection, ...]:
        """What did not pass, and the parts that could not be read."""
        return self.run.rejected

    @property
    def error(self) -> str | None:
        """What was raised, in one line."""
        return "it did not end within its deadline" if self.run.overdue else self.run.error

    def find(self, kind: type[Kind], wanted: Mapping[str, Any]) -> list[Kind]:
        """Return the observations of one kind whose fields are as wanted, and remember them as covered."""
        found: list[Kind] = []
        for index, item in enumerate(self.run.observations):
            if type(item) is kind and all(_is(getattr(item, key), value) for key, value in wanted.items()):
                self._covered.add(index)
                found.append(item)
        return found

    def uncovered(self) -> tuple[Observation, ...]:
        """Return the observations that no assertion has looked at."""
        return tuple(item for index, item in enumerate(self.run.observations) if index not in self._covered)


def assert_observation(collected: Collected, wanted: Kind | type[Kind], /, **wanted_fields: Any) -> Kind:
    """Assert that exactly one observation is as wanted, and return it.

    Args:
        collected: One collection.
        wanted: An observation to be equal to, or a kind of observation together with `wanted_fields`.
        wanted_fields: Values to be equal to (`pytest.approx` does), or functions that say yes to them.

    Raises:
        AssertionError: There is none, or more than one, or the collection failed.
        TypeError: A kind of observation has no such field.
    """
    kind = wanted if isinstance(wanted, type) else type(wanted)
    names = {field.name for field in fields(kind)}
    unknown = wanted_fields.keys() - names
    if unknown:
        raise TypeError(f"{kind.__name__} has no field {min(unknown)!r}; it has {', '.join(sorted(names))}")
    if not isinstance(wanted, type):
        wanted_fields = {name: getattr(wanted, name) for name in names}
    _assert_good(collected)
    found = collected.find(kind, wanted_fields)
    if len(found) == 1:
        return found[0]
    shown = f"{kind.__name__}({', '.join(f'{key}={value!r}' for key, value in wanted_fields.items())})"
    raise AssertionError(f"{len(found) or 'no'} observation is {shown}; collected:\n{_listed(collected)}")


def assert_all_observations_covered(collected: Collected) -> None:
    """Assert that every observation of a collection was looked at by `assert_observation`.

    It keeps a test honest: a series that somebody adds later has to be tested too.

    Raises:
        AssertionError: Some were not; the text lists them.
    """
    left = collected.uncovered()
    if left:
        listed = "\n".join(f"  {item!r}" for item in left[:_SHOWN])
        raise AssertionError(f"{len(left)} of {len(collected)} observations are asserted nowhere:\n{listed}")


def assert_unknown(collected: Collected, *kinds: type[Any]) -> None:
    """Assert that a collection, made while the source was gone, says nothing about what is not known.

    Args:
        collected: One collection.
        kinds: The kinds of observations that must be missing; without any, every kind.

    Raises:
        AssertionError: It yielded some of them, or it neither raised nor yielded an exception.
    """
    found = [item for item in collected if not kinds or isinstance(item, kinds)]
    if found:
        raise AssertionError(f"this is not unknown: {found[0]!r}")
    if collected.run.overdue:
        raise AssertionError(f"{collected.error}: give its connection a time-out")
    if collected.error is None and not collected.rejected:
        raise AssertionError("it neither raised nor yielded an exception, so nobody hears of the fault")


def assert_conforms(
    collector: Any,
    *,
    runs: int = DEFAULT_RUNS,
    break_source: BreakSource | None = None,
    allow: Collection[str] = (),
    strict: bool = False,
) -> Findings:
    """Run the whole kit on one collector; it is closed at the end. Return all findings.

    Args:
        collector: One that has not collected yet.
        runs: How many times it collects, at least 8.
        break_source: Makes a context in which its source is gone.
        allow: Names of checks whose findings do not count.
        strict: Whether warnings count as failures.

    Raises:
        AssertionError: A rule is broken; the text lists every finding that counts.
        ValueError: `allow` names no check.
    """
    unknown = sorted(set(allow) - CHECKS.keys())
    if unknown:
        raise ValueError(f"there is no check {unknown[0]!r}; there are {', '.join(CHECKS)}")
    findings = check_collector(collector, runs=runs, break_source=break_source)
    counted = ("failure", "warning") if strict else ("failure",)
    broken = [one for one in findings if one.severity in counted and one.check not in allow]
    if broken:
        listed = "\n".join(f"  {finding}" for finding in broken)
        raise AssertionError(f"the collector {collector.name!r} does not conform:\n{listed}")
    return findings


def _assert_good(collected: Collected) -> None:
    if collected.error is not None:
        raise AssertionError(f"the collection failed: {collected.error}")


def _listed(collected: Collected) -> str:
    lines = [f"  {item!r}" for item in collected.observations[:_SHOWN]]
    lines += [f"  refused ({refusal.reason}): {refusal.detail}" for refusal in collected.rejected]
    return "\n".join(lines) or "  nothing"


def _is(value: object, wanted: object) -> bool:
    if callable(wanted) and not isinstance(wanted, type):
        with contextlib.suppress(TypeError):
            return bool(wanted(value))
        return False
    return bool(value == wanted)
