"""What the log says about publishing: each cause once while trouble lasts, and its end."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from openclaw_exporter.client.answers import Outcome

if TYPE_CHECKING:
    from openclaw_exporter.client.answers import Delivery
    from openclaw_exporter.logs import Episodes

_CONFLICT_OF_EPOCHS = (
    "a newer process of this node has been heard: two processes have one identity (certificate, node_id), or "
    "a state directory was lost; publishing is parked, the buffer is kept"
)
_CONFLICT_OF_BODIES = (
    "another heartbeat with the same node_id and last_heartbeat is known already: two processes have one "
    "identity (certificate, node_id); publishing is parked, the buffer is kept"
)


class Journal:
    """Logs what becomes of heartbeats.

    Args:
        episodes: Where to.
        endpoint: The receiver's URL, for the texts.
    """

    def __init__(self, episodes: Episodes, endpoint: str) -> None:
        self._episodes = episodes
        self._endpoint = endpoint
        self._causes: set[str] = set()

    def accepted(self) -> None:
        """Note that the newest heartbeat was accepted."""
        self._causes.clear()
        self._episodes.end("publish", f"{self._endpoint} accepts heartbeats again")

    def failed(self, delivery: Delivery) -> None:
        """Note that the newest heartbeat was not accepted."""
        cause = _cause(delivery)
        if cause in self._causes:
            return
        self._causes.add(cause)
        level = logging.WARNING if delivery.retryable else logging.ERROR
        self._episodes.begin("publish", cause, self._text(delivery, cause), level=level)

    def replay_refused(self, delivery: Delivery) -> None:
        """Note that a buffered heartbeat was refused and dropped."""
        cause = _cause(delivery)
        message = f"{self._endpoint} refuses buffered heartbeats ({cause}): they are dropped"
        self._episodes.begin("replay", cause, message)

    def replay_accepted(self) -> None:
        """Note that a buffered heartbeat was accepted."""
        self._episodes.end("replay", f"{self._endpoint} accepts buffered heartbeats again")

    def _text(self, delivery: Delivery, cause: str) -> str:
        outcome = delivery.outcome
        if delivery.status is None:
            return f"heartbeats do not reach {self._endpoint} ({cause}): they wait in the buffer"
        if outcome is Outcome.UNAUTHORIZED:
            return (
                f"{self._endpoint} refuses this node's token ({cause}), a new one too: publishing is parked, "
                "the buffer is kept; look at openclaw.token and at the receiver's issuers and keys"
            )
        if outcome is Outcome.PARKED:
            return (
                f"{self._endpoint} refuses this node ({cause}): certificate, token and node_id do not belong "
                "together, or the node is denied; publishing is parked, the buffer is kept"
            )
        if outcome is Outcome.CONFLICT:
            # The answer to a conflict of bodies may name the epoch as well.
            bodies = "key-conflict" in delivery.reason if delivery.reason else delivery.epoch is None
            text = _CONFLICT_OF_BODIES if bodies else _CONFLICT_OF_EPOCHS
            return f"{self._endpoint} answers {cause}: {text}"
        if outcome is Outcome.REFUSED:
            return f"{self._endpoint} refuses heartbeats ({cause}): they are dropped"
        return f"{self._endpoint} answers {cause}: heartbeats wait in the buffer"


def _cause(delivery: Delivery) -> str:
    return f"{delivery.error_type}: {delivery.reason}" if delivery.reason else delivery.error_type
