"""Which batches of states are still needed, and what has to be folded into the table of nodes before they go.

A state is appended to the newest batch. A node that goes on beating writes itself anew before its last batch
is the oldest, and costs nothing more; only those that fell silent, or beat more slowly than most, are written
into the table of nodes when their batch goes. The tail is kept about twice as long as there are nodes, so
what a start has to read does not depend on how long the receiver ran. A node that is forgotten lets all
batches up to its last state go, whatever their number, so that nothing of it stays.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from openclaw_exporter.receiver.liveness import NodeState

SPARE: Final = 10_000
"""States that are kept at least, so that a small registry folds hardly ever."""

_STEP: Final = 2048
"""The states whose batches go with one commit, at most, and a batch more."""


class Tail:
    """The batches of states that are stored, the oldest first."""

    def __init__(self) -> None:
        self._batches: deque[tuple[int, list[str]]] = deque()
        self._states = 0
        self._forgotten = 0

    def __len__(self) -> int:
        """The number of states in all batches."""
        return self._states

    @property
    def holds_forgotten(self) -> bool:
        """Whether a batch holds a state of a node that was forgotten."""
        return bool(self._batches) and self._batches[0][0] <= self._forgotten

    def forget(self, number: int) -> None:
        """Let the batches up to this one go soon: it holds the last state of a node that was forgotten."""
        self._forgotten = max(self._forgotten, number)

    def add(self, number: int, node_ids: list[str]) -> None:
        """Note a batch that was stored."""
        self._batches.append((number, node_ids))
        self._states += len(node_ids)

    def surplus(self, known: int, find: Callable[[str], NodeState | None]) -> tuple[list[NodeState], int]:
        """Return what may go with the next commit.

        Args:
            known: How many nodes there are.
            find: Returns a node's state as it will be after that commit.

        Returns:
            The states to fold, and the number of the newest batch that goes; 0: none does.
        """
        excess = _STEP if self.holds_forgotten else min(self._states - 2 * known - SPARE, _STEP)
        folded: list[NodeState] = []
        newest = 0
        for number, node_ids in self._batches:
            if excess < len(node_ids):
                break
            excess -= len(node_ids)
            newest = number
            states = map(find, node_ids)
            folded.extend(state for state in states if state is not None and state.stored == number)
        return folded, newest

    def drop(self, newest: int) -> None:
        """Note that batches up to this one are gone."""
        while self._batches and self._batches[0][0] <= newest:
            self._states -= len(self._batches.popleft()[1])

    def clear(self) -> None:
        """Note that all are gone."""
        self._batches.clear()
        self._states = 0
