"""`collect`: every collector once, or again and again, and what it yields."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from openclaw_exporter.cli.options import config_option, json_option
from openclaw_exporter.cli.output import print_json, print_table
from openclaw_exporter.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from openclaw_exporter.agent.settings import ProcessSettings
    from openclaw_exporter.cli.collecting import Collected
    from openclaw_exporter.plugin.host import LoadedPlugins


@click.command(name="collect")
@click.argument("plugin", required=False)
@config_option
@json_option
@click.option("--watch", is_flag=True, help="Collect again and again, until Ctrl-C.")
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 86_400),
    metavar="S",
    help="Seconds between two collections of --watch; without it the shortest interval that the agent would "
    "give one of the collectors.",
)
@click.pass_context
def command(
    context: click.Context,
    *,
    plugin: str | None,
    config: Path | None,
    as_json: bool,
    watch: bool,
    interval: float | None,
) -> None:
    """Run the collectors once, or those of one PLUGIN, and show what they yield.

    They run as in the agent: with the intervals, deadlines and limits of [collection] where neither the
    plugin nor its table says, and those with isolation = "process" each in a process of its own.

    Ends with 1 if a plugin did not load, or a collector failed or yielded something that was refused. With
    --watch it shows that live: a table on a terminal, else a line for each observation, or with --json for
    each round.
    """
    from openclaw_exporter.cli.collecting import collect_once  # noqa: PLC0415 - only where the command runs
    from openclaw_exporter.cli.rows import described  # noqa: PLC0415

    if interval is not None and not watch:
        raise click.UsageError("--interval belongs to --watch", context)
    loaded, limits = _load(plugin, config)
    if watch:
        _watch(loaded, limits, interval, as_json=as_json)
        return
    collected = collect_once(loaded.collectors, limits)
    if as_json:
        print_json(
            {
                "collectors": [described(one) for one in collected],
                "failures": [
                    {"plugin": failure.plugin, "error": failure.message} for failure in loaded.failures
                ],
            }
        )
    else:
        for one in collected:
            _show(one)
        for failure in loaded.failures:
            click.echo(failure.message, err=True)
        if not collected and not loaded.failures:
            click.echo("No plugin is installed; try: pip install 'openclaw-exporter[plugins]'")
    if loaded.failures or any(one.failed for one in collected):
        context.exit(1)


def _load(plugin: str | None, config: Path | None) -> tuple[LoadedPlugins, ProcessSettings]:
    from openclaw_exporter.agent.settings import CollectionSettings  # noqa: PLC0415 - only where it runs
    from openclaw_exporter.cli.collecting import known_plugin, load_all  # noqa: PLC0415 - only where the command runs
    from openclaw_exporter.config import load  # noqa: PLC0415

    read = load(config, os.environ, services=["collect"])
    tables, settings = read.plugins, read.get(CollectionSettings)
    if plugin is not None:
        known_plugin(plugin)
        if tables.get(plugin, {}).get("enabled") is False:
            raise UserError(f"the plugin {plugin!r} is disabled: plugins.{plugin}.enabled is false")
    only = None if plugin is None else {plugin}
    return load_all(tables, settings, only=only, source=str(config or "")), settings.process


def _watch(loaded: LoadedPlugins, limits: ProcessSettings, interval: float | None, *, as_json: bool) -> None:
    from openclaw_exporter.cli.watching import watch  # noqa: PLC0415 - only where the command runs

    for failure in loaded.failures:
        click.echo(failure.message, err=True)
    if not loaded.collectors:
        raise UserError("there is no collector to watch (openclaw-exporter plugins tells why)")
    watch(loaded.collectors, limits, interval, as_json=as_json)


def _show(one: Collected) -> None:
    from openclaw_exporter.cli.rows import COLUMNS, row  # noqa: PLC0415 - only where the command runs

    click.echo(f"{one.plugin}/{one.name}: {len(one.observations)} observations in {one.seconds:.3f} s")
    if one.error:
        click.echo(f"  failed: {one.error}")
    for rejection in one.rejected:
        click.echo(f"  refused ({rejection.reason}): {rejection.detail}")
    if one.observations:
        print_table(COLUMNS, map(row, one.observations))
    click.echo()
