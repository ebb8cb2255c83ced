"""Several observers of one store."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openclaw_exporter.receiver.discovery.events import Hub
    from openclaw_exporter.receiver.liveness import Event, NodeState
    from openclaw_exporter.receiver.metrics import ReceiverMetrics


class Observers:
    """Tells the metrics and the readers of events, each what it wants to know. An `Observer`.

    Args:
        metrics: Counts.
        hub: What happens to nodes.
        is_shared: Whether the store tells the hub itself, of what happens at other receivers too.
    """

    def __init__(self, metrics: ReceiverMetrics, hub: Hub, *, is_shared: bool = False) -> None:
        self._metrics = metrics
        self._hub = hub
        self._is_shared = is_shared
        self.heard = metrics.heard
        self.timed = metrics.timed
        self.updated = hub.updated

    @property
    def wants_updates(self) -> bool:
        """Whether somebody reads of heartbeats that changed nothing else."""
        return self._hub.wants_updates

    def happened(self, event: Event, state: NodeState) -> None:
        """Count an event and tell it."""
        self._metrics.happened(event, state)
        if not self._is_shared:
            self._hub.happened(event, state)
