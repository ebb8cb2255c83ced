"""Credentials of very many nodes, as a proxy would forward them (RFC 9440), made once and kept in a file.

Each node has a certificate of its own under the test's authority and a token of its own (external profile, an
hour). All have one key pair, which nobody looks at: to make a million more would take as long again.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import time
from array import array
from base64 import b64encode, urlsafe_b64encode
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from openclaw_exporter.cli.authority import Authority, node_uri, private_key_pem
from support.pki import TRUST_DOMAIN

if TYPE_CHECKING:
    from pathlib import Path

    from support.pki import Pki

TOKEN_LIFE = 3600
ID_SIZE = 36
_PART = 10_000
_ECDSA_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")
_ECDSA = ec.ECDSA(hashes.SHA256())


class Fleet:
    """The nodes of a file.

    Args:
        path: The file; `make` writes it.

    Attributes:
        count: How many.
        data: The file: of each node its header fields `Client-Cert` and `Authorization`, and its id.
        places: Where each node begins in it, and where the last ends.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        (self.count,) = struct.unpack_from("<Q", self.data)
        self.places = array("Q", self.data[8 : 8 + 8 * (self.count + 1)])

    def parts(self, number: int) -> tuple[bytes, bytes, bytes]:
        """Return a node's `Client-Cert` and `Authorization`, each a line, and its id."""
        text = self.data[self.places[number] : self.places[number + 1]]
        certificate, authorization, name = text.split(b"\r\n")
        return certificate + b"\r\n", authorization + b"\r\n", name


def node_id(number: int) -> bytes:
    """Return the name of a node by its number."""
    return b"%08x-0000-4000-8000-%012x" % (number * 2654435761 % 2**32, number)


def make(pki: Pki, path: Path, count: int) -> ec.EllipticCurvePrivateKey:
    """Write the credentials of so many nodes; return the private key that all certificates have."""
    started = time.monotonic()
    key = ec.generate_private_key(ec.SECP256R1())
    work = partial(
        _part,
        pki.ca.read_bytes(),
        pki.authority.issued.key_pem,
        pki.token_key.read_bytes(),
        private_key_pem(key),
        (pki.key_id, pki.issuer, pki.audience),
        count,
    )
    places = array("Q", [8 + 8 * (count + 1)])
    with path.open("wb") as file, ProcessPoolExecutor(os.cpu_count()) as pool:
        file.seek(places[0])
        for part in pool.map(work, range(0, count, _PART)):
            for fields in part:
                places.append(places[-1] + len(fields))
                file.write(fields)
        file.seek(0)
        file.write(struct.pack("<Q", count) + places.tobytes())
    seconds = time.monotonic() - started
    print(f"  {count} certificates and tokens in {seconds:.0f} s, {path.stat().st_size / 2**20:.0f} MiB")
    return key


def _part(
    ca: bytes,
    ca_key: bytes,
    token_key: bytes,
    client_key: bytes,
    terms: tuple[str, str, str],
    count: int,
    first: int,
) -> list[bytes]:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415
    from cryptography.x509 import load_pem_x509_certificate  # noqa: PLC0415

    authority_key, signer = load_pem_private_key(ca_key, None), load_pem_private_key(token_key, None)
    assert isinstance(authority_key, ec.EllipticCurvePrivateKey)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    client = load_pem_private_key(client_key, None)
    assert isinstance(client, ec.EllipticCurvePrivateKey)
    stand_in = str(UUID(int=0))
    authority = Authority(load_pem_x509_certificate(ca), authority_key)
    issued = authority.client([node_uri(TRUST_DOMAIN, stand_in)])
    # A shorter one could not be exchanged for any other number (X.690, 8.3.2).
    while not issued.certificate.serial_number >> 152:
        issued = authority.client([node_uri(TRUST_DOMAIN, stand_in)])
    own_key, shared_key = (_public(key) for key in (issued.key, client))
    serial = issued.certificate.serial_number.to_bytes(20)
    form = issued.certificate.tbs_certificate_bytes.replace(own_key, shared_key)
    key_id, issuer, audience = terms
    head = _base64url(json.dumps({"alg": "ES256", "kid": key_id, "typ": "JWT"}).encode())
    now = int(time.time())
    claims = {"iss": issuer, "aud": audience, "sub": stand_in, "iat": now, "exp": now + TOKEN_LIFE}
    claims_form = json.dumps(claims, separators=(",", ":")).encode()
    made = []
    for number in range(first, min(first + _PART, count)):
        name = node_id(number)
        # A serial number of its own, positive and as long as the stand-in's.
        own = serial[:1] + uuid4().bytes + serial[17:]
        tbs = form.replace(stand_in.encode(), name).replace(serial, own)
        der = _certificate(tbs, authority_key.sign(tbs, _ECDSA))
        text = head + b"." + _base64url(claims_form.replace(stand_in.encode(), name))
        r, s = decode_dss_signature(signer.sign(text, _ECDSA))
        token = text + b"." + _base64url(r.to_bytes(32) + s.to_bytes(32))
        made.append(b"Client-Cert: :%b:\r\nAuthorization: Bearer %b\r\n%b" % (b64encode(der), token, name))
    return made


def _public(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def _certificate(tbs: bytes, signature: bytes) -> bytes:
    """Return a certificate, DER (RFC 5280, 4.1)."""
    return _tlv(0x30, tbs + _ECDSA_SHA256 + _tlv(0x03, b"\0" + signature))


def _tlv(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes([tag, 0x80 | len(length)]) + length + content


def _base64url(content: bytes) -> bytes:
    return urlsafe_b64encode(content).rstrip(b"=")
