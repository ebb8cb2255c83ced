"""Reading a TOML file, with every way to fail named by file, line and column."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Final

from openclaw_exporter.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

_PLACE: Final = re.compile(r"(?P<what>.*) \(at line (?P<line>\d+), column (?P<column>\d+)\)", re.DOTALL)


def read_file(path: Path) -> dict[str, object]:
    """Return the tables of a TOML file.

    Raises:
        UserError: It cannot be read, or it is not TOML.
    """
    try:
        text = path.read_bytes().decode()
        return tomllib.loads(text)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; name the configuration that is meant") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line}: not UTF-8, as TOML has to be") from error
    except tomllib.TOMLDecodeError as error:
        raise UserError(_not_toml(path, text, str(error))) from None


def _not_toml(path: Path, text: str, message: str) -> str:
    place = _PLACE.fullmatch(message)
    if place is not None:
        return f"{path}:{place['line']}:{place['column']}: not TOML: {place['what']}"
    lines = text.splitlines() or [""]
    return f"{path}:{len(lines)}:{len(lines[-1]) + 1}: not TOML: {message}"
