"""The standard streams: they are open before anything else is, and take every character.

A full disk behind them is told as one.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NoReturn

from openclaw_exporter.cli.mistakes import MISTAKE

if TYPE_CHECKING:
    from typing_extensions import Buffer

_NAMES: Final = ("standard input", "standard output", "standard error")
_OUTPUT: Final = 1
_ERROR: Final = 2


class _Raw(io.FileIO):
    """A standard stream whose errors name it, as those of a file name the file.

    It goes nowhere after an error: what is buffered is written once more when the process ends, and Python
    tells of another error there, since 3.13.
    """

    def write(self, data: Buffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            error.filename = _NAMES[self.fileno()]
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            raise


def hold_open() -> None:
    """Open what the shell has closed of the three: the next file or socket would be taken for it."""
    for number in range(len(_NAMES)):
        try:
            os.fstat(number)
        except OSError:
            # It takes the lowest number that is free, which is this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stderr is None:
        sys.stderr = os.fdopen(_ERROR, "w", errors="backslashreplace", closefd=False)


def set_up_output() -> None:
    """Let errors of writing to standard output say so, and characters that it does not have be escaped."""
    before = sys.stdout
    if before is None:
        return
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_Raw(_OUTPUT, "w", closefd=False)),
        encoding=before.encoding,
        errors="backslashreplace",
        line_buffering=bool(before.line_buffering),
    )


def end_without_output(error: OSError) -> NoReturn:
    """End the process where standard output cannot be written.

    Raises:
        SystemExit: With the exit code of a mistake.
        OSError: It is another error.
    """
    if error.filename != _NAMES[_OUTPUT]:
        raise error
    with suppress(OSError):
        sys.stderr.write(f"openclaw-exporter: standard output cannot be written: {error.strerror}\n")
    raise SystemExit(MISTAKE) from None
