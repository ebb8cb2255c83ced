"""Query strings, read strictly: a parameter that is not known or not valid is named, never ignored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from openclaw_exporter.receiver.refusals import query_refusal
from openclaw_exporter.wire.fields import tag_fault

if TYPE_CHECKING:
    from collections.abc import Iterable

_MOST: Final = 64


def read_parameters(
    query_string: bytes, *, single: Iterable[str] = (), repeated: Iterable[str] = ()
) -> dict[str, list[str]]:
    """Return the values of each parameter.

    Args:
        query_string: As it came.
        single: Parameters that may be there once.
        repeated: Parameters that may be there more than once.

    Raises:
        RefusedError: 400: it is no query string, or a parameter is not known or there too often.
    """
    try:
        pairs = parse_qsl(
            query_string.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(query_string),
            errors="strict",
            max_num_fields=_MOST,
        )
    except ValueError:
        raise query_refusal("?", f"not a query string of at most {_MOST} parameters") from None
    once, often = tuple(single), tuple(repeated)
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        if name not in once and name not in often:
            known = ", ".join((*often, *once)) or "none"
            raise query_refusal("?", f"a parameter is unknown; known are {known}")
        values.setdefault(name, []).append(value)
    for name in once:
        if len(values.get(name, ())) > 1:
            raise query_refusal(name, "given more than once")
    return values


def read_tags(values: dict[str, list[str]]) -> frozenset[str]:
    """Return the values of `tag`.

    Raises:
        RefusedError: 400: no node can have such a tag.
    """
    tags = frozenset(values.get("tag", ()))
    for fault in filter(None, map(tag_fault, tags)):
        raise query_refusal("tag", fault)
    return tags
