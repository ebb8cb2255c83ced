"""The one place where a heartbeat is decided, whichever way it came: from request to outcome to answer.

The ASGI application and the hot route (`hot.py`) both go through here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from openclaw_exporter.receiver.refusals import RefusedError
from openclaw_exporter.wire.answers import Recorded, encode_recorded
from openclaw_exporter.wire.timestamps import format_ms

if TYPE_CHECKING:
    from collections.abc import Callable

    from openclaw_exporter.receiver.connection import Connection
    from openclaw_exporter.receiver.heads import Head
    from openclaw_exporter.receiver.intake import Intake
    from openclaw_exporter.receiver.liveness import Outcome
    from openclaw_exporter.receiver.metrics import ReceiverMetrics
    from openclaw_exporter.receiver.store import Recorder

AVAILABILITY: Final = "/openclaw/availability"


class Publishing:
    """Takes heartbeats in.

    Args:
        intake: Admits them.
        store: Records them.
        metrics: Counts.
    """

    def __init__(self, intake: Intake, store: Recorder, metrics: ReceiverMetrics) -> None:
        self._intake = intake
        self._store = store
        self.metrics = metrics

    def publish(
        self,
        connection: Connection,
        head: Head,
        body: bytes,
        done: Callable[[Outcome | None], None],
    ) -> None:
        """Admit a heartbeat and record it.

        Args:
            connection: Where it came in.
            head: The request's header fields.
            body: The body, within its limit.
            done: Called with the outcome once it is stored; with None where the store was lost.

        Raises:
            WireError: It is refused. `token-key-unknown` may be cured by fetching the key set again.
            StoreUnavailableError: The store or the key set cannot be reached.
        """
        self._store.submit(self._intake.admit(connection, head, body), done)

    async def record(self, connection: Connection, head: Head, body: bytes) -> Outcome:
        """Admit a heartbeat, record it, and return the outcome once it is stored.

        Raises:
            WireError: It is refused, as by `publish`.
            StoreUnavailableError: The store or the key set cannot be reached, or the store was lost.
        """
        return await self._store.record(self._intake.admit(connection, head, body))

    def answer(self, outcome: Outcome) -> bytes:
        """Count an outcome and return the body that answers it, JSON.

        Raises:
            RefusedError: It is a conflict, or was turned away by the process that holds the registry.
        """
        kind = outcome.kind
        if kind == "key-conflict" or kind == "epoch-conflict":  # noqa: PLR1714 - mypy follows this form
            raise RefusedError(kind, epoch=outcome.epoch)
        if kind == "rate-limited" or kind == "shedding":  # noqa: PLR1714 - as above
            raise RefusedError(kind, retry_after=outcome.interval)
        self.metrics.received(kind)
        return encode_recorded(Recorded(kind, format_ms(outcome.expires_ms), outcome.interval))
