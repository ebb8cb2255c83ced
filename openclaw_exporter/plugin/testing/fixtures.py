"""The kit's pytest fixtures. PYTEST_DONT_REWRITE: there is no assert statement here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, TypeAlias

import pytest

from openclaw_exporter.plugin.host import LoadedCollector, load_plugins
from openclaw_exporter.plugin.runner import Runner, runner_for
from openclaw_exporter.plugin.testing.collected import Collected

if TYPE_CHECKING:
    from openclaw_exporter.plugin.hooks import Collector

RunCollector: TypeAlias = Callable[..., Collected]
LoadPlugin: TypeAlias = Callable[..., tuple[LoadedCollector, ...]]


@pytest.fixture
def run_collector() -> Iterator[RunCollector]:
    """Run a collector as the host does: `run_collector(collector, deadline=…, series_budget=…)`.

    A collector keeps its thread and its guard over the calls of one test, and is closed at the end of it.
    """
    runners: dict[int, Runner] = {}

    def run(
        collector: Collector, *, deadline: float | None = None, series_budget: int | None = None
    ) -> Collected:
        runner = runners.get(id(collector))
        if runner is None:
            runner = runners[id(collector)] = runner_for(collector, deadline=deadline, budget=series_budget)
        return Collected(runner.run())

    yield run
    for runner in runners.values():
        outcome = runner.close()
        if outcome.error is not None:
            pytest.fail(f"close() of the collector {runner.collector.name!r} raised {outcome.error}")


@pytest.fixture
def collector() -> Collector:
    """Replace this with a fixture of the same name that returns your collector."""
    raise pytest.UsageError("the fixture 'collected' needs a fixture 'collector' that returns your collector")


@pytest.fixture
def collected(collector: Collector, run_collector: RunCollector) -> Collected:
    """One good collection of the test's own fixture `collector`."""
    outcome = run_collector(collector)
    if outcome.error is not None:
        pytest.fail(f"the collector {collector.name!r} failed: {outcome.error}")
    return outcome


@pytest.fixture
def load_plugin() -> LoadPlugin:
    """Load an installed plugin through its entry point: `load_plugin("hello", {"topic": "letters"})`."""

    def load(name: str, table: Mapping[str, object] | None = None) -> tuple[LoadedCollector, ...]:
        loaded = load_plugins({name: table or {}}, only={name})
        if loaded.failures:
            pytest.fail(loaded.failures[0].message)
        return loaded.collectors

    return load
