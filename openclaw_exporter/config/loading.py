"""From file, environment and flags to settings, or to every problem that they have."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import msgspec

from openclaw_exporter.config.environment import PREFIX, Overlay, read_environment
from openclaw_exporter.config.file import read_file
from openclaw_exporter.config.keys import keys_of, variable_of
from openclaw_exporter.config.tables import (
    PLUGINS,
    TABLES,
    LogSettings,
    Service,
    owner_of,
    roles_by,
    table_keys,
    tables_of,
)
from openclaw_exporter.errors import ConfigError, ConfigProblem
from openclaw_exporter.plugin.options import nearest, read_table
from openclaw_exporter.plugin.redaction import redact

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

    from openclaw_exporter.config.keys import Key, Path
    from openclaw_exporter.config.tables import Table

T = TypeVar("T")

FLAGS: Final = "command line"
"""The source of a problem that a flag made."""


class Config(msgspec.Struct, frozen=True):
    """A configuration without problems.

    Attributes:
        sections: The settings of each table, by their class.
        plugins: The `[plugins.NAME]` tables by name, raw: the plugins themselves say what they may hold.
        source: The file's name; empty where there is none.
        warnings: What a person should know, and what is no error.
        overrides: What set each key that the file did not: an environment variable or a flag.
    """

    sections: Mapping[type, object]
    plugins: Mapping[str, Mapping[str, object]]
    source: str = ""
    warnings: tuple[str, ...] = ()
    overrides: Mapping[str, str] = {}

    def get(self, cls: type[T]) -> T:
        """Return the settings of a class that one of the tables has.

        Raises:
            KeyError: The table belongs to a program that this configuration was not loaded for.
        """
        return cast("T", self.sections[cls])

    def find(self, cls: type[T]) -> T | None:
        """Return the settings of a class, or None where its table was not read or is wrong."""
        return cast("T | None", self.sections.get(cls))

    @property
    def log(self) -> LogSettings:
        """What is logged, and how."""
        return self.get(LogSettings)

    def source_of(self, key: str) -> str:
        """Return where the value of a dotted key came from: a file's name, a variable or a flag."""
        base = key.split("[", 1)[0]
        while base:
            if base in self.overrides:
                return self.overrides[base]
            base = base.rpartition(".")[0]
        return self.source


class Examined(msgspec.Struct, frozen=True):
    """What was found of a configuration, right or wrong.

    Attributes:
        config: The configuration; what is wrong in it is left out.
        problems: Every wrong key, each with where its value came from.
        services: The programs whose tables were checked.
        roles: What the file's tables say that it is for, each role with the tables that say so.
    """

    config: Config
    problems: tuple[ConfigProblem, ...]
    services: Collection[Service]
    roles: Mapping[Service, tuple[str, ...]]


def load(
    path: pathlib.Path | None,
    environ: Mapping[str, str],
    overrides: Mapping[str, object] | None = None,
    *,
    services: Collection[Service] | None = None,
) -> Config:
    """Read the configuration; the arguments are those of `examine`.

    Raises:
        UserError: The file cannot be read or is not TOML.
        ConfigError: Tables or keys are wrong: all of them at once.
    """
    examined = examine(path, environ, overrides, services=services)
    if examined.problems:
        raise ConfigError(examined.problems)
    return examined.config


def examine(
    path: pathlib.Path | None,
    environ: Mapping[str, str],
    overrides: Mapping[str, object] | None = None,
    *,
    services: Collection[Service] | None = None,
) -> Examined:
    """Read the configuration, with its problems.

    Args:
        path: The TOML file; None for none.
        environ: The environment variables.
        overrides: Values that flags set, by dotted key; they win over everything.
        services: The programs whose tables are checked, those of the others are passed over; None for agent
            or receiver or both, as the file's tables say, and the agent where they say nothing. What the
            environment holds does not count: it may be meant for another program.

    Raises:
        UserError: The file cannot be read or is not TOML.
    """
    tables = read_file(path) if path is not None else {}
    source = str(path) if path is not None else ""
    return _Loading(tables, source, environ, overrides or {}).run(services)


