"""Files of the kernel, which are made when they are read."""

from __future__ import annotations

import os
import re
from typing import Final

_SIZE: Final = 1 << 16
_ESCAPE: Final = re.compile(r"\\([0-7]{3})")


def read(path: str) -> bytes:
    """Return what a file holds, without the buffers and decoders of `open`: those cost more than the kernel.

    Raises:
        OSError: It cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # A file of many lines comes in pages: only an empty answer is its end.
        parts = []
        while part := os.read(descriptor, _SIZE):
            parts.append(part)
    finally:
        os.close(descriptor)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def lines(path: str) -> list[bytes]:
    """Return the lines of a file that are not empty.

    Raises:
        OSError: It cannot be read.
    """
    return [line for line in read(path).split(b"\n") if line]


def unescaped(text: str) -> str:
    """Return a field of a table of mounts with its blanks, line ends and backslashes."""
    return _ESCAPE.sub(lambda found: chr(int(found[1], 8)), text) if "\\" in text else text
