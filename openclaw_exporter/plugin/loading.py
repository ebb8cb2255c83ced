"""Loading one plugin: from its entry point to its collectors, with every way to fail named in one line."""

from __future__ import annotations

import inspect
import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from importlib.metadata import EntryPoint
from itertools import islice
from types import SimpleNamespace
from typing import Any, Final, get_type_hints

import msgspec
import pluggy

from openclaw_exporter.errors import ConfigError, ConfigProblem, PluginError
from openclaw_exporter.plugin.hooks import API_VERSION, PROJECT, Collector, Hooks
from openclaw_exporter.plugin.host_keys import HOST_KEYS, Defaults, HostKeys, Isolation
from openclaw_exporter.plugin.options import read_table
from openclaw_exporter.plugin.redaction import describe_error, one_line
from openclaw_exporter.plugin.words import is_settings

HOOK: Final = "openclaw_collectors"
MAX_COLLECTORS: Final = 64
LOAD_DEADLINE: Final = 10.0
"""Seconds that a plugin's import and hook may take together."""

_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}")


class LoadedCollector(msgspec.Struct, frozen=True):
    """One collector, ready to run.

    Attributes:
        plugin: The entry point's name.
        name: The collector's own name, unique within its plugin.
        collector: The object itself.
        interval: Seconds from one collection to the next.
        deadline: Seconds that one collection may take.
        isolation: `thread` or `process`.
        series_budget: Different series that it may export over the process's life.
        options_table: The plugin's raw table, from which a child process loads the same collector again.
    """

    plugin: str
    name: str
    collector: Collector
    interval: float
    deadline: float
    isolation: Isolation
    series_budget: int
    options_table: Mapping[str, object]


class Loading(msgspec.Struct):
    """One plugin on its way in.

    Attributes:
        entry: Its entry point.
        table: Its raw table.
        host: The host's keys of that table.
        defaults: What holds where nobody says anything.
        source: Where the table came from, for error texts.
        options_type: The dataclass of its options, once known.
    """

    entry: EntryPoint
    table: Mapping[str, object]
    host: HostKeys
    defaults: Defaults
    source: str = ""
    options_type: type | None = None

    def run(self, deadline: float = LOAD_DEADLINE) -> tuple[LoadedCollector, ...]:
        """Import the plugin and call its hook, on a thread that is given up after `deadline` seconds.

        Raises:
            PluginError: It cannot be loaded; the text says why in one line.
            ConfigError: Its table is wrong.
        """
        outcome: list[tuple[LoadedCollector, ...] | PluginError | ConfigError] = []

        def work() -> None:
            try:
                outcome.append(self._load())
            except (PluginError, ConfigError) as error:
                outcome.append(error)
            except BaseException as error:  # noqa: BLE001 - a plugin may raise anything, SystemExit too
                outcome.append(PluginError(f"loading it raised {describe_error(error)}"))

        thread = threading.Thread(target=work, name=f"load-{self.entry.name}", daemon=True)
        thread.start()
        thread.join(deadline)
        if not outcome:
            raise PluginError(f"its import or its hook did not end within {deadline:g} s")
        result = outcome[0]
        if isinstance(result, Exception):
            raise result
        return result

    def _load(self) -> tuple[LoadedCollector, ...]:
        plugin = _import(self.entry)
        _check_api_version(plugin)
        hooks = _register(plugin, self.entry.name)
        self.options_type = _options_type(hooks)
        options = self._options()
        try:
            # pluggy leaves an implementation that returns None out of its list.
            returned = hooks.openclaw_collectors(options=options)
            collectors = _listed(returned[0] if returned else None)
        except PluginError:
            raise
        except BaseException as error:
            raise PluginError(f"{HOOK} raised {describe_error(error)}") from error
        return self._wrap(collectors)

    def _options(self) -> object:
        if self.options_type is None:
            read_table(_NoOptions, self.table, key=self._key, source=self.source, reserved=HOST_KEYS)
            return None
        clash = sorted(HOST_KEYS & {option.name for option in fields(self.options_type)})
        if clash:
            raise PluginError(f"its options class uses the host's own key {clash[0]!r}")
        try:
            return read_table(
                self.options_type, self.table, key=self._key, source=self.source, reserved=HOST_KEYS
            )
        except TypeError as error:
            raise PluginError(f"its options class is wrong: {one_line(str(error))}") from error

    @property
    def _key(self) -> str:
        return f"plugins.{self.entry.name}"

    def _wrap(self, collectors: tuple[Any, ...]) -> tuple[LoadedCollector, ...]:
        loaded: list[LoadedCollector] = []
        for collector in collectors:
            name = _checked_name(collector)
            if any(other.name == name for other in loaded):
                raise PluginError(f"two of its collectors are named {name!r}")
            own = _own_defaults(collector, name)
            interval = _first(self.host.interval, own.interval, self.defaults.interval)
            deadline = _first(self.host.deadline, own.deadline, min(self.defaults.deadline, interval))
            if self.host.deadline is not None and deadline > interval:
                text = f"got {deadline:g}, longer than the interval of collector {name!r}"
                raise ConfigError(
                    (ConfigProblem(f"{self._key}.deadline", text, f"up to {interval:g}", source=self.source),)
                )
            loaded.append(
                LoadedCollector(
                    plugin=self.entry.name,
                    name=name,
                    collector=collector,
                    interval=interval,
                    deadline=min(deadline, interval),
                    isolation=_first(self.host.isolation, own.isolation, self.defaults.isolation),
                    series_budget=_first(
                        self.host.series_budget, own.series_budget, self.defaults.series_budget
                    ),
                    options_table=self.table,
                )
            )
        return tuple(loaded)


