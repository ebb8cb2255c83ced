"""A real RabbitMQ node with its management plugin, started and stopped by the test."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest

from support.ports import free_port
from support.skip import binary
from support.wait import wait_until

if TYPE_CHECKING:
    from support.pki import Pki

_SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
"""Not the wrapper in /usr/sbin, which changes to the system's own user and its data."""


class RabbitServer:
    """One node on loopback ports, with an Erlang port mapper of its own.

    Attributes:
        port: AMQP 0-9-1; `tls_port` the same over TLS.
        management_port: The management API; `management_tls_port` the same over TLS.
        user: An administrator; `password` is his.
    """

    def __init__(self, pki: Pki) -> None:
        self._epmd = binary("epmd", "rabbitmq-server")
        if not _SERVER.exists():
            pytest.skip(f"{_SERVER} is not installed (Debian package rabbitmq-server)")
        self.port, self.tls_port = free_port(), free_port()
        self.management_port, self.management_tls_port = free_port(), free_port()
        self.user, self.password = "guest", "guest"
        self._directory = Path(tempfile.mkdtemp(prefix="openclaw-rabbitmq-"))
        self._environment = self._configure(pki)
        self._mapper: subprocess.Popen[bytes] | None = None
        self._node: subprocess.Popen[bytes] | None = None
        self.http = httpx.Client(
            base_url=f"http://127.0.0.1:{self.management_port}/api",
            auth=(self.user, self.password),
            trust_env=False,
            timeout=60,
        )

    @property
    def url(self) -> str:
        """The management API's base URL."""
        return f"http://127.0.0.1:{self.management_port}"

    def start(self) -> None:
        """Start the node and wait until it serves both protocols."""
        if self._mapper is None:
            port = self._environment["ERL_EPMD_PORT"]
            self._mapper = subprocess.Popen((self._epmd, "-address", "127.0.0.1", "-port", port))
        with (self._directory / "node.log").open("ab") as log:
            self._node = subprocess.Popen((_SERVER,), env=self._environment, stdout=log, stderr=log)
        wait_until(self._serves, timeout=200, what=f"RabbitMQ ({self._directory})")

    def stop(self) -> None:
        """Kill the node, if it runs; durable queues with persistent messages survive that."""
        if self._node is not None:
            # The script waits for the Erlang machine, its child, and ends with it.
            for child in psutil.Process(self._node.pid).children(recursive=True):
                child.kill()
            self._node.wait(120)
            self._node = None

    def close(self) -> None:
        """Kill everything and remove its files."""
        self.stop()
        self.http.close()
        if self._mapper is not None:
            self._mapper.kill()
            self._mapper.wait()
        shutil.rmtree(self._directory)

    def _configure(self, pki: Pki) -> dict[str, str]:
        """Write the configuration, in which figures are at most 1 s old where the default is 5 s."""
        files = pki.server(name="rabbitmq")
        (self._directory / "rabbitmq.conf").write_text(
            f"""
listeners.tcp.1 = 127.0.0.1:{self.port}
listeners.ssl.1 = 127.0.0.1:{self.tls_port}
ssl_options.cacertfile = {pki.ca}
ssl_options.certfile = {files.certificate}
ssl_options.keyfile = {files.key}
management.tcp.ip = 127.0.0.1
management.tcp.port = {self.management_port}
management.ssl.ip = 127.0.0.1
management.ssl.port = {self.management_tls_port}
management.ssl.certfile = {files.certificate}
management.ssl.keyfile = {files.key}
"""
        )
        periods = ", ".join(f"{{{period}, [{{60, 1}}]}}" for period in ("global", "basic", "detailed"))
        samples = f"[{{sample_retention_policies, [{periods}]}}]"
        (self._directory / "advanced.config").write_text(
            f"""[
{{rabbit, [{{collect_statistics_interval, 200}}, {{quorum_tick_interval, 200}}]}},
{{rabbitmq_management, {samples}}},
{{rabbitmq_management_agent, {samples}}}
].
"""
        )
        (self._directory / "enabled_plugins").write_text("[rabbitmq_management].\n")
        home = str(self._directory)
        return {
            "PATH": os.environ["PATH"],
            "HOME": home,
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(free_port()),
            "RABBITMQ_NODENAME": f"openclaw-{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_CONFIG_FILE": f"{home}/rabbitmq.conf",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{home}/advanced.config",
            "RABBITMQ_CONF_ENV_FILE": f"{home}/none",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{home}/enabled_plugins",
            "RABBITMQ_MNESIA_BASE": f"{home}/mnesia",
            "RABBITMQ_LOG_BASE": f"{home}/log",
            "RABBITMQ_PID_FILE": f"{home}/pid",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +S 1:1",
        }

    def _serves(self) -> bool:
        assert self._node is not None
        assert self._node.poll() is None, (self._directory / "node.log").read_text()[-2000:]
        try:
            answer = self.http.get("/overview")
        except httpx.TransportError:
            return False
        if not answer.is_success:
            return False
        # The management API is up before the others.
        serving = {listener["port"] for listener in answer.json().get("listeners", ())}
        return {self.port, self.tls_port, self.management_tls_port} <= serving
