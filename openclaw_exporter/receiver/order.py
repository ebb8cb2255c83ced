"""The node ids in order, sorted when somebody asks for a page and not with every registration."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from openclaw_exporter.receiver.liveness import NodeState
    from openclaw_exporter.receiver.registry import Plan


class Order:
    """The keys of a registry, sorted lazily: a sorted list with a few appended is nearly free to sort.

    Args:
        nodes: The registry's nodes.
    """

    def __init__(self, nodes: Mapping[str, NodeState]) -> None:
        self._nodes = nodes
        self._sorted = sorted(nodes)
        self._added: set[str] = set()
        self._removed = False

    def note(self, plan: Plan) -> None:
        """Take in what a plan has registered and forgotten."""
        for event, state in plan.events:
            if event == "registered":
                self._added.add(state.node_id)
            elif event == "forgotten":
                self._removed = True

    def after(self, node_id: str | None) -> list[str]:
        """Return the ids of all nodes behind one, in order; of all nodes where it is None."""
        if self._removed:
            self._sorted = sorted(self._nodes)
        elif self._added:
            self._sorted.extend(self._added)
            self._sorted.sort()
        self._removed = False
        self._added.clear()
        return self._sorted[bisect_right(self._sorted, node_id) if node_id is not None else 0 :]
