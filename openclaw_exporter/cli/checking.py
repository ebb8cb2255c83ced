"""What the conformance kit says of a plugin, for people and for scripts."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final

import click

from openclaw_exporter.cli.collecting import Apart
from openclaw_exporter.plugin.runner import Runner
from openclaw_exporter.plugin.testing import Finding, Report

if TYPE_CHECKING:
    from openclaw_exporter.agent.settings import ProcessSettings
    from openclaw_exporter.plugin.host import LoadedPlugins
    from openclaw_exporter.plugin.testing import Findings, Severity

_MARKS: Final[dict[Severity, tuple[str, str]]] = {
    "passed": ("ok", "green"),
    "note": ("note", "blue"),
    "warning": ("WARN", "yellow"),
    "failure": ("FAIL", "red"),
}


_DOWNFALLS: Final = {"exited": "observations", "deadline": "deadline", "MemoryError": "memory"}
"""How a process of a collector fails that would take the kit along, and the check that says so."""


def downfalls(name: str, loaded: LoadedPlugins, limits: ProcessSettings) -> Report | None:
    """Return what takes down a process that loads the plugin or runs a collector of it; None: nothing does.

    The kit runs collectors in this process, which would not survive it, nor tell what it was.

    Args:
        name: The plugin.
        loaded: The plugin, as `load_all` brings it.
        limits: The limits of a process of its own.
    """
    brought = " ".join(loaded.distributions.get(name, ()))
    if loaded.failures:
        told = tuple(Finding("load", "failure", failure.message) for failure in loaded.failures)
        return Report(name, brought, told, {})
    found: dict[str, Findings] = {}
    for collector in loaded.collectors:
        if collector.isolation == "process":
            apart = Apart(collector, limits)
            run = apart.run()
            apart.close()
            if run.error is not None and run.error_type in _DOWNFALLS:
                text = f"{run.error}; nothing else was checked"
                found[collector.name] = (Finding(_DOWNFALLS[run.error_type], "failure", text),)
    if found:
        return Report(name, brought, (), found)
    for collector in loaded.collectors:
        # The kit makes them once more: what only one may have, a port or a lock, has to be free by then.
        Runner(collector.collector, deadline=collector.deadline, series_budget=1).close()
    return None


def as_json(report: Report) -> dict[str, Any]:
    """Return a report for scripts."""
    return {
        "plugin": report.plugin,
        "distribution": report.distribution,
        "passed": report.passed,
        "findings": _listed(report.findings),
        "collectors": [
            {"name": name, "findings": _listed(findings)} for name, findings in report.collectors.items()
        ],
    }


def show(report: Report) -> None:
    """Print a report for people."""
    click.echo(f"{report.plugin} ({report.distribution})" if report.distribution else report.plugin)
    _show(report.findings)
    for name, findings in report.collectors.items():
        click.echo(f"{report.plugin}/{name}")
        _show(findings)
    everything = [*report.findings, *(one for listed in report.collectors.values() for one in listed)]
    count = {severity: sum(one.severity == severity for one in everything) for severity in _MARKS}
    verdict = "conforms" if report.passed else "does not conform"
    click.echo(f"{report.plugin} {verdict}: {count['failure']} failures, {count['warning']} warnings")


def _listed(findings: Findings) -> list[dict[str, str]]:
    return [dataclasses.asdict(finding) for finding in findings]


def _show(findings: Findings) -> None:
    for finding in findings:
        mark, colour = _MARKS[finding.severity]
        click.echo(f"  {click.style(f'{mark:<4}', fg=colour)}  {finding.check:<13}  {finding.text}")
