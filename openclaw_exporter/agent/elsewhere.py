"""Learning a plugin's collectors without importing it: a process of its own loads it and tells what they are.

That is for a plugin whose table says `isolation = "process"`: not even its import can harm the agent then.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from openclaw_exporter.agent.pipe import ChildError, Failed, Loaded, Start
from openclaw_exporter.agent.process import Child
from openclaw_exporter.plugin.host import LoadedCollector, LoadedPlugins, PluginFailure

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from openclaw_exporter.agent.settings import CollectionSettings
    from openclaw_exporter.plugin import Observation


@dataclass(slots=True)
class Elsewhere:
    """Stands for a collector that the agent never has.

    Attributes:
        name: The collector's name.
        abandon_when_hung: Whether its process may not be killed.
    """

    name: str
    abandon_when_hung: bool

    def collect(self) -> Iterable[Observation]:
        """Not here.

        Raises:
            RuntimeError: Always.
        """
        raise RuntimeError(f"collector {self.name!r} runs in a process of its own only")


def load_elsewhere(
    name: str, table: Mapping[str, object], settings: CollectionSettings, source: str
) -> LoadedPlugins:
    """Return the plugin's collectors, or why it has none, as `load_plugins` does.

    Args:
        name: The plugin.
        table: Its table.
        settings: What holds where the table says nothing, and the limits of the process.
        source: Where the table came from, for error texts.
    """
    limits = settings.process
    start = Start(
        plugin=name,
        collector="",
        table=dict(table),
        path=list(sys.path),
        parent=os.getpid(),
        death_signal=signal.SIGKILL,
        series_budget=1,
        memory_limit=limits.memory_limit,
        cpu_limit=limits.cpu_limit,
        load_deadline=limits.start_deadline,
        default_interval=settings.interval,
        default_deadline=settings.deadline,
        source=source,
    )
    child = Child()
    try:
        answer = child.begin(start, time.monotonic() + limits.start_deadline)
    except ChildError as error:
        return _failed(name, f"plugin {name!r}: it cannot be loaded in a process of its own: {error}")
    finally:
        child.end(grace=limits.grace, killable=True)
    if isinstance(answer, Failed):
        return _failed(name, answer.text)
    if not isinstance(answer, Loaded):
        return _failed(name, f"plugin {name!r}: its process answered something else than it was asked")
    return LoadedPlugins(
        collectors=tuple(
            LoadedCollector(
                plugin=name,
                name=entry.name,
                collector=Elsewhere(entry.name, entry.abandon_when_hung),
                interval=entry.interval,
                deadline=entry.deadline,
                isolation="process",
                series_budget=entry.series_budget,
                options_table=table,
            )
            for entry in answer.collectors
        )
    )


def _failed(name: str, text: str) -> LoadedPlugins:
    return LoadedPlugins(failures=(PluginFailure(name, text),))
