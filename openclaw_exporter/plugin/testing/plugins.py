"""The whole kit on one installed plugin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from openclaw_exporter.plugin.guard import series_key
from openclaw_exporter.plugin.host import installed_plugins, load_plugins
from openclaw_exporter.plugin.options import describe
from openclaw_exporter.plugin.runner import Run, Runner
from openclaw_exporter.plugin.testing.away import check_without_network
from openclaw_exporter.plugin.testing.conformance import DEFAULT_RUNS, check_collector
from openclaw_exporter.plugin.testing.findings import Finding, Findings, failures, or_passed
from openclaw_exporter.plugin.testing.series import named
from openclaw_exporter.plugin.testing.weight import check_import

if TYPE_CHECKING:
    from openclaw_exporter.plugin.guard import SeriesKey
    from openclaw_exporter.plugin.host import LoadedCollector, LoadedPlugins
    from openclaw_exporter.plugin.testing.source import BreakSource


@dataclass(frozen=True, slots=True)
class Report:
    """What the kit says of one plugin.

    Attributes:
        plugin: Its name.
        distribution: The distribution that brings it, with its version.
        findings: What holds for the plugin as a whole.
        collectors: What holds for each of its collectors, by name.
    """

    plugin: str
    distribution: str
    findings: Findings
    collectors: Mapping[str, Findings]

    @property
    def passed(self) -> bool:
        """Whether no rule is broken."""
        return not failures(self.findings) and not any(map(failures, self.collectors.values()))


def check_plugin(
    name: str,
    tables: Mapping[str, Mapping[str, object]],
    *,
    runs: int = DEFAULT_RUNS,
    source: str = "",
    default_interval: float = 10,
    default_deadline: float = 5,
    break_source: BreakSource | None = None,
) -> Report:
    """Load one installed plugin with its table and run every check on each of its collectors.

    Args:
        name: The name of its entry point.
        tables: The tables `[plugins.NAME]` of the configuration.
        runs: How many times each collector collects.
        source: Where the tables came from, for error texts.
        default_interval: Seconds between collections where neither the plugin nor its table says.
        default_deadline: Seconds for one collection where neither the plugin nor its table says.
        break_source: Makes a context in which the source of all its collectors is gone.
    """
    load = partial(
        load_plugins,
        tables,
        only={name},
        source=source,
        default_interval=default_interval,
        default_deadline=default_deadline,
    )
    loaded = load()
    brought = " ".join(loaded.distributions.get(name, ()))
    findings = [*_loading(loaded)]
    if not loaded.collectors:
        return Report(name, brought, tuple(findings), {})
    findings += _options(loaded)
    module = installed_plugins()[name][0].module
    findings += check_import(module)
    looks = {one.name: _look(one) for one in loaded.collectors}
    findings += _rivals(looks)
    # Each is loaded again, because these have collected already.
    fresh = load()
    checked: dict[str, Findings] = {}
    for one in fresh.collectors:
        checked[one.name] = check_collector(
            one.collector,
            runs=runs,
            deadline=one.deadline,
            series_budget=one.series_budget,
            break_source=break_source,
        )
        if break_source is None:
            away = check_without_network(one, looks[one.name])
            checked[one.name] = tuple(f for f in checked[one.name] if f.check != "source") + away
    return Report(name, brought, tuple(findings), checked)


def _look(one: LoadedCollector) -> Run:
    """Collect once."""
    runner = Runner(one.collector, deadline=one.deadline, series_budget=one.series_budget)
    try:
        return runner.run()
    finally:
        runner.close()


def _loading(loaded: LoadedPlugins) -> Findings:
    if loaded.failures:
        return tuple(Finding("load", "failure", failure.message) for failure in loaded.failures)
    names = ", ".join(one.name for one in loaded.collectors)
    if not loaded.plugins[0].enabled:
        text = f"plugins.{loaded.plugins[0].name}.enabled is false, so nothing was checked"
        return (Finding("load", "failure", text),)
    if not names:
        text = "with these options it has no collector, so nothing was checked; set them with --config"
        return (Finding("load", "failure", text),)
    return (Finding("load", "passed", f"collectors: {names}"),)


def _options(loaded: LoadedPlugins) -> Findings:
    options_type = loaded.plugins[0].options_type
    if options_type is None:
        return (Finding("options", "passed", "it takes none"),)
    listed = describe(options_type)
    found = [
        Finding("options", "warning", f"{option.key} has no entry in the docstring's section Attributes:")
        for option in listed
        if not option.description
    ]
    return or_passed("options", found, f"{len(listed)} options, all with a description")


def _rivals(looks: Mapping[str, Run]) -> Findings:
    """Refuse two collectors of one plugin that yield the same series: the host keeps only one of them."""
    owners: dict[SeriesKey, str] = {}
    found: list[Finding] = []
    for name, run in looks.items():
        for key in map(series_key, run.observations):
            owner = owners.setdefault(key, name)
            if owner != name:
                text = f"the collectors {owner} and {name} both yield {named(key)}"
                found.append(Finding("observations", "failure", text))
    return tuple(found)
