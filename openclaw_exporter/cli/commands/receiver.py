"""`receiver`: receive heartbeats and keep the registry."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import signal
import socket
from typing import TYPE_CHECKING

import click

from openclaw_exporter.cli.options import config_option, log_format_option, log_level_option, overrides
from openclaw_exporter.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

    from openclaw_exporter.config import Config
    from openclaw_exporter.receiver.server import Addresses
    from openclaw_exporter.telemetry.provider import Telemetry

_LOGGER = logging.getLogger(__name__)


@click.command(name="receiver")
@config_option
@click.option("--host", metavar="ADDRESS", help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), help="The TCP port to listen on; 0 takes a free one.")
@click.option(
    "--store",
    metavar="URL",
    help="Where the registry is kept: sqlite:///relative or sqlite:////absolute in a file; "
    "redis://host:6379 in a Redis or Redis Cluster that several receivers share.",
)
@click.option(
    "--workers",
    type=click.IntRange(0, 128),
    help="Processes that face clients, beside the one that holds the registry; 0 or 1: one does it all.",
)
@click.option(
    "--insecure-dev",
    is_flag=True,
    help="Plain HTTP without certificates and tokens, to try things out; on a loopback address only.",
)
@log_level_option
@log_format_option
@click.pass_context
def command(
    context: click.Context,
    *,
    config: Path | None,
    host: str | None,
    port: int | None,
    store: str | None,
    workers: int | None,
    insecure_dev: bool,
    log_level: str | None,
    log_format: str | None,
) -> None:
    """Receive heartbeats and keep the registry of nodes, until SIGTERM.

    SIGHUP reads certificates and keys again; they are read again when they change, too.
    """
    from openclaw_exporter.config import load  # noqa: PLC0415 - only where the command runs
    from openclaw_exporter.logs import set_up_logging  # noqa: PLC0415

    embedding = _room()
    flags = {
        "receiver.host": host,
        "receiver.port": port,
        "receiver.store.url": store,
        "receiver.workers": workers,
        "receiver.insecure_dev": insecure_dev or None,
        "log.level": log_level,
        "log.format": log_format,
    }
    loaded = load(config, os.environ, overrides(flags), services=["receiver"])
    set_up_logging(level=loaded.log.level, log_format=loaded.log.format)
    for warning in loaded.warnings:
        _LOGGER.warning("%s", warning)
    if _run(embedding, loaded):
        context.exit(128 + signal.SIGINT)


def _room() -> ModuleType:
    """Import the receiver, which needs more than an agent."""
    try:
        from openclaw_exporter.receiver import embedding  # noqa: PLC0415 - only where the command runs
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("openclaw_exporter"):
            raise
        raise UserError(
            f"the receiver needs {error.name}, which is not installed: "
            "pip install 'openclaw-exporter[receiver]'"
        ) from error
    return embedding


def _run(embedding: ModuleType, config: Config) -> bool:
    """Run the receiver to its end; tell whether it was Ctrl-C."""
    from openclaw_exporter.receiver.descriptors import allow_all  # noqa: PLC0415 - only where it runs
    from openclaw_exporter.receiver.settings import ReceiverSettings  # noqa: PLC0415

    settings = config.get(ReceiverSettings)
    allow_all(-(-settings.limits.connections // max(1, settings.workers)))
    telemetry = _telemetry(config, f"{socket.gethostname()}:{settings.port}")
    stop = asyncio.Event()
    interrupted: list[bool] = []
    try:
        embedding.run(settings, telemetry=telemetry, ready=_when_ready(interrupted, stop), stop=stop)
    finally:
        telemetry.shutdown()
    return bool(interrupted)


def _when_ready(interrupted: list[bool], stop: asyncio.Event) -> Callable[[Addresses], None]:
    def note() -> None:
        interrupted.append(True)
        stop.set()

    def ready(addresses: Addresses) -> None:
        from openclaw_exporter.receiver.garbage import relax  # noqa: PLC0415 - only where the command runs

        relax()
        if addresses.admin_url is not None:
            _LOGGER.info("metrics at %s/metrics", addresses.admin_url)
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, note)

    return ready


def _telemetry(config: Config, instance: str) -> Telemetry:
    """Start the receiver's metrics; the admin listener serves them, so no port of their own does."""
    from openclaw_exporter.telemetry.provider import Telemetry  # noqa: PLC0415
    from openclaw_exporter.telemetry.settings import PrometheusSettings, TelemetrySettings  # noqa: PLC0415

    settings = config.get(TelemetrySettings)
    settings = dataclasses.replace(settings, prometheus=PrometheusSettings(enabled=False))
    return Telemetry.start(settings, service="openclaw-receiver", node_id=instance)
