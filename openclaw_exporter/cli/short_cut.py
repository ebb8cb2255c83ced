"""The way to a running agent past click, which every node would keep in memory for its whole life: 2 MiB.

What is not plainly a call of `agent` is click's to understand, to refuse or to explain.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn, TypedDict

from openclaw_exporter.cli.mistakes import MISTAKE, text_of
from openclaw_exporter.config.environment import CONFIG_VARIABLE
from openclaw_exporter.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

LEVELS: Final = ("debug", "info", "warning", "error")
FORMATS: Final = ("auto", "text", "json")
_GARBAGE_THRESHOLD: Final = 7_000
_M_ARENA_MAX: Final = -8


class Arguments(TypedDict, total=False):
    """What `run_agent` takes."""

    path: Path | None
    insecure_dev: bool
    log_level: str
    log_format: str


def agent_arguments(words: Sequence[str]) -> Arguments | None:
    """Return what the words after `agent` say; None where click has to look at them."""
    named = os.environ.get(CONFIG_VARIABLE)
    arguments: Arguments = {"path": Path(named) if named else None}
    rest = iter(words)
    for word in rest:
        option, equals, value = word.partition("=")
        if word == "--insecure-dev":
            arguments["insecure_dev"] = True
            continue
        value = value if equals else next(rest, "")
        if option == "--config" and value:
            arguments["path"] = Path(value)
        elif option == "--log-level" and value in LEVELS:
            arguments["log_level"] = value
        elif option == "--log-format" and value in FORMATS:
            arguments["log_format"] = value
        else:
            return None
    return arguments


def run(arguments: Arguments) -> NoReturn:
    """Run the agent and end the process; a user's mistake is told without a traceback.

    Raises:
        SystemExit: Always.
    """
    # Imports make many objects and little garbage: looking for it less often saves a tenth of the start.
    gc.set_threshold(_GARBAGE_THRESHOLD)
    _use_one_heap()
    from openclaw_exporter.cli.agent_process import run_agent  # noqa: PLC0415 - only where the command runs

    try:
        code = run_agent(**arguments)
    except UserError as error:
        sys.stderr.write(f"openclaw-exporter: {text_of(error)}\n")
        code = MISTAKE
    raise SystemExit(code)


def _use_one_heap() -> None:
    """Keep glibc from giving each thread a heap of its own (mallopt(3)): a thread here allocates little."""
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
