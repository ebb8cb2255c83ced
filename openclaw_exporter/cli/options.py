"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

config_option: Final = click.option(
    "--config",
    type=click.Path(path_type=Path),
    envvar="OPENCLAW_CONFIG",
    metavar="FILE",
    help="The configuration, TOML; OPENCLAW_CONFIG names it as well.",
)
json_option: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
