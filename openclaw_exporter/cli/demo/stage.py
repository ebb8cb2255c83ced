"""The demo's stage: a PKI, configurations and ports in one directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from openclaw_exporter.cli.demo.keys import GROUP
from openclaw_exporter.cli.demo.ports import free_port
from openclaw_exporter.cli.pki_configurations import agent_tables, document, receiver_tables
from openclaw_exporter.cli.pki_files import Identity, PkiDirectory
from openclaw_exporter.client import BufferSettings, ClientSettings, TlsSettings, TokenSettings
from openclaw_exporter.errors import UserError

if TYPE_CHECKING:
    from openclaw_exporter.cli.demo.queues import Queues

_TRUST_DOMAIN: Final = "demo.openclaw"
_HOSTS: Final = ("127.0.0.1", "localhost")
_WORKERS: Final = 8


@dataclass(frozen=True, slots=True)
class Stage:
    """Where everything is.

    Attributes:
        directory: Holds everything.
        pki: The certificates and token keys.
        reader: Who reads the registry.
        agent: The real node.
        interval: Seconds between two heartbeats.
        admin_port: Of the receiver's admin listener.
        metrics_port: Of the agent's `/metrics`.
    """

    directory: Path
    pki: PkiDirectory
    reader: Identity
    agent: Identity
    interval: int
    admin_port: int
    metrics_port: int

    @classmethod
    def build(cls, directory: Path, *, interval: int) -> Stage:
        """Make the certificates and choose the ports.

        Raises:
            UserError: The directory cannot be written, or another demo has been there.
        """
        try:
            (directory / "logs").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{directory} cannot be written: {error.strerror}; see --keep") from None
        if (directory / "pki").exists():
            raise UserError(f"{directory} holds a demo already: remove it, or give --keep another directory")
        pki = PkiDirectory.create(
            directory / "pki", trust_domain=_TRUST_DOMAIN, hosts=_HOSTS, port=free_port()
        )
        return cls(
            directory=directory,
            pki=pki,
            reader=pki.issue_reader("demo"),
            agent=pki.issue_node(),
            interval=interval,
            admin_port=free_port(),
            metrics_port=free_port(),
        )

    @property
    def logs(self) -> Path:
        """The directory of the children's logs."""
        return self.directory / "logs"

    @property
    def admin_url(self) -> str:
        """The receiver's admin listener."""
        return f"http://127.0.0.1:{self.admin_port}"

    @property
    def metrics_url(self) -> str:
        """The agent's metrics."""
        return f"http://127.0.0.1:{self.metrics_port}/metrics"

    def write_receiver(self) -> Path:
        """Write the receiver's configuration."""
        port = int(self.pki.endpoint.rpartition(":")[2])
        tables = receiver_tables(self.pki, port=port, hosts=_HOSTS)
        tables["receiver"] |= {"min_interval": self.interval, "default_interval": self.interval}
        tables["receiver.admin"] = {"host": "127.0.0.1", "port": self.admin_port}
        return self._write("receiver.toml", tables)

    def write_agent(self, queues: Queues | None) -> Path:
        """Write the real agent's configuration."""
        tables = agent_tables(self.pki, self.agent)
        tables["openclaw"] |= {"interval": self.interval, "min_interval": self.interval}
        tables["node"] = {"environment": "demo", "tags": ["swarm:here"]}
        tables["collection"] = {"interval": 1, "deadline": 1}
        tables["telemetry.prometheus"] = {"port": self.metrics_port}
        if queues is not None:
            tables["plugins.chimera"] = {
                "url": queues.url,
                "workers": _WORKERS,
                "queues": queues.keys.topics,
                "groups": [GROUP],
            }
        return self._write("agent.toml", tables)

    def _write(self, name: str, tables: dict[str, dict[str, object]]) -> Path:
        path = self.directory / name
        path.write_text(document(tables), encoding="utf-8")
        path.chmod(0o600)  # a Redis URL may hold a password
        return path

    def neighbour(self, number: int) -> ClientSettings:
        """Issue a certificate to a neighbour and return its publisher's settings."""
        node = self.pki.issue_node()
        return ClientSettings(
            endpoint=self.pki.endpoint,
            interval=self.interval,
            min_interval=self.interval,
            hostname=f"chimera-{number:02d}.demo",
            state_dir=node.certificate.parent / "state",
            tls=TlsSettings(ca=self.pki.ca, certificate=node.certificate, key=node.key),
            token=TokenSettings(
                key=self.pki.token_key,
                kid=self.pki.key_id,
                algorithm=self.pki.algorithm,
                issuer=self.pki.issuer,
                audience=self.pki.audience,
            ),
            buffer=BufferSettings(max_heartbeats=100),
        )
