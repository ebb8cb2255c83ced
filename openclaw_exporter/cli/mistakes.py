"""A user's mistake as text: what the command line prints of it, with or without click."""

from __future__ import annotations

from typing import Final

from openclaw_exporter.errors import ConfigError, UserError

MISTAKE: Final = 2
"""The exit code after a user's mistake."""

INTERRUPTED: Final = 130
"""The exit code after Ctrl-C: 128 + SIGINT, as shells have it."""

_NO_FILE: Final = "no configuration was named: give --config FILE, or set OPENCLAW_CONFIG"


def text_of(error: UserError) -> str:
    """Return the text, with all problems of a configuration in lines of their own."""
    if isinstance(error, ConfigError) and len(error.problems) > 1:
        lines = (f"  {problem}" for problem in error.problems)
        text = "\n".join((f"the configuration has {len(error.problems)} errors:", *lines))
        return text if any(problem.source for problem in error.problems) else f"{text}\n{_NO_FILE}"
    return str(error)
