"""What a node reads of a certificate (RFC 5280, 4.1): its validity, its key and the URIs that it names.

The DER is decoded by cryptography's reader of ASN.1, with the few fields that are needed here. Its package
for certificates is made for everything that one may hold: 2 MiB and 25 ms at the start, on every node.
"""

from __future__ import annotations

import re
from base64 import b64decode
from typing import Annotated, Final, NamedTuple

from cryptography.hazmat.asn1 import (
    TLV,
    BitString,
    Default,
    Explicit,
    GeneralizedTime,
    Implicit,
    UTCTime,
    decode_der,
    encode_der,
    sequence,
)

_blocks = re.compile(rb"-----BEGIN (?:X509 )?CERTIFICATE-----(.*?)-----END", re.DOTALL).findall

_ALTERNATIVE_NAMES: Final = bytes((0x55, 0x1D, 0x11))
"""The contents of the object identifier 2.5.29.17."""
_URI: Final = b"\x86"
"""The tag of `uniformResourceIdentifier` (RFC 5280, 4.2.1.6)."""


@sequence
class _Times:
    not_before: UTCTime | GeneralizedTime
    not_after: UTCTime | GeneralizedTime


@sequence
class _Extension:
    name: TLV
    critical: Annotated[bool, Default(value=False)]
    value: bytes


@sequence
class _Signed:
    version: Annotated[int, Explicit(0), Default(0)]
    serial: int
    algorithm: TLV
    issuer: TLV
    times: _Times
    subject: TLV
    key: TLV
    issuer_unique: Annotated[BitString | None, Implicit(1)]
    subject_unique: Annotated[BitString | None, Implicit(2)]
    extensions: Annotated[list[_Extension] | None, Explicit(3)]


@sequence
class _Certificate:
    signed: _Signed
    algorithm: TLV
    signature: BitString


@sequence
class _One:
    element: TLV


@sequence
class _Names:
    names: list[TLV]


class Certificate(NamedTuple):
    """A certificate as far as a node cares.

    Attributes:
        der: The whole.
        not_before: Unix seconds.
        not_after: Unix seconds.
        key: The public key as a `SubjectPublicKeyInfo`, DER.
        uris: The URIs among its alternative names.
    """

    der: bytes
    not_before: float
    not_after: float
    key: bytes
    uris: tuple[str, ...]


def read_certificates(pem: bytes) -> list[Certificate]:
    """Return the certificates of a PEM file, in its order; what else is in it is passed over.

    Raises:
        ValueError: One of them is none.
    """
    return [_read(b64decode(block)) for block in _blocks(pem)]


def _read(der: bytes) -> Certificate:
    signed = decode_der(_Certificate, der).signed
    return Certificate(
        der,
        signed.times.not_before.as_datetime().timestamp(),
        signed.times.not_after.as_datetime().timestamp(),
        encode_der(signed.key),
        _uris(signed.extensions or []),
    )


def _uris(extensions: list[_Extension]) -> tuple[str, ...]:
    found = [extension.value for extension in extensions if bytes(extension.name.data) == _ALTERNATIVE_NAMES]
    if len(found) > 1:
        raise ValueError("two extensions of alternative names")
    if not found:
        return ()
    # The reader takes a SEQUENCE OF only as a field of something.
    wrapped = encode_der(_One(element=decode_der(TLV, found[0])))
    names = decode_der(_Names, wrapped).names
    return tuple(bytes(name.data).decode("ascii") for name in names if name.tag_bytes == _URI)
