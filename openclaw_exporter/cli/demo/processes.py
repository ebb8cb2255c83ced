"""The demo's child processes: each with a log file, none of which outlives the demo."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Final, Self

from openclaw_exporter.errors import OpenClawError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_GRACE: Final = 8.0
_TAIL: Final = 12
_FOREIGN: Final = ("OPENCLAW_", "NOTIFY_SOCKET", "WATCHDOG_")


class ChildError(OpenClawError):
    """A child process ended on its own; the text holds the end of its log."""


class Child:
    """One process, in a session of its own, so that Ctrl-C reaches the demo alone and the demo ends it.

    Args:
        name: What to call it; its log is NAME.log.
        arguments: The program, by its path, and its arguments.
        logs: The directory of the logs.
        environment: Variables that it gets besides ours.
    """

    def __init__(
        self, name: str, arguments: Sequence[str], logs: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self._log = logs / f"{name}.log"
        launcher = (sys.executable, "-m", "openclaw_exporter.cli.demo.launcher", str(os.getpid()))
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the demo's own argument lists, no shell
                (*launcher, *arguments),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=clean_environment() | dict(environment or {}),
                start_new_session=True,
            )

    @classmethod
    def python(
        cls,
        name: str,
        module: str,
        *arguments: str,
        logs: Path,
        environment: Mapping[str, str] | None = None,
    ) -> Self:
        """Start a Python module."""
        return cls(name, (sys.executable, "-m", module, *arguments), logs, environment)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def check(self) -> None:
        """See that it still runs.

        Raises:
            ChildError: It has ended.
        """
        code = self._process.poll()
        if code is not None:
            raise ChildError(f"the {self.name} ended with {code}; the end of its log:\n{self.tail()}")

    def tail(self) -> str:
        """Return the end of its log."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(f"  {line}" for line in lines[-_TAIL:])

    def stop(self) -> None:
        """End it: SIGTERM, and SIGKILL where that is not enough."""
        self._process.terminate()
        try:
            self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def clean_environment() -> dict[str, str]:
    """Return this process's environment without what would configure the demo's children."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
