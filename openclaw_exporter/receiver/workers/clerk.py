"""Records what the workers submit, in the registry's process: what holds for all of them is held here."""

from __future__ import annotations

from functools import partial
from sys import intern
from typing import TYPE_CHECKING, Literal

import msgspec

from openclaw_exporter.errors import StoreUnavailableError
from openclaw_exporter.receiver.intake import rate_limited, shared_tags
from openclaw_exporter.receiver.liveness import Outcome
from openclaw_exporter.receiver.refusals import RefusedError, SheddingError
from openclaw_exporter.receiver.workers.messages import Decided

if TYPE_CHECKING:
    from collections.abc import Callable

    from openclaw_exporter.receiver.clock import Clock
    from openclaw_exporter.receiver.liveness import Arrival
    from openclaw_exporter.receiver.metrics import ReceiverMetrics
    from openclaw_exporter.receiver.rate import RateLimit
    from openclaw_exporter.receiver.shedding import Shedding
    from openclaw_exporter.receiver.store import Recorder
    from openclaw_exporter.receiver.workers.messages import Submitted


class Clerk:
    """Takes arrivals and answers with what became of them.

    Args:
        store: Records them.
        rate: How often one node may publish, over all workers: each worker limits what it sees alone.
        clock: This machine's clocks.
        shedding: Turns some away while this process has too much to do.
        metrics: Counts what is stored; it is counted nowhere else, so that no death of a worker loses any.
    """

    def __init__(
        self, store: Recorder, rate: RateLimit, clock: Clock, shedding: Shedding, metrics: ReceiverMetrics
    ) -> None:
        self._store = store
        self._rate = rate
        self._clock = clock
        self._shedding = shedding
        self._received = metrics.received

    def take(self, submitted: Submitted, answer: Callable[[Decided], None]) -> None:
        """Record what a worker submits; `answer` is called once, when all of it is decided."""
        batch = _Batch(submitted, answer, self._received)
        now = self._clock.elapsed()
        for index, arrival in enumerate(submitted.arrivals):
            done = partial(batch.settle, index)
            try:
                self._shedding.check()
                if (wait := self._rate.admit(arrival.node_id, now)) > 0:
                    raise rate_limited(wait)
                self._store.submit(_shared(arrival), done)
            except RefusedError as refusal:
                done(_refused(refusal))
            except StoreUnavailableError:
                done(None)


class _Batch:
    """The arrivals of one message, until the last of them is decided."""

    __slots__ = ("_answer", "_decided", "_left", "_received")

    def __init__(
        self, submitted: Submitted, answer: Callable[[Decided], None], received: Callable[..., None]
    ) -> None:
        self._left = len(submitted.arrivals)
        self._decided = Decided(submitted.number, [None] * self._left)
        self._answer = answer
        self._received = received

    def settle(self, index: int, outcome: Outcome | None) -> None:
        self._decided.outcomes[index] = outcome
        if outcome is not None and outcome.kind in ("recorded", "duplicate", "history"):
            self._received(outcome.kind)
        self._left -= 1
        if not self._left:
            self._answer(self._decided)


def _shared(arrival: Arrival) -> Arrival:
    """Return an arrival with the texts that many nodes have in common kept once."""
    msgspec.structs.force_setattr(arrival, "tags", shared_tags(arrival.tags))
    msgspec.structs.force_setattr(arrival, "version", intern(arrival.version))
    return arrival


def _refused(refusal: RefusedError) -> Outcome:
    """Return an outcome that stands for a refusal; the worker makes one of it again."""
    kind: Literal["shedding", "rate-limited"] = (
        "shedding" if isinstance(refusal, SheddingError) else "rate-limited"
    )
    return Outcome(kind, 0, refusal.retry_after or 0, None)
