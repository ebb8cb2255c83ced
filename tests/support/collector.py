"""A real OpenTelemetry Collector."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.ports import free_port
from support.server import Server
from support.skip import built

if TYPE_CHECKING:
    from pathlib import Path


class CollectorServer(Server):
    """An OpenTelemetry Collector on free loopback ports.

    Args:
        directory: For its configuration, storage and log; made where it is missing.
        config: The text of the configuration. What it listens on is `127.0.0.1:4317` (gRPC), `:4318` (HTTP),
            `:13133` (health) and perhaps `:8889` (Prometheus exporter): each gives way to a free port.
    """

    def __init__(self, directory: Path, config: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        ports = {standard: free_port() for standard in (4317, 4318, 8889, 13133)}
        for standard, port in ports.items():
            listens = f"127.0.0.1:{standard}" in config
            assert listens or standard == 8889, f"the Collector does not listen on {standard}"
            config = config.replace(f"127.0.0.1:{standard}", f"127.0.0.1:{port}")
        self.grpc = f"http://127.0.0.1:{ports[4317]}"
        self.http = f"http://127.0.0.1:{ports[4318]}"
        self.exposition = f"127.0.0.1:{ports[8889]}"
        self.config = directory / "collector.yaml"
        self.config.write_text(config)
        super().__init__(
            (built("otelcol"), "--config", str(self.config)),
            directory / "collector.log",
            f"http://127.0.0.1:{ports[13133]}/",
        )
