"""`agent`: collect on this node, export metrics, publish heartbeats."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from openclaw_exporter.cli.options import config_option, log_format_option, log_level_option

if TYPE_CHECKING:
    from pathlib import Path


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
    from openclaw_exporter.cli.agent_process import run_agent  # noqa: PLC0415 - only where the command runs

    code = run_agent(config, insecure_dev=insecure_dev, log_level=log_level, log_format=log_format)
    if code:
        context.exit(code)
