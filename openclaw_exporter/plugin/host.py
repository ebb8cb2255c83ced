"""The host: finds the plugins that are installed and loads each by itself.

pluggy calls all implementations of a hook in turn and stops at the first that raises. So each plugin gets a
manager of its own: what is broken in one costs exactly that one.
"""

from __future__ import annotations

from collections import defaultdict
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from openclaw_exporter.errors import ConfigError, ConfigProblem, PluginError
from openclaw_exporter.plugin.hooks import PROJECT
from openclaw_exporter.plugin.host_keys import HOST_KEYS, Defaults, HostKeys
from openclaw_exporter.plugin.loading import LOAD_DEADLINE, LoadedCollector, Loading
from openclaw_exporter.plugin.options import nearest, read_table

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from importlib.metadata import EntryPoint

__all__ = [
    "GROUP",
    "ON_REQUEST",
    "HostKeys",
    "Installed",
    "LoadedCollector",
    "LoadedPlugins",
    "PluginFailure",
    "PluginInfo",
    "installed_plugins",
    "load_plugins",
    "scan_plugins",
]

GROUP: Final = PROJECT
"""The group of the entry points."""

ON_REQUEST: Final = f"{PROJECT}.on_request"
"""The group in which a plugin lists itself too that has nothing to do without its table."""


class PluginInfo(msgspec.Struct, frozen=True):
    """One installed plugin.

    Attributes:
        name: The entry point's name, and that of its table `[plugins.NAME]`.
        distribution: The distribution that brings it.
        version: That distribution's version.
        enabled: Whether the configuration lets it load.
        options_type: The dataclass of its options; None where it has none or was not loaded.
    """

    name: str
    distribution: str
    version: str
    enabled: bool = True
    options_type: type | None = None


class PluginFailure(msgspec.Struct, frozen=True):
    """Why one plugin is not there.

    Attributes:
        plugin: Its name, or that of the table that has no plugin.
        message: The cause in one line, with plugin and distribution.
        problems: The wrong keys of its table, where that is the cause.
        distribution: The distribution that brings it, with its version; empty where there is none.
    """

    plugin: str
    message: str
    problems: tuple[ConfigProblem, ...] = ()
    distribution: str = ""

    def __str__(self) -> str:
        """The message."""
        return self.message


class LoadedPlugins(msgspec.Struct, frozen=True):
    """What `load_plugins` found.

    Attributes:
        collectors: Every collector of every plugin that loaded.
        failures: One for each plugin that did not.
        plugins: Every installed plugin that was looked at, by name.
    """

    collectors: tuple[LoadedCollector, ...] = ()
    failures: tuple[PluginFailure, ...] = ()
    plugins: tuple[PluginInfo, ...] = ()

    @property
    def distributions(self) -> dict[str, tuple[str, str]]:
        """Name and version of the distribution of each plugin."""
        return {plugin.name: (plugin.distribution, plugin.version) for plugin in self.plugins}


class Installed(NamedTuple):
    """What is installed, by its metadata alone.

    Attributes:
        plugins: The entry points of our group by name; more than one is a clash.
        on_request: Those that have nothing to do without their table.
    """

    plugins: Mapping[str, tuple[EntryPoint, ...]]
    on_request: frozenset[str] = frozenset()

    def wanted(self, tables: Mapping[str, object]) -> set[str]:
        """Return the plugins that have something to do under these tables, and the tables of no plugin."""
        return {*(self.plugins.keys() - self.on_request), *tables}


def scan_plugins() -> Installed:
    """Read the metadata of all distributions once, which costs some milliseconds; import nothing."""
    every = entry_points()
    found: defaultdict[str, dict[str, EntryPoint]] = defaultdict(dict)
    for entry in every.select(group=GROUP):
        found[entry.name].setdefault(f"{_distribution(entry)} {entry.value}", entry)
    return Installed(
        {name: tuple(found[name].values()) for name in sorted(found)},
        frozenset(entry.name for entry in every.select(group=ON_REQUEST)),
    )


def installed_plugins() -> Mapping[str, tuple[EntryPoint, ...]]:
    """Return the entry points of our group by name, without importing any; more than one is a clash."""
    return scan_plugins().plugins


