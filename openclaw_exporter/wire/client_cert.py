"""A client's certificate as a proxy forwards it: the fields `Client-Cert` and `Client-Cert-Chain` (RFC 9440).

Both are structured fields (RFC 9651): one byte sequence, and a list of them. What a serializer would not have
written is refused: of two readings of one field the wrong one could be somebody else's certificate.
"""

from __future__ import annotations

import re
from base64 import b64encode
from binascii import Error, a2b_base64, b2a_base64
from typing import TYPE_CHECKING, Final

from openclaw_exporter.errors import IdentityError
from openclaw_exporter.wire.certificates import MAX_CERTIFICATE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable

CLIENT_CERT: Final = "Client-Cert"
CLIENT_CERT_CHAIN: Final = "Client-Cert-Chain"

MAX_CHAIN: Final = 8
"""Certificates between a client's and its authority; a longer chain is none that anybody means."""

_BASE64 = rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"
_byte_sequence = re.compile(rb":(" + _BASE64 + rb"):").fullmatch
_between_members = re.compile(rb"[ \t]*,[ \t]*").split


def client_cert(der: bytes) -> str:
    """Return the value of `Client-Cert` for a certificate, DER."""
    return f":{b64encode(der).decode()}:"


def parse_client_cert(value: bytes) -> bytes:
    """Read the value of `Client-Cert`.

    Args:
        value: The field's value without spaces around it.

    Returns:
        The certificate, DER; it is not looked at.

    Raises:
        IdentityError: It is not exactly one byte sequence without parameters, or too large.
    """
    return _certificate(value, CLIENT_CERT)


def parse_client_cert_chain(values: Iterable[bytes]) -> list[bytes]:
    """Read `Client-Cert-Chain`, of which a message may have several lines.

    Returns:
        The certificates, DER, the client's own not among them; they are not looked at.

    Raises:
        IdentityError: It is not a list of at most `MAX_CHAIN` byte sequences without parameters.
    """
    members = [member for value in values if value for member in _between_members(value)]
    if len(members) > MAX_CHAIN:
        raise _wrong(f"{CLIENT_CERT_CHAIN} has more than {MAX_CHAIN} certificates")
    return [_certificate(member, CLIENT_CERT_CHAIN) for member in members]


def _certificate(value: bytes, field: str) -> bytes:
    if len(value) > MAX_CERTIFICATE_BYTES * 4 // 3 + 8:
        raise _wrong(f"a certificate in {field} is too large")
    try:
        der = a2b_base64(value[1:-1])
    except Error:
        raise _wrong(_misshapen(field)) from None
    # One text stands for one certificate: whatever this reader tolerates, it does not write.
    if der and value == b":%b:" % b2a_base64(der, newline=False):
        return der
    match = _byte_sequence(value)
    if match is None or not match[1]:
        raise _wrong(_misshapen(field))
    # Unused last bits are set.
    raise _wrong(f"{field} does not hold canonical base64")


def _misshapen(field: str) -> str:
    return f"{field} does not hold what RFC 9440 asks for: base64 between two colons"


def _wrong(detail: str) -> IdentityError:
    return IdentityError("identity-forwarded", detail)
