"""Loading plugins beside the publishing: each by itself, so that a slow import holds nobody else up."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Final

from openclaw_exporter.plugin.host import load_plugins, scan_plugins
from openclaw_exporter.plugin.host_keys import asks_for_process

if TYPE_CHECKING:
    from openclaw_exporter.agent.collection import Collection
    from openclaw_exporter.agent.settings import AgentConfig
    from openclaw_exporter.plugin.host import Installed, LoadedPlugins

_LOGGER: Final = logging.getLogger(__name__)


class PluginLoader:
    """Loads the plugins of a configuration and gives their collectors to the collection.

    Args:
        collection: What runs the collectors.
    """

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self._threads: tuple[threading.Thread, ...] = ()

    def start(self, config: AgentConfig) -> None:
        """Begin to load every plugin, each on a thread of its own; its collectors run as soon as they are."""
        installed = scan_plugins()
        self._threads = tuple(
            threading.Thread(
                target=self._load_first, args=(config, name, installed), name=f"load-{name}", daemon=True
            )
            for name in sorted(installed.wanted(config.plugins))
        )
        for thread in self._threads:
            thread.start()

    def wait(self, timeout: float) -> bool:
        """Wait a bounded time until all are loaded; tell whether that came about."""
        until = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def reload(self, old: AgentConfig, new: AgentConfig) -> None:
        """Load again each plugin whose configuration is another one; a plugin that fails stays as it was."""
        installed = scan_plugins()
        present = installed.wanted(new.plugins)
        for name in sorted({*installed.wanted(old.plugins), *present}):
            if old.collection == new.collection and old.plugins.get(name) == new.plugins.get(name):
                continue
            mine = [item for item in self._collection.loaded if item.plugin == name]
            others = [item for item in self._collection.loaded if item.plugin != name]
            if name not in present:  # its table is gone, and without one it has nothing to do
                self._collection.note_loaded(name)
                self._collection.replace(others)
                continue
            loaded = _load(new, name, installed)
            if loaded.failures:
                kept = "; the collectors that run stay as they are" if mine else ""
                _LOGGER.error("%s%s", loaded.failures[0], kept)
                self._collection.note_unloaded(name)
                continue
            self._collection.note_loaded(name)
            self._collection.replace((*others, *loaded.collectors))
            _LOGGER.info("plugin %s: %d collectors after the reload", name, len(loaded.collectors))

    def _load_first(self, config: AgentConfig, name: str, installed: Installed) -> None:
        loaded = _load(config, name, installed)
        for failure in loaded.failures:
            _LOGGER.error("%s", failure)
            self._collection.note_unloaded(name)
        if loaded.collectors:
            self._collection.add(loaded.collectors)


def _load(config: AgentConfig, name: str, installed: Installed) -> LoadedPlugins:
    table = config.plugins.get(name, {})
    if asks_for_process(table):
        from openclaw_exporter.agent.elsewhere import load_elsewhere  # noqa: PLC0415 - only when used

        return load_elsewhere(name, table, config.collection, config.source)
    return load_plugins(
        config.plugins,
        default_interval=config.collection.interval,
        default_deadline=config.collection.deadline,
        only={name},
        source=config.source,
        installed=installed,
    )
