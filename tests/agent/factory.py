"""Test plugins: real distributions with an entry point, each in a folder that goes on `sys.path`."""

from __future__ import annotations

import itertools
import textwrap
from typing import TYPE_CHECKING

from openclaw_exporter.plugin.host import LoadedCollector, load_plugins

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

HEADER = """
import ctypes, os, signal, sys, threading, time
from dataclasses import dataclass
from openclaw_exporter.plugin import Capacity, Measurement, QueueDepth, Tag, Uptime, hookimpl
"""
FOOTER = """
@hookimpl
def openclaw_collectors():
    return [C()]
"""
_NUMBERS = itertools.count()
BUNDLED_OFF = {name: {"enabled": False} for name in ("system", "chimera", "gpu")}


class Factory:
    """Writes plugins into one folder.

    Attributes:
        folder: Where they are; a process that is to find them needs it on its path.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        monkeypatch.syspath_prepend(str(folder))
        self._monkeypatch = monkeypatch
        # Imported modules outlive a test, so each folder has names of its own.
        self._prefix = f"test_plugin_{next(_NUMBERS)}"

    def module(self, name: str) -> str:
        """Return the name of a plugin's module."""
        return f"{self._prefix}_{name}"

    def write(self, name: str, body: str, *, footer: str = FOOTER, on_request: bool = False) -> str:
        """Write the plugin `name`, whose class `C` (or own hook) is `body`; return its name."""
        module = self.module(name)
        source = HEADER + textwrap.dedent(body) + footer
        (self.folder / f"{module}.py").write_text(source)
        info = self.folder / f"{module}-1.0.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        groups = ["openclaw_exporter", *(["openclaw_exporter.on_request"] if on_request else [])]
        (info / "entry_points.txt").write_text("".join(f"[{group}]\n{name} = {module}\n" for group in groups))
        self._monkeypatch.syspath_prepend(str(self.folder))  # drops the import system's caches
        return name

    def load(self, name: str, **table: object) -> LoadedCollector:
        """Load the one collector of a plugin, as the agent does."""
        loaded = load_plugins({name: table}, only={name})
        assert not loaded.failures, loaded.failures
        (collector,) = loaded.collectors
        return collector

    def one(self, name: str, collect: str, attributes: str = "", **table: object) -> LoadedCollector:
        """Write a plugin with one collector whose `collect` has this body, and load it.

        Its deadline is a minute where none is given: a crowded machine misses shorter ones.
        """
        body = f"name = {name!r}\n{textwrap.dedent(attributes)}\ndef collect(self):\n"
        body += textwrap.indent(textwrap.dedent(collect), "    ")
        self.write(name, "class C:\n" + textwrap.indent(body, "    "))
        return self.load(name, **{"interval": 60.0, "deadline": 60.0} | table)
