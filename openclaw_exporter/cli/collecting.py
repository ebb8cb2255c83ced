"""Running collectors, each on a thread of its own and no longer than its deadline."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from openclaw_exporter.errors import UserError
from openclaw_exporter.plugin.guard import Rejection
from openclaw_exporter.plugin.host import installed_plugins
from openclaw_exporter.plugin.observations import Observation
from openclaw_exporter.plugin.options import nearest
from openclaw_exporter.plugin.runner import Run, Runner

if TYPE_CHECKING:
    from collections.abc import Sequence

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


class Round:
    """Collectors that run side by side, as often as they are asked to; a context manager that closes them."""

    def __init__(self, collectors: Sequence[LoadedCollector]) -> None:
        self._loaded = tuple(collectors)
        self._runners = [
            Runner(one.collector, deadline=one.deadline, series_budget=one.series_budget)
            for one in collectors
        ]
        self._pool = ThreadPoolExecutor(max(1, len(self._runners)), thread_name_prefix="collect")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.map(Runner.close, self._runners)
        self._pool.shutdown()

    def collect(self) -> list[Collected]:
        """Run all of them side by side and return what each yielded, in their order."""
        runs = self._pool.map(Runner.run, self._runners)
        return [_collected(loaded, run) for loaded, run in zip(self._loaded, runs, strict=True)]


def collect_once(collectors: Sequence[LoadedCollector]) -> list[Collected]:
    """Run all collectors side by side and return what each yielded, in their order."""
    with Round(collectors) as once:
        return once.collect()


def _collected(loaded: LoadedCollector, run: Run) -> Collected:
    error = run.error
    if run.overdue:
        error = f"not done within its deadline of {loaded.deadline:g} s"
    return Collected(loaded.plugin, loaded.name, run.seconds, run.observations, run.rejected, error)
