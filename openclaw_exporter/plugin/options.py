"""Typed tables: a dictionary as TOML gives it becomes a frozen dataclass, or all of its problems at once.

A settings class is a plain dataclass. Its annotations are the rules: `Annotated[int, msgspec.Meta(ge=30)]`,
`Literal[…]`, `X | None`, `tuple[X, ...]`, `dict[str, X]`, `pathlib.Path`, and other settings classes for
tables within the table. A `__post_init__` that raises `ValueError` checks what one annotation cannot say.
The Google-style `Attributes:` section of the class's docstring is the documentation of its keys.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from openclaw_exporter.errors import ConfigError, ConfigProblem
from openclaw_exporter.plugin.redaction import kind_of, one_line, redact, shown
from openclaw_exporter.plugin.words import is_list, is_settings, is_table, members, type_text, unwrap

T = TypeVar("T")

_ENTRY: Final = re.compile(r"^(?P<name>\w+)(?:\s*\([^)]*\))?:\s*(?P<text>.*)$")
_BROKEN: Final = object()


class OptionInfo(msgspec.Struct, frozen=True):
    """One key of a settings class, for documentation, environment variables and error texts.

    Attributes:
        key: The key, dotted where it stands in a table of its own (`tls.ca`).
        type_text: What it allows, in words.
        default: Its default; None for a required key too, so look at `required`.
        description: Its entry in the class's docstring, in one line; empty where there is none.
        type: The annotation, with `Annotated`.
        required: Whether it has no default.
    """

    key: str
    type_text: str
    default: object
    description: str
    type: Any
    required: bool


def read_table(
    cls: type[T],
    table: Mapping[str, object],
    *,
    key: str,
    source: str = "",
    reserved: Collection[str] = (),
) -> T:
    """Read a table strictly into a settings class: an integer does for a number, nothing else is coerced.

    Args:
        cls: A dataclass.
        table: What the configuration says.
        key: The dotted key of the table, for error texts; empty for the root.
        source: Where the table came from: a file's name, an environment variable.
        reserved: Keys of the table that belong to somebody else and are passed over.

    Raises:
        ConfigError: One or more keys are wrong, unknown or missing: all of them, with their dotted keys.
        TypeError: The class is no dataclass, or one of its annotations cannot be resolved.
    """
    reader = _Reader(source)
    value = reader.table(cls, table, key, reserved)
    if reader.problems:
        raise ConfigError(tuple(reader.problems))
    return value  # type: ignore[no-any-return] # a table without problems is an instance of cls


def describe(cls: type) -> tuple[OptionInfo, ...]:
    """List the keys of a settings class in their order, those of inner tables by dotted keys.

    Raises:
        TypeError: The class is no dataclass, or one of its annotations cannot be resolved.
    """
    listed: list[OptionInfo] = []
    texts = _documented(cls)
    for name, field in _fields(cls).items():
        inner = _inner_settings(field.annotation)
        text = texts.get(name, "")
        if inner is None:
            default = None if field.required else field.default()
            listed.append(
                OptionInfo(name, type_text(field.annotation), default, text, field.annotation, field.required)
            )
        else:
            listed.extend(msgspec.structs.replace(info, key=f"{name}.{info.key}") for info in describe(inner))
    return tuple(listed)


def nearest(name: str, candidates: Collection[str]) -> str | None:
    """Return the candidate that a person who typed `name` most probably meant, or None."""
    import difflib  # noqa: PLC0415 - for mistakes alone

    found = difflib.get_close_matches(name.lower(), list(candidates), n=1, cutoff=0.6)
    return found[0] if found else None


class _Field(msgspec.Struct, frozen=True):
    annotation: Any
    field: dataclasses.Field[Any]

    @property
    def required(self) -> bool:
        missing = dataclasses.MISSING
        return self.field.default is missing and self.field.default_factory is missing

    def default(self) -> object:
        if self.field.default_factory is not dataclasses.MISSING:
            return self.field.default_factory()
        return self.field.default


@functools.lru_cache(maxsize=128)
def _fields(cls: type) -> Mapping[str, _Field]:
    if not is_settings(cls):
        raise TypeError(f"{cls!r} is no dataclass")
    try:
        hints = get_type_hints(cls, include_extras=True)
    except NameError as error:
        raise TypeError(
            f"{cls.__name__}: an annotation cannot be resolved ({error}); import its type at run time"
        ) from error
    return {field.name: _Field(hints[field.name], field) for field in dataclasses.fields(cls) if field.init}


def _documented(cls: type) -> dict[str, str]:
    """Return the entries of the docstring's `Attributes:` section, each in one line."""
    texts: dict[str, str] = {}
    name = ""
    inside = False
    for line in _dedented(cls.__doc__ or ""):
        if not line.startswith(" "):
            inside = line.rstrip() == "Attributes:" or (inside and not line)
            continue
        entry = _ENTRY.match(line[4:]) if inside else None
        if entry:
            name = entry["name"]
            texts[name] = entry["text"].strip()
        elif inside and name:
            texts[name] = f"{texts[name]} {line.strip()}".strip()
    return texts


def _dedented(docstring: str) -> list[str]:
    first, *rest = docstring.expandtabs(4).split("\n")
    margin = min((len(line) - len(line.lstrip()) for line in rest if line.strip()), default=0)
    return [first.strip(), *(line[margin:].rstrip() for line in rest)]


