"""Error bodies: RFC 9457 problem documents, one type of its own for every case of the contract.

`CASES` is the whole list: slug to HTTP status and title. A detail is written by this project, never copied
from a request, so no answer repeats a token or a body.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from openclaw_exporter.errors import FieldProblem, FieldsError, WireError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

CONTENT_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "urn:openclaw:problem:"


class Case(NamedTuple):
    """One kind of error answer.

    Attributes:
        status: The HTTP status.
        title: What it is, the same words every time (RFC 9457, section 3.1.3).
    """

    status: int
    title: str


CASES: Final[Mapping[str, Case]] = {
    "bad-request": Case(400, "The request is not valid HTTP"),
    "malformed-json": Case(400, "The body is not JSON"),
    "malformed-utf8": Case(400, "The body is not UTF-8"),
    "malformed-number": Case(400, "A number is beyond the range of doubles"),
    "malformed-nesting": Case(400, "The body nests too deep"),
    "invalid-query": Case(400, "A query parameter is not valid"),
    "token-missing": Case(401, "The request has no bearer token"),
    "token-malformed": Case(401, "The token is not a JWT in compact form"),
    "token-too-large": Case(401, "The token is too large"),
    "token-header": Case(401, "The token's header breaks its profile"),
    "token-algorithm": Case(401, "The token's algorithm is not allowed"),
    "token-key-unknown": Case(401, "The token's key is not known"),
    "token-signature": Case(401, "The token's signature is not valid"),
    "token-claims": Case(401, "The token's claims break its profile"),
    "token-issuer": Case(401, "The token's issuer is not known"),
    "token-audience": Case(401, "The token is meant for another audience"),
    "token-expired": Case(401, "The token has expired"),
    "token-not-yet-valid": Case(401, "The token is not valid yet"),
    "token-lifetime": Case(401, "The token lives too long"),
    "token-binding": Case(401, "The token is not bound to the client certificate"),
    "signature-missing": Case(401, "The request has no payload signature"),
    "signature-invalid": Case(401, "The payload signature is not valid"),
    "identity-missing": Case(403, "The connection has no client certificate"),
    "identity-certificate": Case(403, "The client certificate cannot be read"),
    "identity-authority": Case(403, "The client certificate is an authority's"),
    "identity-usage": Case(403, "The client certificate is not for client authentication"),
    "identity-name": Case(403, "The client certificate does not name a node or reader"),
    "identity-forwarded": Case(403, "The proxy forwarded no client certificate that can be used"),
    "identity-mismatch": Case(403, "Certificate, subject and node_id do not belong together"),
    "role-not-allowed": Case(403, "The certificate's role does not allow this call"),
    "node-denied": Case(403, "The node is denied"),
    "origin-refused": Case(403, "The request comes from a web page"),
    "not-found": Case(404, "There is nothing at this path"),
    "node-unknown": Case(404, "The node is not known"),
    "method-not-allowed": Case(405, "The path does not allow this method"),
    "not-acceptable": Case(406, "No acceptable form of the answer"),
    "request-timeout": Case(408, "The request took too long to arrive"),
    "key-conflict": Case(409, "The same key came with another body"),
    "epoch-conflict": Case(409, "A newer process of this node has been heard"),
    "length-required": Case(411, "The request has no length"),
    "body-too-large": Case(413, "The body is too large"),
    "uri-too-long": Case(414, "The request target is too long"),
    "content-encoding": Case(415, "The body must not be encoded"),
    "media-type": Case(415, "The body must be application/json"),
    "misdirected": Case(421, "The request is meant for another host"),
    "invalid-fields": Case(422, "Fields break their rule"),
    "epoch-ahead": Case(422, "The epoch is too far in the future"),
    "heartbeat-ahead": Case(422, "last_heartbeat is too far in the future"),
    "rate-limited": Case(429, "Too many requests"),
    "headers-too-large": Case(431, "The header fields are too large"),
    "internal-error": Case(500, "The receiver failed"),
    "store-unavailable": Case(503, "The registry's store cannot be reached"),
    "shedding": Case(503, "The receiver sheds load"),
    "shutting-down": Case(503, "The receiver is shutting down"),
}


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body of an error answer (RFC 9457).

    Attributes:
        type: `urn:openclaw:problem:` and the case's slug.
        title: The case in words.
        status: The HTTP status.
        detail: What is wrong with this request, where there is more to say.
        errors: Every wrong field of a 422.
        epoch: The highest epoch heard of this node, in a 409, Unix milliseconds.
    """

    type: str
    title: str
    status: int
    detail: str | None = None
    errors: list[FieldProblem] | None = None
    epoch: int | None = None


_ENCODER = msgspec.json.Encoder()


def problem(
    slug: str,
    detail: str | None = None,
    *,
    errors: Iterable[FieldProblem] | None = None,
    epoch: int | None = None,
) -> Problem:
    """Return the problem document of a case.

    Raises:
        KeyError: `CASES` has no such slug.
    """
    case = CASES[slug]
    return Problem(
        type=TYPE_PREFIX + slug,
        title=case.title,
        status=case.status,
        detail=detail,
        errors=None if errors is None else list(errors),
        epoch=epoch,
    )


def problem_for(error: WireError) -> Problem:
    """Return the problem document that answers an error.

    An error of a slug that `CASES` has not is answered by its status alone, as `about:blank`.
    """
    if isinstance(error, FieldsError):
        return problem(error.slug, errors=error.problems)
    if error.slug in CASES:
        return problem(error.slug, error.detail)
    from http import HTTPStatus  # noqa: PLC0415 - 5 ms that a node has no use for

    return Problem(type="about:blank", title=HTTPStatus(error.status).phrase, status=error.status)


def encode_problem(document: Problem) -> bytes:
    """Return the JSON body of a problem document."""
    return _ENCODER.encode(document)
