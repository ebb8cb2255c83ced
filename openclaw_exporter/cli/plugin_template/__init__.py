"""The distribution that `openclaw-exporter plugins new` writes, and the writing of it."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path
from string import Template
from typing import Final

from openclaw_exporter.cli.places import taken
from openclaw_exporter.errors import UserError
from openclaw_exporter.plugin.hooks import API_VERSION

_HERE: Final = Path(__file__).parent
_NAME: Final = re.compile(r"[a-z][a-z0-9]*(?:[_-][a-z0-9]+)*")
_LONGEST: Final = 40
_FILES: Final = {
    "pyproject.toml.in": "pyproject.toml",
    "module.py.in": "{module}.py",
    "conftest.py.in": "tests/conftest.py",
    "test_module.py.in": "tests/test_{module}.py",
    "README.md.in": "README.md",
}


def write(name: str, directory: Path) -> list[Path]:
    """Write a new distribution with one plugin; return its files.

    Args:
        name: The plugin's name.
        directory: Where it goes; made where it is not there.

    Raises:
        UserError: The name cannot be one, or a file is there already or cannot be written.
    """
    if len(name) > _LONGEST or not _NAME.fullmatch(name):
        raise UserError(
            f"a plugin cannot be called {name[:80]!r}: allowed are up to {_LONGEST} small letters, digits, "
            "and single _ or - between them, such as 'render_farm'"
        )
    words = words_for(name)
    contents = {
        directory / target.format(**words): Template((_HERE / template).read_text()).substitute(words)
        for template, target in _FILES.items()
    }
    there = taken(contents)
    if there:
        raise UserError(f"{there[0]} is there already: name another place with --directory")
    try:
        for path, text in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be written: {error.strerror}") from error
    return list(contents)


def words_for(name: str) -> dict[str, str]:
    """Return what stands in the template's places."""
    plain = name.replace("-", "_")
    return {
        "name": name,
        "distribution": f"openclaw-exporter-{name.replace('_', '-')}",
        "module": f"openclaw_exporter_{plain}",
        "metric": plain,
        "api": str(API_VERSION),
        "version": version("openclaw-exporter"),
    }
