"""`collect`: every collector once, and what it yields."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, Any

import click

from openclaw_exporter.cli.options import config_option, json_option
from openclaw_exporter.cli.output import print_json, print_table
from openclaw_exporter.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from openclaw_exporter.cli.collecting import Collected
    from openclaw_exporter.plugin.host import LoadedPlugins
    from openclaw_exporter.plugin.observations import Observation


@click.command(name="collect")
@click.argument("plugin", required=False)
@config_option
@json_option
@click.pass_context
def command(context: click.Context, *, plugin: str | None, config: Path | None, as_json: bool) -> None:
    """Run the collectors once, or those of one PLUGIN, and show what they yield.

    Ends with 1 if a plugin did not load, or a collector failed or yielded something that was refused.
    """
    from openclaw_exporter.cli.collecting import collect_once  # noqa: PLC0415 - only where the command runs

    loaded = _load(plugin, config)
    collected = collect_once(loaded.collectors)
    if as_json:
        print_json(
            {
                "collectors": [_as_json(one) for one in collected],
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


def _load(plugin: str | None, config: Path | None) -> LoadedPlugins:
    from openclaw_exporter.config import load  # noqa: PLC0415 - only where the command runs
    from openclaw_exporter.plugin.host import installed_plugins, load_plugins  # noqa: PLC0415
    from openclaw_exporter.plugin.options import nearest  # noqa: PLC0415

    tables = load(config, os.environ, services=()).plugins
    installed = installed_plugins()
    if plugin is not None and plugin not in installed:
        near = nearest(plugin, installed)
        hint = f"; did you mean {near!r}?" if near else ""
        raise UserError(f"no plugin {plugin!r} is installed{hint} (openclaw-exporter plugins lists them)")
    loaded = load_plugins(tables, only=None if plugin is None else {plugin}, source=str(config or ""))
    if plugin is not None and not any(info.enabled for info in loaded.plugins):
        raise UserError(f"the plugin {plugin!r} is disabled: plugins.{plugin}.enabled is false")
    return loaded


def _as_json(one: Collected) -> dict[str, Any]:
    return {
        "plugin": one.plugin,
        "collector": one.name,
        "seconds": round(one.seconds, 4),
        "error": one.error,
        "observations": [
            {"type": type(observation).__name__} | dataclasses.asdict(observation)
            for observation in one.observations
        ],
        "refused": [dataclasses.asdict(rejection) for rejection in one.rejected],
    }


def _show(one: Collected) -> None:
    click.echo(f"{one.plugin}/{one.name}: {len(one.observations)} observations in {one.seconds:.3f} s")
    if one.error:
        click.echo(f"  failed: {one.error}")
    for rejection in one.rejected:
        click.echo(f"  refused ({rejection.reason}): {rejection.detail}")
    if one.observations:
        print_table(("observation", "what", "value", "unit"), map(_row, one.observations))
    click.echo()


def _row(observation: Observation) -> tuple[object, ...]:
    from openclaw_exporter.plugin import Capacity, Measurement, QueueDepth, Tag, Uptime  # noqa: PLC0415

    match observation:
        case Capacity():
            return "capacity", observation.resource, observation.amount, ""
        case QueueDepth():
            age = "" if observation.oldest_age is None else f", oldest {observation.oldest_age:.1f} s"
            return "queue depth", observation.topic, f"{observation.depth}{age}", "{message}"
        case Uptime():
            return "uptime", "", round(observation.seconds, 1), "s"
        case Tag():
            return "tag", observation.key, observation.value, ""
        case Measurement():
            named = ", ".join(f"{key}={value}" for key, value in observation.attributes.items())
            what = f"{observation.name}{{{named}}}" if named else observation.name
            return observation.kind, what, observation.value, observation.unit
