"""Plugins that a test installs: real distributions in a folder on `sys.path`."""

from __future__ import annotations

import itertools
import sys
import textwrap
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_NUMBERS = itertools.count()


class Install(Protocol):
    """Installs one distribution with one plugin."""

    def __call__(
        self, name: str, code: str, *, distribution: str = "", version: str = "1.0", target: str = ""
    ) -> str:
        """Return the name of the plugin's module."""
        ...


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Write a module and the `.dist-info` that names it, where `importlib.metadata` finds both."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    modules: list[str] = []

    def write(name: str, code: str, *, distribution: str = "", version: str = "1.0", target: str = "") -> str:
        module = f"fixture_plugin_{next(_NUMBERS)}"
        modules.append(module)
        project = distribution or f"fixture-{name}-{len(modules)}"
        (site / f"{module}.py").write_text(textwrap.dedent(code), encoding="utf-8")
        info = site / f"{project.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n"
        (info / "METADATA").write_text(metadata, encoding="utf-8")
        entry = f"[openclaw_exporter]\n{name} = {target.format(module=module) or module}\n"
        (info / "entry_points.txt").write_text(entry, encoding="utf-8")
        # importlib.metadata keeps a listing of each folder for as long as the folder's time stays the same.
        monkeypatch.syspath_prepend(str(site))
        return module

    yield write
    for module in modules:
        sys.modules.pop(module, None)
