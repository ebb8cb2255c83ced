"""What the conformance kit says of a plugin, for people and for scripts."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from openclaw_exporter.plugin.testing import Findings, Report, Severity

_MARKS: Final[dict[Severity, tuple[str, str]]] = {
    "passed": ("ok", "green"),
    "note": ("note", "blue"),
    "warning": ("WARN", "yellow"),
    "failure": ("FAIL", "red"),
}


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
