"""Answers as the receiver sends them: status, header fields, body."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from openclaw_exporter.errors import StoreUnavailableError, TokenError, WireError
from openclaw_exporter.receiver.refusals import RefusedError, document
from openclaw_exporter.wire.problems import CONTENT_TYPE, encode_problem

if TYPE_CHECKING:
    from collections.abc import Iterable

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Fields = list[tuple[bytes, bytes]]

RETRY_AFTER_SECONDS: Final = (3, 10)
"""When to come back to a store that cannot be reached: anywhere between, so that not all come at once."""

_DICE: Final = random.Random()  # noqa: S311 - spreads load, keeps no secret
_JSON: Final = (b"content-type", b"application/json")
_PROBLEM: Final = (b"content-type", CONTENT_TYPE.encode())
_ENCODER = msgspec.json.Encoder()


class Answer(NamedTuple):
    """One HTTP answer.

    Attributes:
        status: The status.
        fields: The header fields, names in lower case.
        body: The body.
        error: The slug of the problem, empty where there is none.
    """

    status: int
    fields: Fields
    body: bytes
    error: str = ""


class Stream(NamedTuple):
    """An answer that sends itself.

    Attributes:
        run: Sends it, head and body.
    """

    run: Callable[[Receive, Send], Awaitable[None]]


Handlers = Mapping[str, Callable[..., Awaitable[Answer | Stream]]]
"""What answers readers, by the operation's path: called with the scope and the parts of the path."""


def json_answer(value: Any, *, status: int = 200) -> Answer:
    """Return an answer that shows a value as JSON."""
    return raw_json_answer(_ENCODER.encode(value), status=status)


def raw_json_answer(body: bytes, *, status: int = 200) -> Answer:
    """Return an answer whose body is JSON already."""
    return Answer(status, [_JSON, (b"content-length", b"%d" % len(body))], body)


def problem_answer(error: WireError | StoreUnavailableError) -> Answer:
    """Return the answer to a request that is refused (RFC 9457)."""
    if isinstance(error, StoreUnavailableError):
        seconds = _DICE.randint(*RETRY_AFTER_SECONDS)
        error = RefusedError("store-unavailable", str(error), retry_after=seconds)
    problem = document(error)
    body = encode_problem(problem)
    fields = [_PROBLEM, (b"content-length", b"%d" % len(body)), *_special(error)]
    return Answer(problem.status, fields, body, error.slug)


def internal_error() -> Answer:
    """Return the answer to a request that the receiver failed on."""
    return problem_answer(RefusedError("internal-error"))


def head_of(status_line: bytes, fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the head of an answer as it goes over the wire."""
    lines = (b"%s: %s\r\n" % field for field in fields)
    return status_line + b"".join(lines) + b"\r\n"


def _special(error: WireError) -> Iterable[tuple[bytes, bytes]]:
    if isinstance(error, TokenError):
        # RFC 6750, 3.1: a request without a token is told no error code.
        reason = b"" if error.slug == "token-missing" else b', error="invalid_token"'
        yield b"www-authenticate", b'Bearer realm="openclaw"' + reason
    if isinstance(error, RefusedError):
        if error.retry_after is not None:
            yield b"retry-after", b"%d" % error.retry_after
        if error.allow is not None:
            yield b"allow", error.allow.encode()
