"""Names of queues with `*` and `?`, here and as the server's regular expressions."""

from __future__ import annotations

import re


def server_expression(pattern: str) -> str:
    """Return a regular expression for the server that finds at least what the pattern finds.

    The server compares bytes and without case; what it finds is compared again here.
    """
    return "".join({"*": ".*", "?": ".+"}.get(part, re.escape(plain_name(part))) for part in _parts(pattern))


def compiled(pattern: str) -> re.Pattern[str]:
    """Return a pattern as a regular expression of Python's."""
    parts = ({"*": ".*", "?": "."}.get(part, re.escape(plain_name(part))) for part in _parts(pattern))
    return re.compile("".join(parts), re.DOTALL)


def plain_name(name: str) -> str:
    """Return a name without its backslashes."""
    return re.sub(r"\\(.)", r"\1", name)


def is_pattern(name: str) -> bool:
    """Whether a name is a pattern."""
    return any(part in ("*", "?") for part in _parts(name))


def _parts(pattern: str) -> list[str]:
    return re.findall(r"\\.|[^\\]|\\\Z", pattern, re.DOTALL)
