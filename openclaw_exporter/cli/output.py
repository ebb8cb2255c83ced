"""What commands print: tables for people, JSON for scripts."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def print_json(value: object, *, indent: int | None = 2) -> None:
    """Print a value as JSON to standard output."""
    # In a Latin-1 locale the text would be escaped as Python has it, and not as JSON.
    is_utf8 = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("_", "-") == "utf-8"
    click.echo(json.dumps(value, indent=indent, ensure_ascii=not is_utf8))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "") -> None:
    """Print rows as a table that fits the terminal; where there is none, lines are not cut."""
    from rich.console import Console  # noqa: PLC0415 - 60 ms that commands for scripts do not need
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    console = Console()
    if not console.is_terminal:
        console = Console(width=_PLAIN_WIDTH)
    console.print(table)


_PLAIN_WIDTH = 240
