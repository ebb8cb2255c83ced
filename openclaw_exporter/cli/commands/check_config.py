"""`check-config`: all errors of a configuration at once, and the list of all keys."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from openclaw_exporter.cli.options import json_option
from openclaw_exporter.cli.output import print_json, print_table
from openclaw_exporter.errors import ConfigProblem, UserError

if TYPE_CHECKING:
    from openclaw_exporter.config import Config

_WRONG: Final = 2


@dataclasses.dataclass(frozen=True, slots=True)
class _Report:
    errors: tuple[ConfigProblem, ...]
    warnings: tuple[str, ...] = ()


@click.command(name="check-config")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option(
    "--config",
    "named",
    type=click.Path(path_type=Path),
    hidden=True,
    help="The same as FILE, as the other commands call it.",
)
@click.option("--list-keys", is_flag=True, help="List every key that there is instead.")
@json_option
@click.pass_context
def command(
    context: click.Context, *, file: Path | None, named: Path | None, list_keys: bool, as_json: bool
) -> None:
    """Check the configuration FILE, with the environment and the plugins, and report all its errors.

    Ends with 0 where it is right and with 2 where it is not. Certificates and keys that cannot be used on
    this machine are warnings: the file may be meant for another one.
    """
    if list_keys:
        _list_keys(as_json=as_json)
        return
    file = file or named
    if file is None:
        raise UserError("name the configuration: openclaw-exporter check-config FILE")
    report = _check(file)
    if as_json:
        errors = [dataclasses.asdict(problem) for problem in report.errors]
        print_json({"file": str(file), "ok": not errors, "errors": errors, "warnings": report.warnings})
    else:
        _show(file, report)
    if report.errors:
        context.exit(_WRONG)


def _check(file: Path) -> _Report:
    from openclaw_exporter.cli.credential_files import unusable  # noqa: PLC0415 - only where the command runs
    from openclaw_exporter.config import examine  # noqa: PLC0415

    try:
        examined = examine(file, os.environ)
    except UserError as error:
        return _Report((ConfigProblem("", str(error)),))
    plugins = _check_plugins(examined.config) if "agent" in examined.services else _Report(())
    warnings = (*examined.config.warnings, *plugins.warnings, *unusable(examined.config))
    return _Report((*examined.problems, *plugins.errors), warnings)


def _check_plugins(config: Config) -> _Report:
    from openclaw_exporter.agent.settings import CollectionSettings  # noqa: PLC0415 - only where it runs
    from openclaw_exporter.plugin.host import load_plugins  # noqa: PLC0415

    # Where the table itself is wrong, its defaults are good enough to check the plugins' tables.
    collection = config.find(CollectionSettings) or CollectionSettings()
    failures = load_plugins(
        config.plugins,
        default_interval=collection.interval,
        default_deadline=collection.deadline,
        source=config.source,
    ).failures
    errors = tuple(problem for failure in failures for problem in failure.problems)
    # A plugin that is itself broken costs that plugin alone, so it does not make the configuration wrong.
    return _Report(errors, tuple(failure.message for failure in failures if not failure.problems))


def _show(file: Path, report: _Report) -> None:
    for warning in report.warnings:
        click.echo(f"warning: {warning}", err=True)
    for problem in report.errors:
        click.echo(str(problem) if problem.key else problem.message, err=True)
    count = len(report.errors)
    click.echo(f"{file}: {count or 'no'} error{'' if count == 1 else 's'}")


def _list_keys(*, as_json: bool) -> None:
    from openclaw_exporter.config import all_keys  # noqa: PLC0415 - only where the command runs

    keys = [
        {
            "key": key.name,
            "allowed": key.allowed,
            "default": key.default,
            "required": key.required,
            "variable": key.variable,
            "description": key.description,
        }
        for key in all_keys()
    ]
    if as_json:
        print_json(keys)
        return
    columns = ("key", "allowed", "default", "variable", "description")
    print_table(columns, ([key[column] for column in columns] for key in keys))
