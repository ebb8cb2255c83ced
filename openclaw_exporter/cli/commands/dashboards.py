"""`dashboards`: the dashboards and rules that ship with the exporter, for Grafana and Prometheus."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from openclaw_exporter.cli.options import json_option
from openclaw_exporter.cli.output import print_json


@click.group(name="dashboards")
def command() -> None:
    """Get the Grafana dashboards and the Prometheus rules."""


@command.command(name="export")
@click.argument("directory", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--grafana-path",
    metavar="PATH",
    help="Where Grafana will find DIR/grafana/dashboards; without it, where that is on this machine.",
)
@click.option("--force", is_flag=True, help="Replace files that exist.")
@json_option
def export(directory: Path, *, grafana_path: str | None, force: bool, as_json: bool) -> None:
    """Write dashboards, rules and provisioning files into DIR.

    DIR/grafana holds the dashboards and the provisioning files that make Grafana load them,
    DIR/prometheus/rules the recording and alert rules.
    """
    from openclaw_exporter.cli.exporting import write  # noqa: PLC0415 - only where it runs

    written = write(directory, grafana_path=grafana_path, force=force)
    if as_json:
        print_json([str(path) for path in written])
        return
    for path in written:
        click.echo(path)
    place = shlex.quote(str(directory.absolute()))
    click.echo(
        f"next: in prometheus.yml, rule_files: [{place}/prometheus/rules/*.yml]; for Grafana, copy or link "
        f"{place}/grafana/provisioning/dashboards/openclaw.yaml into /etc/grafana/provisioning/dashboards/, "
        "or import the dashboards one by one",
        err=True,
    )
