"""What a heartbeat must pass before it is recorded: certificate, form, token, rate, content, identity.

`Intake.admit` is one synchronous function without any server in it: given the connection, the header fields
and the body it returns the arrival or raises the refusal.
"""

from __future__ import annotations

from functools import lru_cache
from sys import intern
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from openclaw_exporter.errors import FieldProblem, FieldsError, StoreUnavailableError, TokenError
from openclaw_exporter.receiver.connection import Verdict
from openclaw_exporter.receiver.heads import SEQUENCE_FIELD
from openclaw_exporter.receiver.liveness import Arrival
from openclaw_exporter.receiver.refusals import RefusedError
from openclaw_exporter.receiver.signatures import Signatures
from openclaw_exporter.wire.certificates import check_publisher
from openclaw_exporter.wire.headers import (
    INTERVAL,
    REPLAY,
    SEQUENCE,
    STATE,
    Sequence,
    parse_interval,
    parse_replay,
    parse_state,
)
from openclaw_exporter.wire.heartbeat import decode_next, digest, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import TypeVar

    from openclaw_exporter.receiver.clock import Clock
    from openclaw_exporter.receiver.connection import Connection, Speaker
    from openclaw_exporter.receiver.heads import Field, Head
    from openclaw_exporter.receiver.keys import KeyRing
    from openclaw_exporter.receiver.rate import RateLimit
    from openclaw_exporter.receiver.settings import ReceiverSettings
    from openclaw_exporter.receiver.shedding import Shedding
    from openclaw_exporter.wire.certificates import PeerCertificate
    from openclaw_exporter.wire.heartbeat import Heartbeat

    T = TypeVar("T")

MAX_AHEAD_MS: Final = 48 * 3_600_000
"""How far a node's clock may be ahead of the receiver's."""

AUTHORIZATION: Final = b"authorization"
_CONTENT_TYPE: Final = b"content-type"
_CONTENT_ENCODING: Final = b"content-encoding"
_INTERVAL, _REPLAY, _STATE = (name.lower().encode() for name in (INTERVAL, REPLAY, STATE))
COUNTED: Final = frozenset(
    {AUTHORIZATION, _CONTENT_TYPE, _CONTENT_ENCODING, _INTERVAL, SEQUENCE_FIELD, _REPLAY, _STATE}
)
"""The header fields that count here."""


class Order(NamedTuple):
    """What a head says of the node's intentions, the sequence apart; see `Arrival`."""

    interval: int | None
    replay: bool
    draining: bool


