"""`agent`: collect on this node, export metrics, publish heartbeats."""

from __future__ import annotations

import logging
import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from openclaw_exporter.cli.options import config_option, log_format_option, log_level_option, overrides

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from openclaw_exporter.agent.settings import AgentConfig

_LOGGER = logging.getLogger(__name__)


@click.command(name="agent")
@config_option
@click.option(
    "--insecure-dev",
    is_flag=True,
    help="Publish in plain HTTP without certificate and token, to try things out; to this machine only.",
)
@log_level_option
@log_format_option
@click.pass_context
def command(
    context: click.Context,
    *,
    config: Path | None,
    insecure_dev: bool,
    log_level: str | None,
    log_format: str | None,
) -> None:
    """Collect on this node, export metrics and publish heartbeats, until SIGTERM.

    SIGHUP reads the configuration again. At the end the receiver is told that the node leaves.
    """
    from openclaw_exporter.agent.agent import Agent  # noqa: PLC0415 - only where the command runs

    flags = overrides(
        {
            "openclaw.insecure_dev": insecure_dev or None,
            "log.level": log_level,
            "log.format": log_format,
        }
    )
    agent = Agent(_read(config, flags))
    with _noted_signals() as noted:
        agent.run((lambda: _read(config, flags)) if config is not None else None)
        if signal.SIGINT in noted():
            context.exit(128 + signal.SIGINT)


def _read(path: Path | None, flags: dict[str, object]) -> AgentConfig:
    """Read the configuration and set the log up by it."""
    from openclaw_exporter.agent.settings import (  # noqa: PLC0415 - only where the command runs
        AgentConfig,
        CollectionSettings,
        NodeSettings,
        PressureSettings,
    )
    from openclaw_exporter.client.settings import ClientSettings  # noqa: PLC0415
    from openclaw_exporter.config import load  # noqa: PLC0415
    from openclaw_exporter.logs import set_up_logging  # noqa: PLC0415
    from openclaw_exporter.telemetry.settings import TelemetrySettings  # noqa: PLC0415

    config = load(path, os.environ, flags, services=["agent"])
    set_up_logging(level=config.log.level, log_format=config.log.format)
    for warning in config.warnings:
        _LOGGER.warning("%s", warning)
    return AgentConfig(
        node=config.get(NodeSettings),
        collection=config.get(CollectionSettings),
        pressure=config.get(PressureSettings),
        client=config.get(ClientSettings),
        telemetry=config.get(TelemetrySettings),
        plugins=config.plugins,
        source=config.source,
    )


@contextmanager
def _noted_signals() -> Iterator[Callable[[], bytes]]:
    """Note the signals that arrive, whoever handles them; yields what returns them."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

    def noted() -> bytes:
        try:
            return os.read(reading, 4096)
        except BlockingIOError:
            return b""

    try:
        yield noted
    finally:
        signal.set_wakeup_fd(before)
        os.close(reading)
        os.close(writing)
