"""One attempt to deliver one heartbeat: credentials as they are now, one exchange, one verdict."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from openclaw_exporter import __version__
from openclaw_exporter.client.answers import Delivery, Outcome, failure_of, outcome_of, reason_of, why
from openclaw_exporter.client.exchange import BrokenError, ProtocolError, Request
from openclaw_exporter.client.pacing import parse_http_date, parse_retry_after
from openclaw_exporter.client.settings import publish_url
from openclaw_exporter.client.transport import NO_ANSWER, KeptTransport
from openclaw_exporter.wire import headers
from openclaw_exporter.wire.answers import read_epoch, read_interval

if TYPE_CHECKING:
    from collections.abc import Mapping

    from openclaw_exporter.client.bearer import Bearer
    from openclaw_exporter.client.clock import Clock
    from openclaw_exporter.client.credentials import Tls, Validity
    from openclaw_exporter.client.exchange import Response, Transport
    from openclaw_exporter.client.metrics import PublisherMetrics
    from openclaw_exporter.client.outgoing import Outgoing
    from openclaw_exporter.client.settings import ClientSettings
    from openclaw_exporter.logs import Episodes

MAX_ANSWER_BYTES: Final = 65_536
LEAST_OFFSET: Final = 30.0
MOST_OFFSET: Final = 25 * 3600.0

_REPLAY: Final = {headers.REPLAY: headers.REPLAYED}
_DRAINING: Final = {headers.STATE: headers.DRAINING}
_STALE: Final = (BrokenError, ProtocolError)


class Courier:
    """Delivers heartbeats over one kept connection. For one thread at a time, but for `abort`.

    Args:
        settings: Endpoint, time-outs and proxy.
        node_id: Whose heartbeats they are.
        tls: What secures the connection.
        bearer: Where its tokens come from.
        clock: The time.
        metrics: Where attempts are counted.
        episodes: Where the clock's trouble is logged.
        transport: Sends requests in place of a connection of the courier's own.

    Attributes:
        successes: Attempts that were answered 2xx.
        failures: Attempts that were not.
    """

    def __init__(
        self,
        settings: ClientSettings,
        *,
        node_id: str,
        tls: Tls,
        bearer: Bearer,
        clock: Clock,
        metrics: PublisherMetrics,
        episodes: Episodes,
        transport: Transport | None = None,
    ) -> None:
        self._settings = settings
        self._url = publish_url(settings.endpoint)
        parts = urlsplit(self._url)
        self._host, self._target = parts.netloc, parts.path
        self._node_id = node_id
        self._tls = tls
        self._bearer = bearer
        self._clock = clock
        self._metrics = metrics
        self._episodes = episodes
        self._given = transport
        self._kept: KeptTransport | None = None
        self.successes = 0
        self.failures = 0

    def credentials(self) -> Mapping[str, Validity]:
        """Return the validity of each credential in use."""
        current = self._tls.current
        found = {"certificate": current.certificate, "ca": current.ca} if current.context else {}
        return found if self._bearer.validity is None else {**found, "token": self._bearer.validity}

    def deliver(
        self,
        outgoing: Outgoing,
        *,
        replay: bool = False,
        draining: bool = False,
        patience: float | None = None,
    ) -> Delivery:
        """Send a heartbeat, and once again with a new token where the receiver refused the token.

        Args:
            outgoing: What to send.
            replay: Whether it is late: history, no proof of life.
            draining: Whether the node is leaving.
            patience: Seconds that all of this may take; by default what the settings allow.
        """
        extra = {**(_REPLAY if replay else {}), **(_DRAINING if draining else {})}
        ends = None if patience is None else time.monotonic() + patience
        delivery = self._attempt(outgoing, extra, ends)
        if delivery.outcome is Outcome.UNAUTHORIZED:
            self._bearer.renew(self._token_offset(delivery.offset))
            if not delivery.retry_after:
                delivery = self._attempt(outgoing, extra, ends)
        return delivery

    def abort(self) -> None:
        """Cut the exchange that another thread waits for, if there is one."""
        kept = self._kept
        if kept is not None:
            kept.network.abort()

    def close(self) -> None:
        """Close the connection. Idempotent."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def _attempt(self, outgoing: Outgoing, extra: Mapping[str, str], ends: float | None) -> Delivery:
        if self._tls.refresh(self._node_id):
            # What is true of this connection is no longer true of this node.
            self.close()
        request = self._request(outgoing, extra)
        started = self._clock.monotonic()
        try:
            response, body = self._exchange(request, ends)
        except NO_ANSWER as error:
            delivery = self._failure(error)
        else:
            delivery = self._verdict(response, body)
        self._metrics.attempted(delivery, self._clock.monotonic() - started, self._clock.wall())
        if delivery.error_type:
            self.failures += 1
        else:
            self.successes += 1
        return delivery

    def _request(self, outgoing: Outgoing, extra: Mapping[str, str]) -> Request:
        settings = self._settings
        token = self._bearer.token(self._tls.current.thumbprint)
        sent = {
            "Host": self._host,
            "Content-Length": str(len(outgoing.body)),
            "User-Agent": f"openclaw-exporter/{__version__}",
            "Accept": "application/json, application/problem+json",
            # An answer has a few hundred bytes; whoever compresses one wants something else.
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
            **({"Authorization": f"Bearer {token}"} if token else {}),
            headers.INTERVAL: str(outgoing.interval),
            headers.SEQUENCE: outgoing.sequence,
            **extra,
        }
        # With every attempt anew: a signature is good for minutes, a buffered heartbeat for days.
        sent |= self._bearer.sign(sent, path=self._target, body=outgoing.body)
        return Request(
            "POST",
            self._target,
            sent,
            outgoing.body,
            connect_timeout=settings.connect_timeout,
            silence=settings.timeout,
        )

    def _exchange(self, request: Request, ends: float | None) -> tuple[Response, bytes]:
        """Send a request and read its answer; raise one of `NO_ANSWER` where there is none."""
        if self._given is not None:
            return _converse(self._given, request)
        kept = self._connection()
        limit = time.monotonic() + self._settings.connect_timeout + self._settings.timeout
        kept.network.deadline = limit if ends is None else min(limit, ends)
        kept.network.aborted = False
        connections = kept.network.connections
        try:
            return _converse(kept, request)
        except _STALE:
            if kept.network.connections != connections or kept.network.aborted:
                raise
            # The receiver closed the kept connection while this was on its way: no failure of the receiver's,
            # and the idempotency key makes a second copy harmless.
            return _converse(kept, request)

    def _connection(self) -> KeptTransport:
        if self._kept is None:
            # Kept from beat to beat, whatever the interval in force.
            keep = 2.0 * self._settings.max_interval
            context, proxy = self._tls.current.context, self._settings.proxy
            self._kept = KeptTransport(self._url, context, keep=keep, proxy=proxy)
        return self._kept

    def _failure(self, error: Exception) -> Delivery:
        kind, reason = failure_of(error), why(error)
        # With TLS 1.3 a certificate is refused after the client's handshake, by an alert or by silence.
        hung_up = kind == "connection" and isinstance(error, _STALE) and self._tls.current.context is not None
        if (kind == "tls" or hung_up) and self._tls.current.certificate.not_after < self._clock.wall():
            # The other side says no more than that it does not like the certificate.
            reason = "this node's own certificate has expired: renew openclaw.tls.certificate"
        elif hung_up:
            reason = "closed without an answer, as by a receiver that refuses the certificate"
        return Delivery(Outcome.BACKOFF, error_type=kind, reason=reason)

    def _verdict(self, response: Response, body: bytes) -> Delivery:
        status = response.status
        fields = {name.lower(): value.decode("latin-1") for name, value in response.fields}
        outcome = outcome_of(status)
        wall = self._clock.wall()
        date = parse_http_date(fields.get(b"date"))
        accepted = outcome is Outcome.ACCEPTED
        return Delivery(
            outcome,
            status=status,
            error_type="" if accepted else str(status),
            retry_after=parse_retry_after(fields.get(b"retry-after"), wall if date is None else date),
            interval=read_interval(body) if accepted else None,
            epoch=read_epoch(body) if outcome is Outcome.CONFLICT else None,
            offset=None if date is None else date - wall,
            reason="" if accepted else reason_of(body),
        )

    def _token_offset(self, offset: float | None) -> float:
        """Return what to add to our clock for the next token, and log where the clocks are apart."""
        if offset is None or abs(offset) <= LEAST_OFFSET:
            self._episodes.end("clock", "this machine's clock agrees with the receiver's again")
            return 0.0
        ahead = "behind" if offset > 0 else "ahead of"
        apart = f"this machine's clock is {abs(offset):.0f} s {ahead} the receiver's"
        if abs(offset) > MOST_OFFSET:
            message = f"{apart}: more than tokens may be corrected for; set the clock"
            self._episodes.begin("clock", "too far", message, level=logging.ERROR)
            return 0.0
        self._episodes.begin("clock", "apart", f"{apart}: tokens are minted by the receiver's clock")
        return offset


def _converse(transport: Transport, request: Request) -> tuple[Response, bytes]:
    response = transport.handle_request(request)
    try:
        return response, _read(response)
    finally:
        try:
            response.close()
        except NO_ANSWER:
            logging.getLogger(__name__).debug("the connection was lost after the answer")


def _read(response: Response) -> bytes:
    """Return the answer's body as far as it came: the status alone decides."""
    body = b""
    try:
        for part in response.pieces():
            body += part
            if len(body) > MAX_ANSWER_BYTES:
                return b""
    except NO_ANSWER:
        return b""
    return body