class Intake:
    """Admits heartbeats.

    Args:
        settings: The configuration.
        keys: What vouches for tokens.
        rate: How often one node may publish.
        clock: This machine's clocks.
        shedding: Turns some away when there are too many.
    """

    _counted = COUNTED

    def __init__(
        self, settings: ReceiverSettings, keys: KeyRing, rate: RateLimit, clock: Clock, shedding: Shedding
    ) -> None:
        self._min_interval = settings.min_interval
        self._max_interval = settings.max_interval
        self._leeway = settings.tokens.leeway
        self._subjects = {issuer.issuer: issuer.subjects for issuer in settings.tokens.issuers}
        # Most receivers have none, and pay nothing for it.
        self._signatures = None if settings.tokens.signatures == "off" else Signatures(settings.tokens)
        self._keys = keys
        self._rate = rate
        self._clock = clock
        self._shedding = shedding

    def admit(self, connection: Connection, head: Head, body: bytes) -> Arrival:
        """Check a heartbeat from its certificate to its content.

        Args:
            connection: Where it came in; it, or whom it forwards, keeps the verified token.
            head: The request's header fields.
            body: The body, within its limit.

        Raises:
            WireError: It is refused.
            StoreUnavailableError: The key set of the token's issuer has not been read yet.
        """
        self._shedding.check()
        speaker = connection.speaker(head)
        peer = speaker.identify()
        if peer.identity.role != "node":
            raise RefusedError("role-not-allowed", "only a node's certificate may publish")
        fields = head.formed or self._formed(head)
        now_ms = self._clock.wall_ms()
        verdict = speaker.verdict
        if (
            verdict is not None
            and verdict is head.verdict
            and verdict.verifier is self._keys.verifier
            and now_ms / 1000 < verdict.until
        ):
            subject = verdict.subject
        else:
            subject = self._subject(speaker, peer, fields.get(AUTHORIZATION), now_ms / 1000)
            head.verdict = speaker.verdict
        # Before the body: one that is refused has cost its sender a beat as well.
        self._limit(peer.identity.name)
        if self._signatures is not None:
            token = _bearer(fields.get(AUTHORIZATION))
            self._signatures.check(head.fields, body, token=token, verdict=speaker.verdict, now=now_ms / 1000)
        heartbeat, like = decode_next(body, connection.heartbeat)
        check_publisher(peer, subject=subject, node_id=heartbeat.node_id)
        if like is not connection.heartbeat:
            like = with_shared_texts(like)
            if speaker is connection:
                # Not of those whom a proxy forwards: there may be a million.
                connection.heartbeat = like
        return self._accept(heartbeat, like, head, fields, now_ms)

    def _formed(self, head: Head) -> dict[bytes, bytes]:
        """Return the fields that count, having checked the form of the body that they announce."""
        fields = head.formed
        if fields is None:
            fields = _read(head.fields, self._counted)
            _check_form(fields)
            head.formed = fields
        return fields

    def _limit(self, node_id: str) -> None:
        """Refuse a node that publishes more often than it may."""
        wait = self._rate.admit(node_id, self._clock.elapsed())
        if wait > 0:
            raise rate_limited(wait)

    def _accept(
        self, heartbeat: Heartbeat, like: Heartbeat, head: Head, fields: Mapping[bytes, bytes], now_ms: int
    ) -> Arrival:
        """Check what is left to check once it is known whose heartbeat it is; `like` has the same texts."""
        arrival = _arrival(heartbeat, like, *self._order(head, fields))
        _check_ahead(arrival, now_ms + MAX_AHEAD_MS)
        return arrival

    def _subject(
        self, speaker: Speaker, peer: PeerCertificate, authorization: bytes | None, now: float
    ) -> str:
        """Return the node that the token speaks for; a token is verified once with each certificate."""
        verifier = self._keys.verifier
        known = speaker.verdict
        token_key = speaker.token_key(authorization or b"")
        if known is not None and known.authorization == token_key and now < known.until:
            if known.verifier is verifier:
                return known.subject
            # A key was added for others: that is no reason to verify the tokens of a fleet once more.
            if verifier is not None and known.is_good_for(verifier):
                speaker.verdict = msgspec.structs.replace(known, verifier=verifier)
                return known.subject
        token = _bearer(authorization)
        if verifier is None:
            raise StoreUnavailableError("no key set has been read yet")
        verified = verifier.verify(token, thumbprint=peer.thumbprint, now=now)
        subject = verified.subject
        if verified.profile == "external":
            allowed = {
                pattern.replace("{node_id}", peer.identity.name)
                for pattern in self._subjects[verified.issuer]
            }
            subject = peer.identity.name if subject in allowed else ""
        if subject == peer.identity.name:
            # One text for both: a proxy brings a fleet.
            subject = peer.identity.name
        until = verified.expires_at + self._leeway
        speaker.verdict = Verdict(token_key, verifier, subject, until, verified.issuer, verified.key_id)
        return subject

    def _order(self, head: Head, fields: Mapping[bytes, bytes]) -> tuple[Sequence | None, Order]:
        if head.order is not None and head.varying is not None:
            return head.read_sequence(), head.order
        problems: list[FieldProblem] = []
        order = head.order or self._read_order(fields, problems)
        sequence = _parsed(fields, SEQUENCE_FIELD, Sequence.parse, problems)
        if problems:
            raise FieldsError(tuple(problems))
        head.order = order
        return sequence, order

    def _read_order(self, fields: Mapping[bytes, bytes], problems: list[FieldProblem]) -> Order:
        interval = _parsed(fields, _INTERVAL, _interval_of, problems)
        if interval is not None and interval > self._max_interval:
            problems.append(FieldProblem(INTERVAL, f"must be at most {self._max_interval} seconds"))
        # Most have neither.
        replay = _REPLAY in fields and _parsed(fields, _REPLAY, parse_replay, problems)
        draining = _STATE in fields and _parsed(fields, _STATE, parse_state, problems)
        return Order(
            interval=None if interval is None else max(interval, self._min_interval),
            replay=bool(replay),
            draining=bool(draining),
        )


