"""Settings from environment variables alone, for a program that embeds the publisher without the agent."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_type_hints

import msgspec

from openclaw_exporter.client.settings import ClientSettings, check
from openclaw_exporter.errors import ConfigError, ConfigProblem

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX: Final = "OPENCLAW_"

# PEM, or a JSON Web Token: as a path it would be in every error text.
_holds_secret = re.compile(r"-----BEGIN |eyJ[\w-]{8,}\.").search

_PLAIN_WORDS: Final = {"int": "an integer", "float": "a number", "bool": "true or false", "str": "text"}
"""What msgspec calls a type, and what a person does."""


def load_settings_from_env(environ: Mapping[str, str]) -> ClientSettings:
    """Read the publisher's settings: OPENCLAW_ENABLED, OPENCLAW_ENDPOINT, OPENCLAW_TLS_CA and so on.

    Every key of `[openclaw]` has the variable OPENCLAW_<KEY>, every key of a table within it
    OPENCLAW_<TABLE>_<KEY>. An empty variable counts as not set; other OPENCLAW_ variables are left alone.

    Example:
        >>> load_settings_from_env({"OPENCLAW_ENABLED": "false"}).enabled
        False

    Args:
        environ: The variables, such as `os.environ`.

    Raises:
        ConfigError: Variables are wrong or missing; all of them are named.
    """
    problems: list[ConfigProblem] = []
    settings: ClientSettings = _read(ClientSettings, environ, (), problems)
    if not problems:
        problems.extend(
            dataclasses.replace(problem, source=_variable(problem.key.removeprefix("openclaw.")))
            for problem in check(settings)
        )
    if problems:
        raise ConfigError(tuple(problems))
    return settings


def _read(cls: type, environ: Mapping[str, str], path: tuple[str, ...], problems: list[ConfigProblem]) -> Any:
    values: dict[str, object] = {}
    for name, annotation in get_type_hints(cls, include_extras=True).items():
        here = (*path, name)
        if dataclasses.is_dataclass(annotation):
            values[name] = _read(annotation, environ, here, problems)  # type: ignore[arg-type] # a class
            continue
        variable = _variable(".".join(here))
        text = environ.get(variable, "").strip()
        if not text:
            continue
        try:
            values[name] = _value(text, annotation)
        except msgspec.ValidationError as error:
            # The text itself is not repeated: an environment may hold anything.
            allowed = str(error).replace(", got `str`", "").replace("Expected ", "").replace("`", "")
            key = ".".join(("openclaw", *here))
            problems.append(ConfigProblem(key, "cannot be read", _plain(allowed), source=variable))
    return cls(**values)


def _value(text: str, annotation: Any) -> object:
    if annotation == Path | None:
        if _holds_secret(text):
            raise msgspec.ValidationError("Expected the path of a file, not what is in it")
        return Path(text)
    return msgspec.convert(text, annotation, strict=False)


def _plain(allowed: str) -> str:
    if allowed.startswith("Invalid enum"):
        return "one of the documented values"
    for word, plain in _PLAIN_WORDS.items():
        allowed = re.sub(rf"\b{word}\b", plain, allowed)
    return allowed


def _variable(key: str) -> str:
    return PREFIX + key.upper().replace(".", "_")
