"""A receiver's copy of the registry: what it answers readers from, and what it plans against.

It is never the authority. It follows the receiver's own commits, the changes of the others, and what a commit
finds to be different; of two states of one node the one with the later revision counts. A plan that was made
against a state that has changed is refused by the commit script.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

import msgspec

from openclaw_exporter.logs import Episodes
from openclaw_exporter.receiver.store.redis.packing import (
    REVISION_SIZE,
    States,
    is_newer,
    revision_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from openclaw_exporter.receiver.listening import Moment
    from openclaw_exporter.receiver.liveness import Event, NodeState
    from openclaw_exporter.receiver.registry import Registry
    from openclaw_exporter.receiver.store.redis.clock import SharedClock

_logger = logging.getLogger(__name__)

Counted = tuple["Event", "NodeState"]
Sent = tuple[str, int]

_SENT_LIFE: Final = 60.0
_NOTHING: Final[tuple[float, list[Counted]]] = (0.0, [])


class Mirror:
    """See the module.

    Args:
        registry: The copy.
        clock: The shared clock.
        count: Is told what happened to a node by this receiver's doing, once.
    """

    def __init__(
        self, registry: Registry, clock: SharedClock, count: Callable[[Event, NodeState], None]
    ) -> None:
        self.registry = registry
        self._clock = clock
        self._count = count
        self._states = States()
        self._episodes = Episodes(_logger)
        self._sent: dict[Sent, tuple[float, list[Counted]]] = {}

    def send(self, node_id: str, revision: int, events: list[Counted]) -> None:
        """Note that something is being sent by which something happens to a node."""
        self._sent[node_id, revision] = time.monotonic(), events

    def settle(self, node_id: str, revision: int, *, is_stored: bool) -> None:
        """Note what has become of what was sent. Where nobody knows, it may show up among the changes."""
        _, events = self._sent.pop((node_id, revision), _NOTHING)
        if is_stored:
            for event, state in events:
                self._count(event, state)

    def forget_sent(self) -> None:
        """Give up on what was sent so long ago that it is not among the changes any more."""
        oldest = time.monotonic() - _SENT_LIFE
        for sent in [sent for sent, (at, _) in self._sent.items() if at < oldest]:
            del self._sent[sent]

    def store(self, node_id: str, state: NodeState | None, revision: int, at: Moment) -> None:
        """Take in what this receiver has stored at a moment, unless the others are further already."""
        known = self.registry.nodes.get(node_id)
        if known is None or is_newer(revision, known.stored):
            self._take(node_id, state, at)

    def hears_of(self, node_id: str, revision: int) -> bool:
        """Take in that a node has a revision; return whether that is news."""
        if self._sent:
            self.settle(node_id, revision, is_stored=True)
        known = self.registry.nodes.get(node_id)
        return known is None or is_newer(revision, known.stored)

    def follow(self, node_id: str, blob: bytes, at: Moment) -> NodeState | None:
        """Take in a change.

        Args:
            node_id: Whose.
            blob: Its state and revision, or of one that was forgotten its revision.
            at: The present moment, about.

        Returns:
            The state, if it is news and the node is known now.
        """
        if not self.hears_of(node_id, revision_of(blob)):
            return None
        if len(blob) == REVISION_SIZE:
            if node_id in self.registry.nodes:
                self._take(node_id, None, at)
            return None
        state = self._read(node_id, blob)
        if state is not None:
            self._take(node_id, state, at)
        return state

    def correct(self, node_id: str, blob: bytes, expected: int, at: Moment) -> None:
        """Take in what is stored of a node, whatever was expected; nothing: it is not known.

        Args:
            node_id: The node.
            blob: What is stored.
            expected: The revision in whose stead it was found. Where the mirror has another one by now it
                knows better.
            at: The present moment, about.
        """
        if self._sent:
            self.settle(node_id, revision_of(blob), is_stored=True)
        known = self.registry.nodes.get(node_id)
        present = 0 if known is None else known.stored
        if present == revision_of(blob) or (present != expected and is_newer(present, revision_of(blob))):
            return
        state = self._read(node_id, blob) if blob else None
        if state is not None or not blob:
            self._take(node_id, state, at)

    def _read(self, node_id: str, blob: bytes) -> NodeState | None:
        """Return a state; None where it cannot be read, which the log says once."""
        try:
            return self._states.read(blob)
        except msgspec.DecodeError as error:
            text = f"what Redis holds of node {node_id} cannot be read and is left out: {error}"
            self._episodes.begin("unreadable", node_id, text, level=logging.ERROR)
            return None

    def _take(self, node_id: str, state: NodeState | None, at: Moment) -> None:
        known = self.registry.nodes.get(node_id)
        if state is not None:
            # The same object everywhere: a name is long.
            node_id = state.node_id = node_id if known is None else known.node_id
            self._clock.learn(state.interruption)
        elif known is None:
            return
        if self._clock.interruption > at.interruption:
            # It was read before an answer was waited for, or before the last state was taken.
            at = self._clock.read()
        self.registry.take(node_id, state, at)
