"""The agent as a process of its own, from its arguments to its exit code; needs no click."""

from __future__ import annotations

import logging
import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

from openclaw_exporter.agent.agent import Agent
from openclaw_exporter.agent.settings import (
    AgentConfig,
    CollectionSettings,
    NodeSettings,
    PressureSettings,
)
from openclaw_exporter.cli.mistakes import INTERRUPTED
from openclaw_exporter.client.settings import ClientSettings
from openclaw_exporter.config import load
from openclaw_exporter.logs import set_up_logging
from openclaw_exporter.telemetry.settings import TelemetrySettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

_LOGGER = logging.getLogger(__name__)


def run_agent(
    path: Path | None,
    *,
    insecure_dev: bool = False,
    log_level: str | None = None,
    log_format: str | None = None,
) -> int:
    """Run until SIGTERM or SIGINT, and return the exit code.

    Args:
        path: The configuration; the environment alone where None.
        insecure_dev: Whether to publish in plain HTTP, to this machine.
        log_level: The least level to log, over the configuration's.
        log_format: `auto`, `text` or `json`, over the configuration's.

    Raises:
        UserError: The configuration is wrong, or the start failed.
    """
    given = {"openclaw.insecure_dev": insecure_dev or None, "log.level": log_level, "log.format": log_format}
    flags = {key: value for key, value in given.items() if value is not None}
    agent = Agent(_read(path, flags))
    with _noted_signals() as noted:
        agent.run((lambda: _read(path, flags)) if path is not None else None)
        return INTERRUPTED if signal.SIGINT in noted() else 0


def _read(path: Path | None, flags: Mapping[str, object]) -> AgentConfig:
    """Read the configuration and set the log up by it."""
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
        source_of=config.source_of,
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
