"""The registry's nodes, for people and for scripts; once, or again and again."""

from __future__ import annotations

import datetime as dt
import time
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from openclaw_exporter.cli.output import print_json, print_table
from openclaw_exporter.client import RegistryError
from openclaw_exporter.wire.timestamps import format_ms

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import RenderableType

    from openclaw_exporter.client.nodes import Node

COLUMNS: Final = ("node_id", "hostname", "state", "slots", "queues", "interval", "last seen", "tags")
_STYLES: Final = {"up": "green", "late": "yellow", "suspect": "yellow", "expired": "red"}
_HEAD: Final = 4
"""Lines of a live view that are no node's."""


def described(node: Node) -> dict[str, Any]:
    """Return a node as the API shows it, for scripts."""
    shown: dict[str, Any] = msgspec.to_builtins(node, builtin_types=(dt.datetime,))
    for part in (shown, shown["heartbeat"]):
        for name, value in part.items():
            if isinstance(value, dt.datetime):
                part[name] = format_ms(round(value.timestamp() * 1000))
    shown["heartbeat"]["node_id"] = node.node_id
    return shown


def show(nodes: Sequence[Node], *, as_json: bool) -> None:
    """Print nodes as a table, or as JSON."""
    if as_json:
        print_json([described(node) for node in nodes])
        return
    print_table(COLUMNS, map(_row, nodes))
    click.echo(_counted(nodes))


def watch(read: Callable[[], list[Node]], *, every: float, as_json: bool) -> None:
    """Show nodes again and again until Ctrl-C: a live table on a terminal, elsewhere a line for each change.

    Args:
        read: Returns the nodes.
        every: Seconds between two looks.
        as_json: Print each node whose state has changed as one line of JSON.
    """
    from rich.console import Console  # noqa: PLC0415 - 60 ms that other commands do not need
    from rich.live import Live  # noqa: PLC0415

    console = Console()
    try:
        if console.is_terminal and not as_json:
            with Live(console=console, auto_refresh=False, screen=False) as live:
                _repeat(
                    read, every, lambda nodes: live.update(_view(nodes, every, console.height), refresh=True)
                )
        else:
            _repeat(read, every, _Changes(as_json=as_json).tell)
    except KeyboardInterrupt:
        return


def _repeat(read: Callable[[], list[Node]], every: float, tell: Callable[[list[Node]], None]) -> None:
    away = ""
    due = time.monotonic()
    while True:
        try:
            tell(read())
            away = ""
        except RegistryError as error:
            # A receiver that restarts is no reason to end; one that refuses is.
            if error.status is not None:
                raise
            if str(error) != away:
                away = str(error)
                click.echo(f"{_now()} {away}", err=True)
        due = max(due + every, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))


class _Changes:
    """Tells what is new since the look before.

    Args:
        as_json: In JSON.
    """

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._states: dict[str, str] = {}

    def tell(self, nodes: list[Node]) -> None:
        now = {node.node_id: node.state for node in nodes}
        for node in nodes:
            if self._states.get(node.node_id) == node.state:
                continue
            if self._as_json:
                print_json({"at": _now(), "node": described(node)}, indent=None)
            else:
                click.echo(f"{_now()} {node.node_id} {node.heartbeat.hostname} {node.state}: {node.reason}")
        for node_id in self._states.keys() - now.keys():
            if self._as_json:
                print_json({"at": _now(), "gone": node_id}, indent=None)
            else:
                click.echo(f"{_now()} {node_id} is not listed any more")
        self._states = dict(now)


def _view(nodes: list[Node], every: float, height: int) -> RenderableType:
    from rich.console import Group  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in COLUMNS:
        table.add_column(column, overflow="ellipsis", no_wrap=True)
    room = max(1, height - _HEAD)
    for node in nodes[:room]:
        cells = [Text(str(cell)) for cell in _row(node)]
        cells[COLUMNS.index("state")] = Text(node.state, _STYLES.get(node.state, "dim"))
        table.add_row(*cells)
    more = f", {len(nodes) - room} of them not shown" if len(nodes) > room else ""
    return Group(
        Text(f"{_now()}, every {every:g} s; Ctrl-C ends", "dim"), table, Text(_counted(nodes) + more, "bold")
    )


def _counted(nodes: Sequence[Node]) -> str:
    return f"{len(nodes)} node{'' if len(nodes) == 1 else 's'}"


def _row(node: Node) -> tuple[object, ...]:
    heartbeat = node.heartbeat
    queues = ", ".join(f"{topic} {depth}" for topic, depth in heartbeat.queue_depth.items())
    slots = f"{node.available_slots}/{heartbeat.capacity.get('workers', '?')}"
    seen = format_ms(round(node.last_seen.timestamp() * 1000))
    interval = f"{node.interval_seconds} s"
    return (
        node.node_id,
        heartbeat.hostname,
        node.state,
        slots,
        queues,
        interval,
        seen,
        " ".join(heartbeat.tags),
    )


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
