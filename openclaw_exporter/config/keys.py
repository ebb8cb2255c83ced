"""Every key of the configuration: its type, default, environment variable and description.

The keys are read off the settings classes of the rooms, so this list cannot disagree with what the programs
accept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from openclaw_exporter.plugin.options import describe

if TYPE_CHECKING:
    from collections.abc import Iterator

Path: TypeAlias = tuple[str, ...]
"""The parts of a dotted key; a plugin's name is one part, whatever characters it has."""


class Key(msgspec.Struct, frozen=True):
    """One key of the configuration.

    Attributes:
        path: The parts of its dotted name.
        type: The annotation of its field in the settings class.
        allowed: What it allows, in words.
        default: Its default, as TOML; empty where it has none.
        required: Whether its table needs it.
        description: What it is for, in one line.
    """

    path: Path
    type: Any
    allowed: str
    default: str
    required: bool
    description: str

    @property
    def name(self) -> str:
        """The dotted key, such as `openclaw.interval`."""
        return ".".join(self.path)

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return variable_of(self.path)


def variable_of(path: Path) -> str:
    """Return the environment variable of a key: the table `[openclaw]` itself is left out of it.

    Example:
        >>> variable_of(("openclaw", "tls", "ca")), variable_of(("receiver", "port"))
        ('OPENCLAW_TLS_CA', 'OPENCLAW_RECEIVER_PORT')
    """
    parts = path[1:] if path[0] == "openclaw" else path
    return "_".join(re.sub(r"\W", "_", part, flags=re.ASCII).upper() for part in ("openclaw", *parts))


def keys_of(cls: type, path: Path) -> Iterator[Key]:
    """Yield the keys of a settings class whose table stands at `path`, those of its inner tables included."""
    for info in describe(cls):
        default = "" if info.required or info.default is None else toml_text(info.default)
        inner = (*path, *info.key.split("."))
        yield Key(inner, info.type, info.type_text, default, info.required, info.description)


def toml_text(value: object) -> str:
    """Return a value as TOML, on one line.

    Example:
        >>> toml_text({"a": [1, True, "x"]})
        '{a = [1, true, "x"]}'
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        return f"[{', '.join(toml_text(item) for item in value)}]"
    if is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping):
        shown = (f"{_key_text(key)} = {toml_text(item)}" for key, item in value.items() if item is not None)
        return "{" + ", ".join(shown) + "}"
    return string_text(str(value))


def string_text(text: str) -> str:
    """Return a string as a TOML basic string."""
    # JSON escapes everything that TOML wants escaped, except DEL.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key_text(key: object) -> str:
    text = str(key)
    return text if re.fullmatch(r"[A-Za-z0-9_-]+", text) else string_text(text)
