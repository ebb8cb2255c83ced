"""Showing the demo: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import shlex
import time
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol, TextIO

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from openclaw_exporter.cli.demo.stage import Stage
    from openclaw_exporter.cli.demo.watch import Sight
    from openclaw_exporter.client.nodes import Node

_EVERY: Final = 5.0
"""Seconds between two plain lines that sum everything up."""
_EVENTS: Final = 6
_FEWEST_ROWS: Final = 8
"""Of nodes; for them the addresses give way on a small terminal."""
_STYLES: Final = {"up": "green", "late": "yellow", "expired": "red"}


class View(Protocol):
    """What shows the demo."""

    def say(self, line: str) -> None:
        """Show a line that stays."""
        ...

    def show(self, sight: Sight, changes: Sequence[str]) -> None:
        """Show what is to be seen now, and what has happened."""
        ...

    def close(self) -> None:
        """Show nothing more."""
        ...


def addresses(stage: Stage) -> list[str]:
    """Return where everything is, and how to ask for it."""
    files = {"cacert": stage.pki.ca, "cert": stage.reader.certificate, "key": stage.reader.key}
    flags = " ".join(f"--{name} {shlex.quote(str(path))}" for name, path in files.items())
    return [
        f"Registry API      {stage.pki.endpoint}/openclaw/nodes, with the reader's certificate:",
        f"  curl -s {flags} '{stage.pki.endpoint}/openclaw/nodes?state=up'",
        f"Receiver metrics  {stage.admin_url}/metrics",
        f"Agent metrics     {stage.metrics_url}",
        f"Logs              {stage.logs}",
    ]


def totals(sight: Sight) -> str:
    """Return everything summed up in one line."""
    nodes = ", ".join(f"{state} {count}" for state, count in sight.states().items())
    heartbeats = ", ".join(f"{result.replace('_', ' ')} {count}" for result, count in sight.received.items())
    return f"nodes: {nodes}; heartbeats: {heartbeats}"


class PlainView:
    """Lines of text."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._next = time.monotonic() + _EVERY

    def say(self, line: str) -> None:
        """Show a line that stays."""
        click.echo(line, file=self._stream)

    def show(self, sight: Sight, changes: Sequence[str]) -> None:
        """Show what has happened, and now and then everything summed up."""
        clock = time.strftime("%H:%M:%S")
        for change in changes:
            self.say(f"{clock} {change}")
        if time.monotonic() >= self._next:
            self._next += _EVERY
            self.say(f"{clock} {totals(sight)}")

    def close(self) -> None:
        """Show nothing more."""


class LiveView:
    """A table that changes in its place."""

    def __init__(self, head: Sequence[str], first: str) -> None:
        from rich.console import Console  # noqa: PLC0415 - only a terminal needs it
        from rich.live import Live  # noqa: PLC0415

        self._console = Console()
        self._head_height = sum(map(self._height, head))
        self._first = first
        self._events: deque[str] = deque(maxlen=_EVENTS)
        for line in head:
            # Not wrapped, so that a command can be copied.
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        self._live = Live(console=self._console, refresh_per_second=4, transient=False)
        self._live.start()

    def say(self, line: str) -> None:
        """Show a line that stays."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def show(self, sight: Sight, changes: Sequence[str]) -> None:
        """Show all nodes that fit, what has happened, and everything summed up."""
        from rich.console import Group  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        clock = time.strftime("%H:%M:%S")
        self._events.extend(f"{clock} {change}" for change in changes)
        summary = totals(sight)
        # The table's head and its last line, events, the summary, the line of the cursor.
        free = self._console.height - _EVENTS - self._height(summary) - 3
        room = max(4, min(free, max(free - self._head_height, _FEWEST_ROWS)))
        lines = [Text(event, no_wrap=True, overflow="ellipsis") for event in self._events]
        bottom = Text(summary, style="bold")
        self._live.update(Group(self._table(sight, room), *lines, bottom))

    def _height(self, line: str) -> int:
        return max(1, -(-len(line) // self._console.width))

    def _table(self, sight: Sight, room: int) -> RenderableType:
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        table = Table("node", "state", "slots", "queues", "last seen", box=None, pad_edge=False)
        nodes = sorted(sight.nodes, key=lambda node: (node.node_id != self._first, node.heartbeat.hostname))
        for node in nodes[:room]:
            state = Text(node.state, style=_STYLES.get(node.state, "dim"))
            capacity = node.heartbeat.capacity
            slots = f"{capacity['available_slots']}/{capacity['workers']}"
            seen = f"{node.last_seen:%H:%M:%S}"
            table.add_row(node.heartbeat.hostname, state, slots, queues_text(node), seen)
        if len(nodes) > room:
            table.add_row(f"… and {len(nodes) - room} more")
        return table

    def close(self) -> None:
        """Leave the last table where it is."""
        self._live.stop()


def queues_text(node: Node) -> str:
    """Return a node's queues in a few words."""
    return ", ".join(f"{topic} {depth}" for topic, depth in node.heartbeat.queue_depth.items())
