"""How deep JSON from a stranger may nest.

The limit is our own: that of a parser depends on the version of Python and on the stack below its caller, and
one text would be refused here and accepted there (RFC 8259, section 9, leaves it to the reader).
"""

from __future__ import annotations

import re
from typing import Final

MAX_DEPTH: Final = 64
"""Arrays and objects within one another."""

_OPENING: Final = frozenset((b"[", b"{"))
# A bracket within a string opens nothing; a string without an end is left to the parser.
_tokens = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[\[{\]}]', re.DOTALL).finditer


def is_too_deep(text: bytes | bytearray) -> bool:
    """Tell whether arrays and objects nest deeper than MAX_DEPTH; the text need not be JSON."""
    if text.count(b"[") + text.count(b"{") <= MAX_DEPTH:
        return False
    depth = 0
    for match in _tokens(text):
        token = match[0]
        if token in _OPENING:
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif not token.startswith(b'"'):
            depth -= 1
    return False
