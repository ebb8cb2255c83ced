"""`plugins`: what is installed, what loads, why the rest does not; a new one; whether one conforms."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from openclaw_exporter.cli.options import config_option, json_option
from openclaw_exporter.cli.output import print_json, print_table

_BUNDLED: Final = ("chimera", "gpu", "http_json", "postgresql", "rabbitmq", "system", "textfile")
"""What comes with openclaw-exporter[plugins], installed here or not."""

if TYPE_CHECKING:
    from openclaw_exporter.plugin.host import LoadedPlugins, PluginInfo


@click.group(name="plugins", invoke_without_command=True)
@config_option
@json_option
@click.pass_context
def command(context: click.Context, *, config: Path | None, as_json: bool) -> None:
    """List the plugins that are installed, with their collectors and options."""
    if context.invoked_subcommand is None:
        _list(config, as_json=as_json)


@command.command(name="new")
@click.argument("name")
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="D",
    help="Where it goes; without it a new directory, openclaw-exporter-NAME.",
)
def new(*, name: str, directory: Path | None) -> None:
    """Write a distribution with a plugin NAME: a module, its test with the kit, and a README."""
    from openclaw_exporter.cli.plugin_template import words_for, write  # noqa: PLC0415 - only where it runs

    place = directory or Path(words_for(name)["distribution"])
    for path in write(name, place):
        click.echo(path)
    if rival := _rival(name):
        click.echo(
            f"note: {rival} brings a plugin of this name, and where two are installed neither is loaded: "
            "choose another name, unless yours takes its place",
            err=True,
        )
    click.echo(f"next: pip install -e {place} && openclaw-exporter plugins check {name}", err=True)


def _rival(name: str) -> str:
    """Return the distribution that has this name already, bundled or installed; empty for none."""
    from openclaw_exporter.plugin.host import installed_plugins  # noqa: PLC0415 - only where it runs

    brought = {plugin: f"openclaw-exporter-{plugin.replace('_', '-')}" for plugin in _BUNDLED}
    for plugin, entries in installed_plugins().items():
        brought[plugin] = entries[0].dist.name if entries[0].dist else plugin
    # Names of distributions do not tell the two apart.
    return next(
        (brought[plugin] for plugin in brought if plugin.replace("_", "-") == name.replace("_", "-")), ""
    )


@command.command(name="check")
@click.argument("name")
@config_option
@json_option
@click.option(
    "--runs",
    type=click.IntRange(8, 100_000),
    default=40,
    show_default=True,
    help="How many times each collector collects, at least.",
)
@click.pass_context
def check(context: click.Context, *, name: str, config: Path | None, as_json: bool, runs: int) -> None:
    """Run the conformance kit on the installed plugin NAME, with its options from the configuration.

    Ends with 1 if a rule is broken; warnings and notes break none.
    """
    from openclaw_exporter.agent.settings import CollectionSettings  # noqa: PLC0415 - only where it runs
    from openclaw_exporter.cli import checking  # noqa: PLC0415
    from openclaw_exporter.cli.collecting import known_plugin, load_all  # noqa: PLC0415
    from openclaw_exporter.config import load  # noqa: PLC0415
    from openclaw_exporter.plugin.testing import check_plugin  # noqa: PLC0415

    if config is None and context.parent is not None:
        config = context.parent.params["config"]
    known_plugin(name)
    read = load(config, os.environ, services=["collect"])
    tables, settings = read.plugins, read.get(CollectionSettings)
    loaded = load_all(tables, settings, only={name}, source=str(config or ""))
    report = checking.downfalls(name, loaded, settings.process)
    if report is None:
        report = check_plugin(
            name,
            tables,
            runs=runs,
            source=str(config or ""),
            default_interval=settings.interval,
            default_deadline=settings.deadline,
        )
    if as_json:
        print_json(checking.as_json(report))
    else:
        checking.show(report)
    if not report.passed:
        context.exit(1)


def _list(config: Path | None, *, as_json: bool) -> None:
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
