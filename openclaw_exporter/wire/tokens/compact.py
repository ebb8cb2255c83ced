"""The compact form of a token (RFC 7515, 7.1), read without the tolerance that parsers like to have."""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from openclaw_exporter.errors import TokenError
from openclaw_exporter.wire.nesting import is_too_deep

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_TOKEN_BYTES: Final = 4096

# In a pattern of bytes, \w is A-Z, a-z, 0-9 and the underscore: with the hyphen, the alphabet of base64url.
_split = re.compile(rb"([\w-]+)\.([\w-]+)\.([\w-]*)").fullmatch


class Compact(NamedTuple):
    """A token taken apart; nothing of it is verified.

    Attributes:
        header: The members of the JOSE header; other tokens have the same object.
        claims: The members of the claims set.
        signing_input: What the signature covers.
        signature: The signature, raw.
    """

    header: Mapping[str, Any]
    claims: dict[str, Any]
    signing_input: bytes
    signature: bytes


def parse(token: bytes | str) -> Compact:
    """Take a token apart.

    Raises:
        TokenError: The token is missing or over 4 KiB, has not three segments of canonical base64url without
            padding, or its header or claims are not one strict JSON object without duplicate members.
    """
    if not token:
        raise TokenError("token-missing", "there is no token")
    if len(token) > MAX_TOKEN_BYTES:
        raise TokenError("token-too-large", f"the token is over {MAX_TOKEN_BYTES} bytes")
    try:
        text = token.encode("ascii") if isinstance(token, str) else bytes(token)
    except UnicodeEncodeError:
        raise _malformed("the token is not ASCII") from None
    segments = _split(text)
    if segments is None:
        raise _malformed("the token is not three segments of base64url without padding")
    header = segments[1]
    claims, signature = decode_base64url(segments[2]), decode_base64url(segments[3])
    if claims is None or signature is None:
        raise _misshapen()
    return Compact(
        header=_header(header),
        claims=_members(claims, "token-claims", "the token's claims set"),
        signing_input=text[: segments.end(2)],
        signature=signature,
    )


def encode_base64url(content: bytes) -> bytes:
    """Return base64url without padding (RFC 7515, section 2)."""
    return urlsafe_b64encode(content).rstrip(b"=")


def decode_base64url(segment: bytes) -> bytes | None:
    """Return what a segment of the base64url alphabet encodes.

    None where its length is impossible or its unused last bits are set, which would let many texts stand for
    one token.
    """
    if len(segment) % 4 == 1:
        return None
    content = urlsafe_b64decode(segment + b"=" * (-len(segment) % 4))
    return content if encode_base64url(content) == segment else None


def read_object(text: bytes) -> dict[str, Any]:
    """Read one strict JSON object in which, at every depth, no member is there twice.

    Raises:
        ValueError: It is none.
    """
    if is_too_deep(text):
        raise ValueError("nested too deep")
    # The first reader is strict about everything but duplicates, the second sees those. It has nothing to
    # find in a text that is written as it was read: one of two members would be missing.
    members = msgspec.json.decode(text)
    if msgspec.json.encode(members) != text:
        members = json.loads(text.decode(), object_pairs_hook=_unique)
    if not isinstance(members, dict):
        raise ValueError("not an object")  # noqa: TRY004 - the text is wrong, not a Python type
    return members


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member is there twice")
    return members


# Those of one signer are all alike.
@lru_cache(maxsize=64)
def _header(segment: bytes) -> Mapping[str, Any]:
    content = decode_base64url(segment)
    if content is None:
        raise _misshapen()
    return _members(content, "token-header", "the token's header")


def _members(text: bytes, slug: str, what: str) -> dict[str, Any]:
    try:
        return read_object(text)
    except ValueError:
        raise TokenError(slug, f"{what} is not a strict JSON object without duplicate members") from None


def _misshapen() -> TokenError:
    return _malformed("a segment of the token is not canonical base64url")


def _malformed(detail: str) -> TokenError:
    return TokenError("token-malformed", detail)
