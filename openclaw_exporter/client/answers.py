"""What an answer means for the publisher: the contract's table of status codes, and nothing else."""

from __future__ import annotations

import enum
import re
import socket
import ssl
from typing import Final

import msgspec

from openclaw_exporter.client.exchange import ProtocolError, TimedOutError
from openclaw_exporter.wire.problems import TYPE_PREFIX


class Outcome(enum.Enum):
    """What the publisher does with a heartbeat after an attempt."""

    ACCEPTED = "accepted"
    """2xx: done."""
    BACKOFF = "backoff"
    """408, 425, 429, 5xx and no answer at all: keep it, come back later."""
    UNAUTHORIZED = "unauthorized"
    """401: once again with a new token, then park."""
    PARKED = "parked"
    """403: keep it, try again next interval."""
    CONFLICT = "conflict"
    """409: another process or another body has this node's place."""
    REFUSED = "refused"
    """3xx and every other 4xx: drop it."""


_COME_BACK: Final = frozenset({408, 425, 429})
_OWN: Final = {401: Outcome.UNAUTHORIZED, 403: Outcome.PARKED, 409: Outcome.CONFLICT}


def outcome_of(status: int) -> Outcome:
    """Return what a status code asks for.

    RFC 9110, section 15: what is beyond 599 counts as 5xx. A final answer of 1xx (101) is no answer to a
    POST: whatever sent it does not speak with us, so it counts as a broken connection.
    """
    if 200 <= status < 300:  # noqa: PLR2004 - the classes of RFC 9110 are known by their numbers
        return Outcome.ACCEPTED
    if status < 200 or status >= 500 or status in _COME_BACK:  # noqa: PLR2004 - the same
        return Outcome.BACKOFF
    return _OWN.get(status, Outcome.REFUSED)


class Delivery(msgspec.Struct, frozen=True):
    """What became of one attempt to deliver a heartbeat.

    Attributes:
        outcome: What to do with the heartbeat.
        status: The answer's status; None where there was none.
        error_type: The status as text, or `connection`, `dns`, `protocol`, `timeout`, `tls`; empty after 2xx.
        retry_after: Seconds for which nothing may be sent.
        interval: The interval that the receiver asks for, seconds; None where it asks for none.
        epoch: The epoch that the receiver has heard of this node (409), Unix milliseconds.
        offset: Seconds by which the receiver's `Date` is ahead of this machine's clock; None without one.
        reason: For the log: the problem's own name and the fields it names, or what the system says.
    """

    outcome: Outcome
    status: int | None = None
    error_type: str = ""
    retry_after: float = 0.0
    interval: int | None = None
    epoch: int | None = None
    offset: float | None = None
    reason: str = ""

    @property
    def retryable(self) -> bool:
        """Whether the trouble passes by itself: nobody has to mend anything."""
        return self.outcome is Outcome.BACKOFF


def failure_of(error: Exception) -> str:
    """Return the `error.type` of an attempt that got no answer."""
    causes = tuple(causes_of(error))
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return "dns"
    if any(isinstance(cause, (TimedOutError, TimeoutError)) for cause in causes):
        return "timeout"
    # An end of file within TLS is a peer that went away, not one that refuses.
    if any(isinstance(cause, ssl.SSLError) and not is_eof(cause) for cause in causes):
        return "tls"
    if isinstance(error, ProtocolError):
        return "protocol"
    return "connection"


def why(error: Exception) -> str:
    """Return what the system says of an attempt that got no answer; empty where it says nothing."""
    for cause in causes_of(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return str(cause.verify_message)
        if isinstance(cause, ssl.SSLError):
            return str(cause.reason or "").replace("_", " ").lower()
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
    return ""


_is_slug = re.compile(r"[a-z][a-z-]{0,40}").fullmatch
_is_field = re.compile(r"[A-Za-z0-9_.\[\]$:-]{1,80}").fullmatch
_MOST_FIELDS: Final = 5


def reason_of(body: bytes) -> str:
    """Return the name of a problem document's case and the fields that it names; empty where it is none.

    Only what looks like a name is taken: an answer may repeat anything, and this goes to the log.
    """
    try:
        document = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(document, dict):
        return ""
    kind = document.get("type")
    slug = kind.removeprefix(TYPE_PREFIX) if isinstance(kind, str) and kind.startswith(TYPE_PREFIX) else ""
    errors = document.get("errors")
    listed = errors if isinstance(errors, list) else []
    fields = [entry.get("field") for entry in listed if isinstance(entry, dict)]
    named = [field for field in fields if isinstance(field, str) and _is_field(field)][:_MOST_FIELDS]
    return " ".join(part for part in (slug if _is_slug(slug) else "", ", ".join(named)) if part)


def causes_of(error: BaseException) -> list[BaseException]:
    """Return an error with what it comes from, the nearest first."""
    found: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in found:
        found.append(following)
        following = following.__cause__ or following.__context__
    return found


def is_eof(error: BaseException) -> bool:
    """Whether the other side ended a TLS connection without a word."""
    return isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError))
