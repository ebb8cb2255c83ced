"""Environment variables over the file: each key has one, and its text is read by the key's type."""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING, Any, Final, Literal, get_args, get_origin

import msgspec

from openclaw_exporter.config.keys import Path
from openclaw_exporter.errors import ConfigProblem
from openclaw_exporter.plugin.redaction import shown
from openclaw_exporter.plugin.words import is_list, is_settings, is_table, members, unwrap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from openclaw_exporter.config.keys import Key

PREFIX: Final = "OPENCLAW_"
CONFIG_VARIABLE: Final = "OPENCLAW_CONFIG"
"""Names the configuration file, for every command that has `--config`."""

_WORDS: Final = {"true": True, "1": True, "false": False, "0": False}


class Overlay(msgspec.Struct, frozen=True):
    """What the environment says.

    Attributes:
        values: The value of each key that a variable sets.
        variables: The variable that set it.
        problems: Variables whose text cannot be read as their key's type.
        warnings: Variables that begin like ours and set nothing, each with the nearest right one, as text.
    """

    values: dict[Path, object] = msgspec.field(default_factory=dict)
    variables: dict[Path, str] = msgspec.field(default_factory=dict)
    problems: list[ConfigProblem] = msgspec.field(default_factory=list)
    warnings: list[str] = msgspec.field(default_factory=list)


def read_environment(environ: Mapping[str, str], keys: Iterable[Key]) -> Overlay:
    """Read every variable that sets one of the keys.

    An empty variable counts as not set, as OpenTelemetry's environment specification has it. A variable that
    begins like ours and sets nothing is no error, because other programs may read the same environment.

    Args:
        environ: The variables.
        keys: Every key that there is.
    """
    overlay = Overlay()
    known = {key.variable: key for key in keys}
    for variable, text in sorted(environ.items()):
        if not variable.startswith(PREFIX) or variable == CONFIG_VARIABLE or not text:
            continue
        key = known.get(variable)
        if key is None:
            overlay.warnings.append(_unknown(variable, known))
            continue
        try:
            overlay.values[key.path] = read_text(text, key.type)
        except ValueError:
            message = f"got {shown(key.path[-1], text)}"
            overlay.problems.append(ConfigProblem(key.name, message, key.allowed, source=variable))
        else:
            overlay.variables[key.path] = variable
    return overlay


def _unknown(variable: str, known: Iterable[str]) -> str:
    # Without the prefix that all have in common, and that would make strangers look alike.
    names = [name.removeprefix(PREFIX) for name in known]
    import difflib  # noqa: PLC0415 - for mistakes alone

    nearest = difflib.get_close_matches(variable.removeprefix(PREFIX), names, n=1)
    hint = f"; did you mean {PREFIX}{nearest[0]}?" if nearest else ""
    return f"the environment variable {variable} sets no key of the configuration and is ignored{hint}"


def read_text(text: str, annotation: Any) -> object:
    """Read a variable's text by a key's type.

    Lists are comma-separated, or JSON; tables are JSON, or inline tables of TOML.

    Example:
        >>> read_text("a, b", tuple[str, ...]), read_text("1", bool), read_text("{x = 1}", dict[str, int])
        (['a', 'b'], True, {'x': 1})

    Raises:
        ValueError: The text is nothing of that type.
    """
    options = [option for option in members(annotation) if option is not type(None)]
    # Of several types the narrowest that fits wins; a string takes everything, so it comes last.
    for option in sorted(options, key=lambda option: unwrap(option)[0] is str):
        try:
            return _read_one(text, unwrap(option)[0])
        except ValueError:
            continue
    raise ValueError("the text fits none of the key's types")


def _read_one(text: str, base: Any) -> object:
    reader = _READERS.get(base)
    if reader is not None:
        return reader(text)
    if get_origin(base) is Literal:
        return next((choice for choice in get_args(base) if str(choice) == text), text)
    if is_list(base):
        return _read_list(text, get_args(base)[0])
    if base is dict or is_table(base) or is_settings(base):
        return _read_structure(text, dict)
    return text


def _read_number(kind: type[int | float]) -> Callable[[str], object]:
    def read(text: str) -> object:
        if not text.isascii():
            raise ValueError(text)
        return kind(text)

    return read


def _read_bool(text: str) -> bool:
    try:
        return _WORDS[text.strip().lower()]
    except KeyError:
        raise ValueError(text) from None


def _read_list(text: str, item: Any) -> object:
    if text.lstrip().startswith("["):
        return _read_structure(text, list)
    return [read_text(part.strip(), item) for part in text.split(",") if part.strip()]


def _read_structure(text: str, kind: type) -> object:
    try:
        value = json.loads(text)
    except ValueError:
        value = _toml_value(text)
    if not isinstance(value, kind):
        raise ValueError(text)  # noqa: TRY004 - the text is wrong, not a Python type
    return value


def _read_anything(text: str) -> object:
    """Read what a plugin has not declared: TOML where it is TOML, else the text itself."""
    try:
        return _toml_value(text)
    except ValueError:
        return text


def _toml_value(text: str) -> object:
    table = tomllib.loads(f"value = {text}")
    if len(table) != 1:
        raise ValueError(text)
    return table["value"]


_READERS: Final[dict[Any, Callable[[str], object]]] = {
    bool: _read_bool,
    int: _read_number(int),
    float: _read_number(float),
    object: _read_anything,
    Any: _read_anything,
}
