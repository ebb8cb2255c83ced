"""`check-config`: all errors of a configuration at once, and the list of all keys."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from openclaw_exporter.cli.options import json_option
from openclaw_exporter.cli.output import print_json, print_table
from openclaw_exporter.config.environment import CONFIG_VARIABLE
from openclaw_exporter.errors import ConfigProblem, UserError

if TYPE_CHECKING:
    from openclaw_exporter.config import Config, Examined, Service

_WRONG: Final = 2
_ROLES: Final = ("agent", "receiver")
_UNTOLD: Final = (
    "nothing in it says whether it is an agent's or a receiver's, "
    "which need different tables: give --role agent or --role receiver"
)


@dataclasses.dataclass(frozen=True, slots=True)
class _Report:
    errors: tuple[ConfigProblem, ...]
    warnings: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    reason: str = ""


@click.command(name="check-config")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option(
    "--config",
    "named",
    type=click.Path(path_type=Path),
    envvar=CONFIG_VARIABLE,
    hidden=True,
    help="The same as FILE, as the other commands call it.",
)
@click.option(
    "--role",
    type=click.Choice(_ROLES),
    help="Check what this one would read of it; without it, the file's tables say whose it is.",
)
@click.option("--list-keys", is_flag=True, help="List every key that there is instead.")
@json_option
@click.pass_context
def command(
    context: click.Context,
    *,
    file: Path | None,
    named: Path | None,
    role: Service | None,
    list_keys: bool,
    as_json: bool,
) -> None:
    """Check the configuration FILE, with the environment and the plugins, and report all its errors.

    It is checked for the agent where it has a table that only an agent reads ([node], [openclaw],
    [collection], [pressure], [plugins]), for the receiver where it has [receiver], and for both where it has
    both. With --role and no FILE the environment alone is checked.

    Ends with 0 where it is right and with 2 where it is not. Certificates and keys that cannot be used on
    this machine are warnings: the file may be meant for another one.
    """
    if list_keys:
        _list_keys(as_json=as_json)
        return
    file = file or named
    if file is None and role is None:
        raise UserError("name the configuration: openclaw-exporter check-config FILE")
    report = _check(file, role)
    if as_json:
        _print(file, report)
    else:
        _show(file, report)
    if report.errors:
        context.exit(_WRONG)


def _check(file: Path | None, role: Service | None) -> _Report:
    from openclaw_exporter.cli.credential_files import unusable  # noqa: PLC0415 - only where the command runs
    from openclaw_exporter.config import examine  # noqa: PLC0415

    try:
        examined = examine(file, os.environ, services=None if role is None else [role])
    except UserError as error:
        return _Report((ConfigProblem("", str(error)),))
    if role is None and not examined.roles:
        untold = ConfigProblem("", f"{file}: {_UNTOLD}")
        return _Report((*_of_any_role(examined), untold), examined.config.warnings)
    plugins = _check_plugins(examined.config) if "agent" in examined.services else _Report(())
    warnings = (*examined.config.warnings, *plugins.warnings, *unusable(examined.config))
    reason = "as --role says" if role is not None else f"because it has {_tables(examined)}"
    return _Report((*examined.problems, *plugins.errors), warnings, tuple(examined.services), reason)


def _of_any_role(examined: Examined) -> tuple[ConfigProblem, ...]:
    """Return the problems that a file has whoever it is for."""
    from openclaw_exporter.config.tables import roles_by  # noqa: PLC0415 - only where it runs

    return tuple(problem for problem in examined.problems if not roles_by([problem.key.partition(".")[0]]))


def _tables(examined: Examined) -> str:
    names = [f"[{name}]" for names in examined.roles.values() for name in names]
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


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


def _print(file: Path | None, report: _Report) -> None:
    print_json(
        {
            "file": None if file is None else str(file),
            "ok": not report.errors,
            "roles": report.roles,
            "reason": report.reason,
            "errors": [dataclasses.asdict(problem) for problem in report.errors],
            "warnings": report.warnings,
        }
    )


def _show(file: Path | None, report: _Report) -> None:
    for warning in report.warnings:
        click.echo(f"warning: {warning}", err=True)
    for problem in report.errors:
        click.echo(str(problem) if problem.key else problem.message, err=True)
    count = len(report.errors)
    checked = f"; checked for {' and '.join(report.roles)}, {report.reason}" if report.roles else ""
    click.echo(f"{file or 'the environment'}: {count or 'no'} error{'' if count == 1 else 's'}{checked}")


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