def _inner_settings(annotation: Any) -> type | None:
    """Return the settings class of an annotation `X` or `X | None`."""
    found = [base for member in members(annotation) if is_settings(base := unwrap(member)[0])]
    return found[0] if found else None


def _decode_foreign(expected: type, value: object) -> object:
    """Read what msgspec does not know: paths."""
    # The key or token itself in the place of its file: as a path it would be in every error text.
    if (
        expected is Path
        and isinstance(value, (str, Path))
        and str(value)
        and redact(str(value)) == str(value)
    ):
        return Path(value)
    raise ValueError("not allowed here")


class _Reader:
    """Reads one table and those within it, and gathers every problem."""

    def __init__(self, source: str) -> None:
        self.problems: list[ConfigProblem] = []
        self._source = source

    def table(self, cls: type, value: object, key: str, reserved: Collection[str] = ()) -> Any:
        """Return an instance of the settings class, or `_BROKEN` after noting its problems."""
        if not isinstance(value, Mapping):
            return self._refuse(key, value, cls)
        before = len(self.problems)
        fields = _fields(cls)
        for name in value:
            if name not in fields and name not in reserved:
                known = nearest(str(name), {*fields, *reserved})
                self._note(_dotted(key, str(name)), "unknown key", near=known)
        read: dict[str, object] = {}
        for name, field in fields.items():
            if name in value and name not in reserved:
                read[name] = self.value(field.annotation, value[name], _dotted(key, name))
            elif field.required:
                self._note(_dotted(key, name), "missing", allowed=type_text(field.annotation))
        return self._build(cls, read, key) if len(self.problems) == before else _BROKEN

    def value(self, annotation: Any, value: object, key: str) -> Any:
        """Return the value as its annotation wants it, or `_BROKEN` after noting its problems."""
        base, _ = unwrap(annotation)
        inner = _inner_settings(annotation)
        if inner is not None and (isinstance(value, Mapping) or is_settings(base)):
            return self.table(inner, value, key)
        if is_list(base) and isinstance(value, (list, tuple)):
            return self._list(annotation, base, value, key)
        if is_table(base) and isinstance(value, Mapping):
            return self._free_table(annotation, base, value, key)
        return self._leaf(annotation, value, key)

    def _build(self, cls: type, read: dict[str, object], key: str) -> Any:
        try:
            return cls(**read)
        except ConfigError as error:
            self.problems.extend(error.problems)
        except ValueError as error:
            self._note(key, one_line(str(error)))
        return _BROKEN

    def _list(self, annotation: Any, base: Any, value: list[Any] | tuple[Any, ...], key: str) -> Any:
        if not self._size_fits(annotation, value, key):
            return _BROKEN
        item = get_args(base)[0]
        read = [self.value(item, member, f"{key}[{index}]") for index, member in enumerate(value)]
        if any(member is _BROKEN for member in read):
            return _BROKEN
        container = get_origin(base)
        return container(read) if container in (list, set, frozenset) else tuple(read)

    def _free_table(self, annotation: Any, base: Any, value: Mapping[str, object], key: str) -> Any:
        if not self._size_fits(annotation, value, key):
            return _BROKEN
        key_type, value_type = get_args(base)
        read: dict[Any, Any] = {}
        for name, member in value.items():
            read[self._leaf(key_type, name, _dotted(key, str(name)), what="the key")] = self.value(
                value_type, member, _dotted(key, str(name))
            )
        return _BROKEN if _BROKEN in read or any(v is _BROKEN for v in read.values()) else read

    def _size_fits(self, annotation: Any, value: Any, key: str) -> bool:
        for meta in unwrap(annotation)[1]:
            least, most = meta.min_length, meta.max_length
            if (least is not None and len(value) < least) or (most is not None and len(value) > most):
                self._note(key, f"got {shown('', value)}", allowed=type_text(annotation))
                return False
        return True

    def _leaf(self, annotation: Any, value: object, key: str, *, what: str = "") -> Any:
        if _finite(value):
            try:
                return msgspec.convert(value, annotation, strict=True, dec_hook=_decode_foreign)
            except (msgspec.ValidationError, ValueError):
                pass
        return self._refuse(key, value, annotation, what=what)

    def _refuse(self, key: str, value: object, annotation: Any, *, what: str = "") -> Any:
        name = re.sub(r"(?:\[\d+\])+$", "", key).rpartition(".")[2]
        text = shown(name, value)
        if isinstance(value, str) and not what and "(hidden)" not in text and not _wants_text(annotation):
            text += f" ({kind_of(value)})"
        subject = f"{what} is" if what else "got"
        self._note(key, f"{subject} {text}", allowed=type_text(annotation))
        return _BROKEN

    def _note(self, key: str, message: str, *, allowed: str = "", near: str | None = None) -> None:
        self.problems.append(ConfigProblem(key, message, allowed, near, self._source))


def _dotted(table: str, name: str) -> str:
    return f"{table}.{name}" if table else name


def _finite(value: object) -> bool:
    """Whether a value holds no NaN or infinity, which TOML can write and nothing here allows."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, Mapping):
        return all(_finite(member) for member in value.values())
    return all(_finite(member) for member in value) if isinstance(value, (list, tuple)) else True


def _wants_text(annotation: Any) -> bool:
    return any(
        base in (str, Path) or any(isinstance(choice, str) for choice in get_args(base))
        for base in (unwrap(member)[0] for member in members(annotation))
    )