class _Loading:
    def __init__(
        self,
        tables: dict[str, object],
        source: str,
        environ: Mapping[str, str],
        overrides: Mapping[str, object],
    ) -> None:
        self._tables = copy.deepcopy(tables)
        self._source = source
        self._environ = environ
        self._overrides = overrides
        self._problems: list[ConfigProblem] = []
        self._sources: dict[str, str] = {}

    def run(self, services: Collection[Service] | None) -> Examined:
        self._refuse_unknown_tables()
        roles = roles_by(tuple(self._tables))
        wanted = services if services is not None else tuple(roles) or ("agent",)
        overlay = self._read_environment(wanted)
        for path, value in overlay.values.items():
            self._put(path, value, overlay.variables[path])
        for name, value in self._overrides.items():
            self._put(tuple(name.split(".")), value, FLAGS)
        sections: dict[type, object] = {LogSettings: LogSettings()}
        for table in tables_of(wanted):
            settings = self._read(table)
            if settings is not None:
                sections[type(settings)] = settings
        config = Config(sections, self._plugin_tables(), self._source, tuple(overlay.warnings), self._sources)
        return Examined(config, self._located(config, overlay.problems), wanted, roles)

    def _refuse_unknown_tables(self) -> None:
        known = {*(table.name for table in TABLES), PLUGINS}
        for name in self._tables:
            if name not in known:
                self._problems.append(ConfigProblem(name, "unknown table", nearest=nearest(name, known)))

    def _read_environment(self, wanted: Collection[Service]) -> Overlay:
        tables = {table.name for table in tables_of(wanted)}
        if set(wanted) != {"receiver"}:
            tables.add(PLUGINS)
        environ = {
            variable: text
            for variable, text in self._environ.items()
            if variable.startswith(PREFIX) and owner_of(variable) in tables
        }
        if not environ:
            return Overlay()
        return read_environment(environ, [*table_keys(wanted), *_plugin_keys(environ)])

    def _put(self, path: Path, value: object, source: str) -> None:
        table: dict[str, Any] = self._tables
        for part in path[:-1]:
            inner = table.setdefault(part, {})
            if not isinstance(inner, dict):
                return  # the table's own check refuses what stands in its place
            table = inner
        table[path[-1]] = value
        self._sources[".".join(path)] = source

    def _read(self, table: Table) -> object:
        content = self._tables.get(table.name, {})
        try:
            settings = self._settings(table, content)
        except ConfigError as error:
            self._problems.extend(error.problems)
            self._problems.extend(self._further(table, content, error.problems))
            return None
        self._problems.extend(table.check(settings))
        return settings

    def _settings(self, table: Table, content: object) -> object:
        mapping = cast("Mapping[str, object]", content)
        settings: object = read_table(table.settings(), mapping, key=table.name, source=self._source)
        return settings

    def _further(
        self, table: Table, content: object, found: tuple[ConfigProblem, ...]
    ) -> Iterator[ConfigProblem]:
        """Yield what is wrong between the keys of a table, its wrong keys left out."""
        wrong = {key for problem in found for key in (problem.key, problem.key.split("[", 1)[0])}
        if not isinstance(content, dict) or f"{table.name}.enabled" in wrong:
            return
        pruned = _without(content, table.name, wrong)
        try:
            problems = table.check(self._settings(table, pruned))
        except ConfigError:
            return
        meant = {f"{problem.key.rpartition('.')[0]}.{problem.nearest}" for problem in found}
        yield from (problem for problem in problems if problem.key not in wrong | meant)

    def _plugin_tables(self) -> dict[str, Mapping[str, object]]:
        content = self._tables.get(PLUGINS, {})
        if not isinstance(content, dict):
            self._problems.append(ConfigProblem(PLUGINS, "not a table", "[plugins.NAME] tables"))
            return {}
        for name, table in content.items():
            if not isinstance(table, dict):
                key = f"{PLUGINS}.{name}"
                self._problems.append(ConfigProblem(key, "not a table", f"a table [{key}]"))
        return {name: table for name, table in content.items() if isinstance(table, dict)}

    def _located(self, config: Config, variables: list[ConfigProblem]) -> tuple[ConfigProblem, ...]:
        """Return all problems, each with where its value came from."""
        unread = {problem.key for problem in variables}
        found = [
            dataclasses.replace(
                problem, message=redact(problem.message), source=config.source_of(problem.key)
            )
            for problem in self._problems
            if problem.key not in unread
        ]
        return (*found, *variables)


def _without(table: Mapping[str, object], name: str, keys: Collection[str]) -> dict[str, object]:
    """Return a table without some of its keys, which are dotted, as are those of the tables in it."""
    return {
        key: _without(value, f"{name}.{key}", keys) if isinstance(value, dict) else value
        for key, value in table.items()
        if f"{name}.{key}" not in keys
    }


def _plugin_keys(environ: Mapping[str, str]) -> Iterator[Key]:
    """Yield the keys of each plugin that a variable names; only they are loaded for it."""
    variables = [name for name in environ if owner_of(name) == PLUGINS]
    if not variables:
        return
    from openclaw_exporter.plugin.host import (  # noqa: PLC0415 - seldom needed, and slow to import
        HostKeys,
        installed_plugins,
        load_plugins,
    )

    named = [
        plugin
        for plugin in installed_plugins()
        if any(variable.startswith(f"{variable_of((PLUGINS, plugin))}_") for variable in variables)
    ]
    for plugin in load_plugins({}, only=named).plugins:
        yield from keys_of(HostKeys, (PLUGINS, plugin.name))
        if plugin.options_type is not None:
            yield from keys_of(plugin.options_type, (PLUGINS, plugin.name))
