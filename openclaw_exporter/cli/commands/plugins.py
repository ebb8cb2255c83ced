"""`plugins`: what is installed, what loads, and why the rest does not."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from openclaw_exporter.cli.options import config_option, json_option
from openclaw_exporter.cli.output import print_json, print_table

if TYPE_CHECKING:
    from pathlib import Path

    from openclaw_exporter.plugin.host import LoadedPlugins, PluginInfo


@click.command(name="plugins")
@config_option
@json_option
def command(*, config: Path | None, as_json: bool) -> None:
    """List the plugins that are installed, with their collectors and options."""
    from openclaw_exporter.config import load  # noqa: PLC0415 - only where the command runs
    from openclaw_exporter.plugin.host import load_plugins  # noqa: PLC0415

    tables = load(config, os.environ, services=()).plugins
    loaded = load_plugins(tables, source=str(config or ""))
    listed = [_described(plugin, loaded) for plugin in loaded.plugins]
    strangers: list[dict[str, object]] = [
        {"name": failure.plugin, "status": "failed", "error": failure.message}
        for failure in loaded.failures
        if failure.plugin not in loaded.distributions
    ]
    if as_json:
        print_json([*listed, *strangers])
        return
    if not listed and not strangers:
        click.echo("No plugin is installed; try: pip install 'openclaw-exporter[plugins]'")
        return
    columns = ("name", "distribution", "version", "collectors", "isolation", "status", "options")
    print_table(columns, ([_cell(row.get(column)) for column in columns] for row in [*listed, *strangers]))
    for failure in loaded.failures:
        click.echo(failure.message, err=True)


def _described(plugin: PluginInfo, loaded: LoadedPlugins) -> dict[str, object]:
    from openclaw_exporter.config.keys import keys_of  # noqa: PLC0415

    collectors = [found for found in loaded.collectors if found.plugin == plugin.name]
    failure = next((failed for failed in loaded.failures if failed.plugin == plugin.name), None)
    status = "failed" if failure else "loaded" if plugin.enabled else "disabled"
    keys = keys_of(plugin.options_type, ("plugins", plugin.name)) if plugin.options_type else ()
    return {
        "name": plugin.name,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "collectors": [collector.name for collector in collectors],
        "isolation": sorted({collector.isolation for collector in collectors}),
        "status": status,
        "error": failure.message if failure else None,
        "options": [
            {
                "key": key.name,
                "allowed": key.allowed,
                "default": key.default,
                "required": key.required,
                "variable": key.variable,
                "description": key.description,
            }
            for key in keys
        ],
    }


def _cell(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(
            str(item["key"]).split(".", 2)[2] if isinstance(item, dict) else item for item in value
        )
    return "" if value is None else str(value)
