"""A real Prometheus 3, with its OTLP endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx

from support.ports import free_port
from support.server import Server
from support.skip import built

if TYPE_CHECKING:
    from pathlib import Path

Labels = dict[str, str]


class PrometheusServer(Server):
    """Prometheus on a free loopback port.

    Args:
        directory: For its configuration, data and log; made where it is missing.
        config: The text of `prometheus.yml`. Relative paths in it start at `directory`.
        arguments: Further flags.
    """

    def __init__(self, directory: Path, config: str, *arguments: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.config = directory / "prometheus.yml"
        self.config.write_text(config)
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        flags = (
            f"--config.file={self.config}",
            f"--storage.tsdb.path={directory / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--web.enable-otlp-receiver",
            "--web.enable-lifecycle",
            *arguments,
        )
        super().__init__((built("prometheus"), *flags), directory / "prometheus.log", f"{self.url}/-/ready")

    @property
    def otlp(self) -> str:
        """The base URL for `telemetry.otlp.endpoint`."""
        return f"{self.url}/api/v1/otlp"

    def query(self, expression: str) -> list[tuple[Labels, float]]:
        """Return the instant vector of an expression; a scalar is one sample without labels."""
        found = self.get("query", query=expression)
        if found["resultType"] == "scalar":
            return [({}, float(found["result"][1]))]
        return [(sample["metric"], float(sample["value"][1])) for sample in found["result"]]

    def series(self, match: str) -> list[Labels]:
        """Return the label sets of all series that match now: those of an instant query."""
        return [labels for labels, _ in self.query(match)]

    def names(self, match: str = '{service_instance_id!=""}') -> set[str]:
        """Return the names of all series that match now."""
        return {labels["__name__"] for labels in self.series(match)}

    def rules(self) -> list[dict[str, Any]]:
        """Return every loaded rule with its state."""
        groups = self.get("rules")["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def get(self, path: str, **parameters: str) -> dict[str, Any]:
        """Return the `data` of an API answer.

        Raises:
            AssertionError: Prometheus refused the request; the text says why.
        """
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=parameters, trust_env=False, timeout=30)
        body = answer.json()
        assert body["status"] == "success", f"{parameters}: {body}"
        data: dict[str, Any] = body["data"]
        return data
