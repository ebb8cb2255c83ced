"""Types in words: what a configuration key allows, said to a person."""

from __future__ import annotations

import dataclasses
import enum
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

import msgspec

_UNION_ORIGINS: Final = (Union, types.UnionType)
_LIST_ORIGINS: Final = (tuple, list, set, frozenset, Sequence)
_TABLE_ORIGINS: Final = (dict, Mapping)
_PLAIN: Final[Mapping[object, str]] = {
    bool: "true or false",
    Path: "a path",
    Any: "anything",
    object: "anything",
    list: "a list",
    tuple: "a list",
    dict: "a table",
}


def unwrap(annotation: Any) -> tuple[Any, tuple[msgspec.Meta, ...]]:
    """Return an annotation without `Annotated`, and the `msgspec.Meta` that stood in it."""
    if get_origin(annotation) is not Annotated:
        return annotation, ()
    base, *extras = get_args(annotation)
    inner, metas = unwrap(base)
    return inner, (*metas, *(extra for extra in extras if isinstance(extra, msgspec.Meta)))


def members(annotation: Any) -> tuple[Any, ...]:
    """Return the members of a union, or the annotation alone."""
    base, _ = unwrap(annotation)
    return get_args(base) if get_origin(base) in _UNION_ORIGINS else (annotation,)


def is_list(base: Any) -> bool:
    """Whether an unwrapped annotation is a list of one item type: `tuple[X, ...]`, `list[X]`."""
    arguments = get_args(base)
    if get_origin(base) is tuple:
        return len(arguments) == 2 and arguments[1] is Ellipsis  # noqa: PLR2004 - (X, ...)
    return get_origin(base) in _LIST_ORIGINS


def is_table(base: Any) -> bool:
    """Whether an unwrapped annotation is a table of free keys: `dict[str, X]`, `Mapping[str, X]`."""
    return get_origin(base) in _TABLE_ORIGINS


def is_settings(base: Any) -> bool:
    """Whether an unwrapped annotation is a settings class, that is a dataclass."""
    return isinstance(base, type) and dataclasses.is_dataclass(base)


def type_text(annotation: Any) -> str:
    """Return what an annotation allows, in words: `an integer from 30 to 120`, `one of 'a', 'b'`.

    A `msgspec.Meta(description=…)` says it in the author's own words instead.
    """
    base, metas = unwrap(annotation)
    described = [meta.description for meta in metas if meta.description]
    if described:
        return described[-1]
    if get_origin(base) in _UNION_ORIGINS:
        return " or ".join(type_text(member) for member in get_args(base) if member is not type(None))
    if get_origin(base) is Literal:
        return _one_of(get_args(base))
    if isinstance(base, type) and issubclass(base, enum.Enum):
        return _one_of(member.value for member in base)
    return _composed(base, metas)


def _composed(base: Any, metas: tuple[msgspec.Meta, ...]) -> str:
    if is_list(base):
        return f"a list{_length(metas, 'items')}, each item {type_text(get_args(base)[0])}"
    if is_table(base):
        return f"a table{_length(metas, 'keys')}, each value {type_text(get_args(base)[1])}"
    return "a table" if is_settings(base) else _scalar(base, metas)


def _scalar(base: Any, metas: tuple[msgspec.Meta, ...]) -> str:
    if base is int:
        return f"an integer{_range(metas)}"
    if base is float:
        return f"a number{_range(metas)}"
    if base is str:
        patterns = [meta.pattern for meta in metas if meta.pattern is not None]
        return f"a string{_length(metas, 'characters')}" + "".join(f" that matches {p}" for p in patterns)
    known = _PLAIN.get(base)
    return known or f"a {getattr(base, '__name__', str(base))}"


def _one_of(values: Any) -> str:
    listed = [repr(value) for value in values]
    return listed[0] if len(listed) == 1 else f"one of {', '.join(listed)}"


def _bound(metas: tuple[msgspec.Meta, ...], name: str) -> float | None:
    values = [value for meta in metas if (value := getattr(meta, name)) is not None]
    return values[-1] if values else None


def _range(metas: tuple[msgspec.Meta, ...]) -> str:
    at_least, above = _bound(metas, "ge"), _bound(metas, "gt")
    at_most, below = _bound(metas, "le"), _bound(metas, "lt")
    multiple = _bound(metas, "multiple_of")
    low = f"above {above}" if above is not None else f"from {at_least}" if at_least is not None else ""
    high = f"below {below}" if below is not None else f"to {at_most}" if at_most is not None else ""
    if low and high and above is not None and below is None:
        text = f" {low} and up {high}"
    elif low and high:
        text = f" {low} and {high}" if below is not None else f" {low} {high}"
    elif at_least is not None:
        text = f", {at_least} or more"
    elif at_most is not None:
        text = f", {at_most} or less"
    else:
        text = f" {low}{high}" if low or high else ""
    return text + (f", a multiple of {multiple}" if multiple is not None else "")


def _length(metas: tuple[msgspec.Meta, ...], what: str) -> str:
    least, most = _bound(metas, "min_length"), _bound(metas, "max_length")
    if least is not None and most is not None:
        return f" of {least} {what}" if least == most else f" of {least} to {most} {what}"
    if least == 1:
        return " that is not empty"
    if least is not None:
        return f" of {least} or more {what}"
    return f" of up to {most} {what}" if most is not None else ""
