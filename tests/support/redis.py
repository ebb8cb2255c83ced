"""A real redis-server, started and stopped by the test."""

from __future__ import annotations

import signal
import socket
import subprocess
from typing import TYPE_CHECKING

from support.ports import free_port
from support.skip import binary
from support.wait import wait_until

if TYPE_CHECKING:
    from pathlib import Path


class RedisServer:
    """One redis-server process on a loopback port, without persistence."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self._program = binary("redis-server", "redis-server")
        self._directory = directory
        self._arguments = arguments
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The server's URL, database 0."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start the server and wait until it listens."""
        options = (
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
            str(self._directory),
        )
        self._process = subprocess.Popen(
            (self._program, *options, *self._arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until(self._listens, what="redis-server")

    def stop(self) -> None:
        """Kill the server, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Stop the server's process (SIGSTOP): it accepts connections and never answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on (SIGCONT)."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0
