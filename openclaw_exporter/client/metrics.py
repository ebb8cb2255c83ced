"""The publisher's own metrics, by the catalogue, through opentelemetry-api alone."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from opentelemetry.metrics import Meter

    from openclaw_exporter.client.answers import Delivery
    from openclaw_exporter.client.credentials import Validity


class PublisherMetrics:
    """What one publisher reports: kept back until it is known where to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept_back: list[Callable[[], None]] | None = []
        self._skew: float | None = None
        self._last_success: float | None = None

    def begin(self, meter: Meter | None) -> None:
        """Report to this meter from now on, first what was kept back.

        Args:
            meter: Where to; the process's global meter provider where None.
        """
        # Not before the first heartbeat of an agent, whose start these would lengthen by a twentieth.
        from opentelemetry.metrics import get_meter  # noqa: PLC0415

        from openclaw_exporter.telemetry.instruments import Instruments  # noqa: PLC0415

        self._instruments = Instruments(meter if meter is not None else get_meter("openclaw_exporter"))
        self._success = self._instruments.counter("openclaw.publish.success_total")
        self._failure = self._instruments.counter("openclaw.publish.failure_total")
        self._latency = self._instruments.histogram("openclaw.latency_seconds")
        self._dropped = self._instruments.counter("openclaw.buffer.dropped")
        with self._lock:
            kept_back, self._kept_back = self._kept_back or [], None
        for report in kept_back:
            report()

    def observe(
        self, *, waiting: Callable[[], int], limit: int, credentials: Callable[[], Mapping[str, Validity]]
    ) -> None:
        """Export what is read at each collection: the buffer, the credentials and the clock's skew.

        Args:
            waiting: How many heartbeats are in the buffer.
            limit: How many it can hold.
            credentials: The validity of each credential in use, by its name.
        """
        self._report(lambda: self._observe(waiting, limit, credentials))

    def _observe(
        self, waiting: Callable[[], int], limit: int, credentials: Callable[[], Mapping[str, Validity]]
    ) -> None:
        observe = self._instruments.observe
        observe("openclaw.buffer.usage", lambda: [(waiting(), {})])
        observe("openclaw.buffer.limit", lambda: [(limit, {})])
        observe("openclaw.publish.clock_skew", lambda: [] if self._skew is None else [(self._skew, {})])
        observe(
            "openclaw.publish.last_success.timestamp",
            lambda: [] if self._last_success is None else [(self._last_success, {})],
        )
        for index, name in enumerate(("openclaw.credential.not_before", "openclaw.credential.not_after")):
            observe(name, _validities(credentials, index))

    def attempted(self, delivery: Delivery, seconds: float, now: float) -> None:
        """Count one publish attempt that took so many seconds and ended now, Unix seconds."""
        self._report(lambda: self._attempted(delivery, seconds, now))

    def _attempted(self, delivery: Delivery, seconds: float, now: float) -> None:
        if delivery.status is not None:
            self._latency.record(seconds, {"http.response.status_code": delivery.status})
        if delivery.offset is not None:
            self._skew = delivery.offset
        if delivery.error_type:
            self._failure.add(
                1, {"error.type": delivery.error_type, "openclaw.retryable": delivery.retryable}
            )
        else:
            self._success.add(1)
            self._last_success = now

    def dropped(self, reason: str, number: int) -> None:
        """Count heartbeats that were given up."""
        self._report(lambda: self._dropped.add(number, {"reason": reason}))

    def close(self) -> None:
        """Let the observed series disappear; the totals stay."""
        self._report(self._close)

    def _close(self) -> None:
        self._instruments.close()

    def _report(self, report: Callable[[], None]) -> None:
        with self._lock:
            if self._kept_back is not None:
                self._kept_back.append(report)
                return
        report()


def _validities(
    credentials: Callable[[], Mapping[str, Validity]], index: int
) -> Callable[[], Iterable[tuple[float, Mapping[str, str]]]]:
    def series() -> Iterable[tuple[float, Mapping[str, str]]]:
        return [(validity[index], {"openclaw.credential": name}) for name, validity in credentials().items()]

    return series