def rate_limited(wait: float) -> RefusedError:
    """Return the refusal of a node that publishes too often; wait: seconds until it may again."""
    detail = "the node publishes more often than it may"
    return RefusedError("rate-limited", detail, retry_after=int(wait) + 1)


# Thousands of nodes have the same ones, and a node has the same ones every time.
@lru_cache(maxsize=16_384)
def shared_tags(tags: tuple[str, ...]) -> tuple[str, ...]:
    """Return the one copy of a node's tags that is kept."""
    return tuple(map(intern, tags))


_interval_of = lru_cache(maxsize=256)(parse_interval)


def with_shared_texts(heartbeat: Heartbeat) -> Heartbeat:
    """Return the same heartbeat, its tags and version being the one copy of those that is kept."""
    tags, version = shared_tags(heartbeat.tags), intern(heartbeat.version)
    return msgspec.structs.replace(heartbeat, tags=tags, version=version)


def _arrival(heartbeat: Heartbeat, like: Heartbeat, sequence: Sequence | None, order: Order) -> Arrival:
    payload = encode(heartbeat)
    return Arrival(
        node_id=heartbeat.node_id,
        payload=payload,
        digest=digest(payload),
        tags=like.tags,
        version=like.version,
        slots=int(heartbeat.capacity["available_slots"]),
        sent_ms=heartbeat.sent_ms,
        sequence=sequence,
        interval=order.interval,
        replay=order.replay,
        draining=order.draining,
    )


def _read(all_fields: Iterable[Field], counted: frozenset[bytes]) -> dict[bytes, bytes]:
    fields: dict[bytes, bytes] = {}
    for name, value in all_fields:
        if name in counted:
            if name in fields:
                if name == AUTHORIZATION:
                    raise TokenError("token-malformed", "Authorization is there more than once")
                raise RefusedError("bad-request", f"{name.decode()} is there more than once")
            fields[name] = value
    return fields


def _check_form(fields: Mapping[bytes, bytes]) -> None:
    # Not even `identity`, which is no coding to send (RFC 9110, 8.4).
    if _CONTENT_ENCODING in fields:
        raise RefusedError("content-encoding", "send the body without Content-Encoding")
    media_type = fields.get(_CONTENT_TYPE, b"")
    if media_type == b"application/json":
        return
    essence, _, parameters = media_type.partition(b";")
    charset = parameters.replace(b" ", b"").replace(b'"', b"").lower()
    if essence.strip().lower() != b"application/json" or charset not in (b"", b"charset=utf-8"):
        raise RefusedError("media-type", "send Content-Type: application/json")


def _bearer(authorization: bytes | None) -> bytes:
    if authorization is None:
        raise TokenError("token-missing", "there is no Authorization")
    scheme, _, token = authorization.partition(b" ")
    if scheme.lower() != b"bearer":
        raise TokenError("token-missing", "Authorization is not of the scheme Bearer")
    return token


def _parsed(
    fields: Mapping[bytes, bytes], name: bytes, parse: Callable[[str], T], problems: list[FieldProblem]
) -> T | None:
    value = fields.get(name)
    if value is None:
        return None
    try:
        return parse(value.decode("latin-1"))
    except FieldsError as error:
        problems.extend(error.problems)
        return None


def _check_ahead(arrival: Arrival, latest_ms: int) -> None:
    if arrival.sent_ms > latest_ms:
        problem = FieldProblem("last_heartbeat", "more than 48 h ahead of the receiver's clock")
        raise RefusedError("heartbeat-ahead", problem.message, errors=(problem,))
    if arrival.sequence is not None and arrival.sequence.epoch > latest_ms:
        problem = FieldProblem(SEQUENCE, "its epoch is more than 48 h ahead of the receiver's clock")
        raise RefusedError("epoch-ahead", problem.message, errors=(problem,))
