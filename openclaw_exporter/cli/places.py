"""Where commands write files."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def taken(paths: Iterable[Path]) -> list[Path]:
    """Return the paths at which there is something; where nobody may look, writing will tell."""
    return [path for path in paths if _is_there(path)]


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # such as that a name is too long; until Python 3.12 also that it may not be looked at
        return False
