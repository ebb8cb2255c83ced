"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from openclaw_exporter.cli.short_cut import FORMATS, LEVELS
from openclaw_exporter.config.environment import CONFIG_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Mapping

config_option: Final = click.option(
    "--config",
    type=click.Path(path_type=Path),
    envvar=CONFIG_VARIABLE,
    metavar="FILE",
    help=f"The configuration, TOML; {CONFIG_VARIABLE} names it as well.",
)
json_option: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
log_level_option: Final = click.option(
    "--log-level", type=click.Choice(LEVELS), help="The least level to log."
)
log_format_option: Final = click.option(
    "--log-format",
    type=click.Choice(FORMATS),
    help="Text for people, JSON for machines; auto is text on a terminal.",
)


def overrides(flags: Mapping[str, object]) -> dict[str, object]:
    """Return the flags that were given, by the dotted keys that they set."""
    return {key: value for key, value in flags.items() if value is not None}