def load_plugins(
    tables: Mapping[str, Mapping[str, object]],
    *,
    default_interval: float = 10,
    default_deadline: float = 5,
    only: Collection[str] | None = None,
    source: str = "",
    load_deadline: float = LOAD_DEADLINE,
    installed: Installed | None = None,
) -> LoadedPlugins:
    """Load every installed plugin that its table does not disable. Never raises for a plugin's fault.

    Args:
        tables: The `[plugins.NAME]` tables by name; a plugin without one gets its defaults.
        default_interval: Seconds between collections where nothing else is said.
        default_deadline: Seconds for one collection where nothing else is said.
        only: Load these plugins and no others.
        source: Where the tables came from, for error texts.
        load_deadline: Seconds that one plugin's import and hook may take.
        installed: What `scan_plugins` found; by default it is asked again.
    """
    defaults = Defaults(interval=default_interval, deadline=default_deadline)
    entries_of = (installed or scan_plugins()).plugins
    collectors: list[LoadedCollector] = []
    plugins: list[PluginInfo] = []
    failures = _unknown(tables, only, entries_of, source)
    for name, entries in entries_of.items():
        if only is not None and name not in only:
            continue
        info, loaded = _load_one(name, entries, tables.get(name, {}), defaults, source, load_deadline)
        plugins.append(info)
        if isinstance(loaded, PluginFailure):
            failures.append(loaded)
        else:
            collectors.extend(loaded)
    return LoadedPlugins(tuple(collectors), tuple(failures), tuple(plugins))


def _load_one(
    name: str,
    entries: Sequence[EntryPoint],
    table: Mapping[str, object],
    defaults: Defaults,
    source: str,
    load_deadline: float,
) -> tuple[PluginInfo, tuple[LoadedCollector, ...] | PluginFailure]:
    entry = entries[0]
    info = PluginInfo(name, _distribution(entry), entry.dist.version if entry.dist else "")
    host, problems = _host_keys(name, table, source)
    if not host.enabled:
        return msgspec.structs.replace(info, enabled=False), ()
    loading = Loading(entry, table, host, defaults, source)
    cause = ""
    collectors: tuple[LoadedCollector, ...] = ()
    try:
        _check_rivals(entries)
        collectors = loading.run(load_deadline)
    except ConfigError as error:
        problems += error.problems
    except PluginError as error:
        cause = str(error)
    info = msgspec.structs.replace(info, options_type=loading.options_type)
    if cause or problems:
        return info, _failure(info, "; ".join((*map(str, problems), *filter(None, [cause]))), problems)
    return info, collectors


def _check_rivals(entries: Sequence[EntryPoint]) -> None:
    if len(entries) > 1:
        rivals = " and ".join(_distribution(rival) for rival in entries)
        raise PluginError(f"two distributions bring a plugin of this name ({rivals}): uninstall one")


def _host_keys(
    name: str, table: Mapping[str, object], source: str
) -> tuple[HostKeys, tuple[ConfigProblem, ...]]:
    """Return the host's keys of a table, or the defaults and what is wrong with it."""
    own = {key: value for key, value in table.items() if key in HOST_KEYS}
    try:
        return read_table(HostKeys, own, key=f"plugins.{name}", source=source), ()
    except ConfigError as error:
        return HostKeys(), error.problems


def _failure(info: PluginInfo, text: str, problems: tuple[ConfigProblem, ...] = ()) -> PluginFailure:
    distribution = f"{info.distribution} {info.version}".strip()
    return PluginFailure(info.name, f"plugin {info.name!r} ({distribution}): {text}", problems, distribution)


def _unknown(
    tables: Mapping[str, object],
    only: Collection[str] | None,
    installed: Collection[str],
    source: str,
) -> list[PluginFailure]:
    """Return a failure for each table, and each name in `only`, that no installed plugin has."""
    wanted = dict.fromkeys(only) if only is not None else dict.fromkeys(tables)
    failures: list[PluginFailure] = []
    for name in wanted:
        if name in installed:
            continue
        near = nearest(name, installed)
        allowed = f"one of {', '.join(map(repr, installed))}" if installed else "none is installed"
        problem = ConfigProblem(f"plugins.{name}", "no such plugin is installed", allowed, near, source)
        failures.append(PluginFailure(name, f"plugin {name!r}: {problem}", (problem,)))
    return failures


def _distribution(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else "unknown distribution"