@dataclass(frozen=True)
class _NoOptions:
    """The options of a plugin that has none."""


def _import(entry: EntryPoint) -> object:
    try:
        return entry.load()
    except BaseException as error:
        raise PluginError(f"importing {entry.value!r} raised {describe_error(error)}") from error


def _check_api_version(plugin: object) -> None:
    wanted = getattr(plugin, "OPENCLAW_PLUGIN_API", 1)
    if type(wanted) is not int or wanted < 1:
        raise PluginError(f"OPENCLAW_PLUGIN_API is {one_line(repr(wanted), 60)}, not a whole number from 1")
    if wanted > API_VERSION:
        raise PluginError(
            f"it needs version {wanted} of the plugin API and this exporter has {API_VERSION}: "
            "upgrade openclaw-exporter"
        )


def _register(plugin: object, name: str) -> Any:
    """Return the hook caller of a pluggy manager that knows this one plugin only."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(Hooks)
    try:
        manager.register(plugin, name)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise PluginError(one_line(str(error))) from error
    except BaseException as error:
        raise PluginError(f"looking for its hooks raised {describe_error(error)}") from error
    if not manager.hook.openclaw_collectors.get_hookimpls():
        raise PluginError(f"it has no function {HOOK} marked with @hookimpl")
    return manager.hook


def _options_type(hooks: Any) -> type | None:
    """Return the dataclass that annotates the parameter `options`, or None where there is none."""
    (implementation,) = hooks.openclaw_collectors.get_hookimpls()
    if "options" not in implementation.argnames:
        return None
    function = inspect.unwrap(getattr(implementation.function, "__func__", implementation.function))
    try:
        annotation = getattr(function, "__annotations__", {}).get("options")
        # Only this annotation is resolved: others may name types imported for type checkers alone.
        stand_in = SimpleNamespace(__annotations__={"options": annotation})
        hints = get_type_hints(stand_in, globalns=getattr(function, "__globals__", {}))
    except Exception as error:
        raise PluginError(
            f"the annotation of its options cannot be resolved ({describe_error(error)}): "
            "import the class at run time"
        ) from error
    found = hints["options"]
    if annotation is None:
        return None
    if not is_settings(found):
        raise PluginError(
            f"its options are annotated with {one_line(repr(found), 80)}, which is no dataclass"
        )
    return found  # type: ignore[no-any-return] # is_settings has looked


def _listed(returned: object) -> tuple[Any, ...]:
    if isinstance(returned, (str, bytes, Mapping)) or not isinstance(returned, Iterable):
        raise PluginError(f"{HOOK} returned {type(returned).__name__}, not a list of collectors")
    collectors = tuple(islice(returned, MAX_COLLECTORS + 1))
    if len(collectors) > MAX_COLLECTORS:
        raise PluginError(f"{HOOK} returned more than {MAX_COLLECTORS} collectors")
    return collectors


def _checked_name(collector: object) -> str:
    name = _attribute(collector, "name")
    what = type(collector).__name__
    if type(name) is not str or not _NAME.fullmatch(name):
        shown = "none" if name is None else one_line(repr(name), 80)
        raise PluginError(f"the name of a collector ({what}) is {shown}; allowed: {_NAME.pattern}")
    collect = _attribute(collector, "collect")
    if not callable(collect):
        raise PluginError(f"collector {name!r} ({what}) has no method collect()")
    if inspect.iscoroutinefunction(collect) or inspect.isasyncgenfunction(collect):
        raise PluginError(f"collect() of collector {name!r} is async; it has to be a plain function")
    return name


def _own_defaults(collector: object, name: str) -> HostKeys:
    """Return the defaults that a collector's class states."""
    stated = {
        key: value for key in HOST_KEYS - {"enabled"} if (value := _attribute(collector, key)) is not None
    }
    try:
        return read_table(HostKeys, stated, key=f"collector {name!r}")
    except ConfigError as error:
        raise PluginError(one_line("; ".join(str(problem) for problem in error.problems))) from error


def _attribute(collector: object, name: str) -> Any:
    try:
        return getattr(collector, name, None)
    except Exception as error:
        raise PluginError(f"reading {name!r} of a collector raised {describe_error(error)}") from error


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)
