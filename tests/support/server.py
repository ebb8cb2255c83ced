"""A foreign server as a process of the test's own, with its output in a file."""

from __future__ import annotations

import signal
import subprocess
from typing import TYPE_CHECKING, Self

import httpx

from support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class Server:
    """One process that says by HTTP when it is ready.

    Args:
        command: The program and its arguments.
        log: Where its output goes, which a failing start shows.
        ready: The URL that answers 200 once the server is ready.
    """

    def __init__(self, command: Sequence[str], log: Path, ready: str) -> None:
        self._command = tuple(command)
        self._ready = ready
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process and wait until it is ready."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)
        wait_until(self._is_ready, what=f"readiness of {self._command[0]} ({self.log})")

    def stop(self) -> None:
        """Send SIGTERM, and SIGKILL to one that does not end."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"{self._command[0]} ended:\n{self.log.read_text()[-3000:]}"
        try:
            return httpx.get(self._ready, trust_env=False, timeout=1).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False
