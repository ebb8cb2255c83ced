"""The real command line in processes of its own, with configuration files made from the test PKI."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from support.ports import free_port
from support.wait import wait_until

if TYPE_CHECKING:
    from support.pki import Files, Pki


@dataclass(slots=True)
class Command:
    """One `openclaw-exporter …` process; its standard error goes to a file that a failing test can show."""

    arguments: tuple[str, ...]
    log: Path
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                (sys.executable, "-m", "openclaw_exporter", *self.arguments),
                stdout=log,
                stderr=log,
                env=os.environ | self.environment,
            )

    def kill(self) -> None:
        """Send SIGKILL and reap."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self, *, timeout: float = 120) -> int:
        """Send SIGTERM and return the exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def text(self) -> str:
        """What the process wrote so far."""
        return self.log.read_text()


class ReceiverCommand(Command):
    """`openclaw-exporter receiver` on fixed loopback ports, so that it can come back.

    Args:
        directory: For its files.
        pki: Its certificates come from here.
        extra: Further lines for the table `[receiver]`, and further tables.
        rate: Heartbeats a second of one node.
        store: The lines of the table `[receiver.store]`; by default they name a file in the directory.
    """

    def __init__(
        self, directory: Path, pki: Pki, *, extra: str = "", rate: float = 1000.0, store: str = ""
    ) -> None:
        self.port, self.admin_port = free_port(), free_port()
        self.database = directory / "registry.sqlite3"
        config = directory / "receiver.toml"
        config.write_text(
            f"""
[log]
format = "json"
[receiver]
host = "127.0.0.1"
port = {self.port}
{extra}
{trust_tables(pki, pki.server())}[receiver.limits]
rate = {rate}
burst = 1000
loop_lag = 4.0
[receiver.store]
{store or f'url = "sqlite:///{self.database}"'}
[receiver.admin]
port = {self.admin_port}
"""
        )
        super().__init__(("receiver", "--config", str(config)), directory / "receiver.log")

    @property
    def url(self) -> str:
        """The API's base URL."""
        return f"https://localhost:{self.port}"

    def ready(self, *, timeout: float = 120) -> None:
        """Wait until `/readyz` says yes."""
        wait_until(self._is_ready, timeout=timeout, what=f"readiness of the receiver ({self.log})")

    def metrics(self) -> dict[str, float]:
        """Scrape the admin listener: sample name with its labels → value."""
        text = httpx.get(f"http://127.0.0.1:{self.admin_port}/metrics", trust_env=False, timeout=60).text
        return samples(text)

    def _is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"the receiver ended:\n{self.text()[-3000:]}"
        try:
            answer = httpx.get(f"http://127.0.0.1:{self.admin_port}/readyz", trust_env=False, timeout=1)
        except httpx.TransportError:
            return False
        return answer.status_code == httpx.codes.OK


def trust_tables(pki: Pki, files: Files) -> str:
    """Return the TOML tables by which a receiver shows a certificate and knows whom to believe."""
    return f"""
[receiver.tls]
ca = "{pki.ca}"
certificate = "{files.certificate}"
key = "{files.key}"
trust_domain = "{pki.trust_domain}"
[receiver.tokens]
jwks = "{pki.jwks}"
algorithms = ["ES256"]
[[receiver.tokens.issuers]]
issuer = "{pki.issuer}"
audience = "{pki.audience}"
"""


def openclaw_tables(
    pki: Pki, node_id: str, endpoint: str, state: Path, *, interval: int | None = None
) -> str:
    """Return the TOML tables that make an agent publish as a node with a certificate of its own."""
    files = pki.node(node_id)
    beat = f"interval = {interval}\nmin_interval = {interval}\n" if interval else ""
    return f"""
[openclaw]
endpoint = "{endpoint}"
state_dir = "{state}"
{beat}[openclaw.tls]
ca = "{pki.ca}"
certificate = "{files.certificate}"
key = "{files.key}"
[openclaw.token]
key = "{pki.token_key}"
kid = "{pki.key_id}"
issuer = "{pki.issuer}"
audience = "{pki.audience}"
"""


def samples(text: str) -> dict[str, float]:
    """Parse Prometheus text into sample (with labels, as written) → value."""
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, value in lines}


def wait_exit(process: subprocess.Popen[bytes], timeout: float) -> int | None:
    """Return the exit status, or None where the process still runs after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    return process.poll()
