"""What a receiver that has ended, or was killed, left on its disk: read as the next one would."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from openclaw_exporter.receiver.store.sqlite import Database

if TYPE_CHECKING:
    from pathlib import Path

    from openclaw_exporter.receiver.liveness import NodeState
    from openclaw_exporter.receiver.registry import KeyRow


class Left(NamedTuple):
    """The content of a registry's file.

    Attributes:
        nodes: By node_id.
        arrivals: Of known nodes, as their history shows them.
    """

    nodes: dict[str, NodeState]
    arrivals: list[KeyRow]


def left_in(path: Path) -> Left:
    """Read a registry's file that no receiver uses."""
    database = Database(path)
    database.open()
    try:
        states = database.load().states
        arrivals = [
            row
            for state in states
            for row in database.history(state.node_id, state.trail, since=float("-inf"))
        ]
    finally:
        database.close()
    return Left({state.node_id: state for state in states}, arrivals)
