"""Running collectors as the agent does: each on a thread or in a process of its own, up to its deadline."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from openclaw_exporter.agent.isolation import ChildSource
from openclaw_exporter.agent.pipe import ChildError
from openclaw_exporter.errors import UserError
from openclaw_exporter.plugin.guard import Checked, Guard, Rejection
from openclaw_exporter.plugin.host import LoadedPlugins, installed_plugins, load_plugins, scan_plugins
from openclaw_exporter.plugin.host_keys import asks_for_process
from openclaw_exporter.plugin.observations import Observation
from openclaw_exporter.plugin.options import nearest
from openclaw_exporter.plugin.runner import Run, Runner

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from openclaw_exporter.agent.settings import CollectionSettings, ProcessSettings
    from openclaw_exporter.plugin.host import LoadedCollector


@dataclass(frozen=True, slots=True)
class Collected:
    """What one collector yielded.

    Attributes:
        plugin: Its plugin's name.
        name: Its own name.
        seconds: How long it took.
        observations: What passed the host's guard.
        rejected: What did not.
        error: Why there is nothing; None after a good run.
    """

    plugin: str
    name: str
    seconds: float
    observations: tuple[Observation, ...] = ()
    rejected: tuple[Rejection, ...] = ()
    error: str | None = None

    @property
    def failed(self) -> bool:
        """Whether it raised, took too long, or yielded something that was refused."""
        return self.error is not None or bool(self.rejected)


def known_plugin(name: str) -> None:
    """Hold that a plugin of this name is installed.

    Raises:
        UserError: There is none; the text names the nearest.
    """
    installed = installed_plugins()
    if name not in installed:
        near = nearest(name, installed)
        hint = f"; did you mean {near!r}?" if near else ""
        raise UserError(f"no plugin {name!r} is installed{hint} (openclaw-exporter plugins lists them)")


def load_all(
    tables: Mapping[str, Mapping[str, object]],
    settings: CollectionSettings,
    *,
    only: Collection[str] | None = None,
    source: str = "",
) -> LoadedPlugins:
    """Load plugins as the agent does: one whose table asks for a process is not even imported here.

    Args:
        tables: The `[plugins.NAME]` tables by name.
        settings: What holds where neither a table nor a plugin says anything, and the limits of processes.
        only: Load these plugins and no others.
        source: Where the tables came from, for error texts.
    """
    installed = scan_plugins()
    elsewhere = {
        name
        for name, table in tables.items()
        if asks_for_process(table) and name in installed.plugins and (only is None or name in only)
    }
    parts = [
        load_plugins(
            {name: table for name, table in tables.items() if name not in elsewhere},
            default_interval=settings.interval,
            default_deadline=settings.deadline,
            only=None if only is None else set(only) - elsewhere,
            source=source,
            installed=installed._replace(
                plugins={name: found for name, found in installed.plugins.items() if name not in elsewhere}
            ),
        )
    ]
    for name in sorted(elsewhere):
        from openclaw_exporter.agent.elsewhere import load_elsewhere  # noqa: PLC0415 - brings subprocess

        parts.append(load_elsewhere(name, tables[name], settings, source))
    return LoadedPlugins(
        tuple(collector for part in parts for collector in part.collectors),
        tuple(failure for part in parts for failure in part.failures),
        tuple(plugin for part in parts for plugin in part.plugins),
    )


class Apart(Runner):
    """Runs one collector in a process of its own, with the limits that the agent gives it.

    The process keeps its deadlines itself; the thread is for what a collector says without one, `absent()`.

    Args:
        loaded: The collector.
        limits: The table `[collection.process]`.
    """

    def __init__(self, loaded: LoadedCollector, limits: ProcessSettings) -> None:
        # Nobody here waits a minute for a driver that hangs; its process is left behind all the same.
        limits = replace(limits, long_grace=min(limits.grace, limits.long_grace))
        self._source = ChildSource(loaded, Guard(loaded.series_budget), limits)
        self._failure: ChildError | None = None
        patience = limits.start_deadline + loaded.deadline + 2 * limits.grace
        super().__init__(loaded.collector, deadline=patience, series_budget=loaded.series_budget)

    def run(self) -> Run:
        """Collect once."""
        run, failure = super().run(), self._failure
        if run.failed or failure is None:
            return run
        return replace(run, error=str(failure), error_type=failure.error_type)

    def _collect(self) -> Checked:
        self._failure = None
        try:
            return self._source.run()
        except ChildError as error:
            self._failure = error
            return Checked((), ())

    def _close(self) -> Checked:
        self._source.close()
        return Checked((), ())


class Round:
    """Collectors that run side by side, as often as they are asked to; a context manager that closes them.

    Args:
        collectors: The collectors.
        limits: The limits of those that run in processes of their own.
    """

    def __init__(self, collectors: Sequence[LoadedCollector], limits: ProcessSettings) -> None:
        self._loaded = tuple(collectors)
        self._runners = [
            Apart(one, limits)
            if one.isolation == "process"
            else Runner(one.collector, deadline=one.deadline, series_budget=one.series_budget)
            for one in collectors
        ]
        self._pool = ThreadPoolExecutor(max(1, len(self._runners)), thread_name_prefix="collect")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.map(lambda runner: runner.close(), self._runners)
        self._pool.shutdown()

    def collect(self) -> list[Collected]:
        """Run all of them side by side and return what each yielded, in their order."""
        runs = self._pool.map(lambda runner: runner.run(), self._runners)
        return [_collected(loaded, run) for loaded, run in zip(self._loaded, runs, strict=True)]


def collect_once(collectors: Sequence[LoadedCollector], limits: ProcessSettings) -> list[Collected]:
    """Run all collectors side by side, within a process's limits, and return what each yielded, in order."""
    with Round(collectors, limits) as once:
        return once.collect()


def _collected(loaded: LoadedCollector, run: Run) -> Collected:
    error = run.error
    if run.overdue:
        error = f"not done within its deadline of {loaded.deadline:g} s"
    return Collected(loaded.plugin, loaded.name, run.seconds, run.observations, run.rejected, error)
