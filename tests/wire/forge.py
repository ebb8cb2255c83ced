"""Certificates and tokens as nobody should make them, each really signed."""

from __future__ import annotations

import datetime as dt
import functools
import json
from base64 import urlsafe_b64encode
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from jwt import PyJWS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

NODE = "0f8fad5b-d9cb-469f-a165-70867728950e"
OTHER_NODE = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
DROP = object()
"""As a member's value: the member is left out."""

_MAKERS = {
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "ed448": ed448.Ed448PrivateKey.generate,
    "rsa1024": lambda: rsa.generate_private_key(65537, 1024),  # noqa: S505 - weak on purpose: it must be refused
    "rsa2048": lambda: rsa.generate_private_key(65537, 2048),
    "rsa2048e3": lambda: rsa.generate_private_key(3, 2048),
}


def key(kind: str, name: str = "") -> Any:
    """Return a private key of a kind; another name, another key."""
    return _key(kind, name)


@functools.cache
def _key(kind: str, _name: str) -> Any:
    return _MAKERS[kind]()


def pem(private: PrivateKeyTypes, password: bytes | None = None) -> bytes:
    """Return a private key as PKCS #8, PEM."""
    encryption = NoEncryption() if password is None else BestAvailableEncryption(password)
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def public_pem(private: Any) -> bytes:
    """Return a public key, PEM."""
    content: bytes = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return content


def jwk(kind: str, name: str = "", **members: Any) -> dict[str, Any]:
    """Return a public key as a JWK with further members."""
    private = key(kind, name)
    family = {"p": "ES256", "s": "ES256K", "e": "EdDSA", "r": "RS256"}[kind[0]]
    made = PyJWS().get_algorithm_by_name(family).to_jwk(private.public_key(), as_dict=True)
    made = {member: value for member, value in dict(made).items() if member != "key_ops"}
    return {member: value for member, value in (made | members).items() if value is not DROP}


def b64(content: bytes | str) -> str:
    """Return base64url without padding."""
    raw = content.encode() if isinstance(content, str) else content
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def text(members: dict[str, Any] | str | bytes) -> bytes:
    """Return JSON; text and bytes as they are, so that illegal JSON can be forged."""
    if isinstance(members, bytes):
        return members
    if isinstance(members, str):
        return members.encode()
    return json.dumps({name: value for name, value in members.items() if value is not DROP}).encode()


def sign(algorithm: str, private: Any, signing_input: str) -> bytes:
    """Sign as an algorithm says, or not at all."""
    if algorithm == "none":
        return b""
    signature: bytes = PyJWS().get_algorithm_by_name(algorithm).sign(signing_input.encode(), private)
    return signature


def token(header: Any, claims: Any, algorithm: str, private: Any) -> str:
    """Put a token together whatever its header and claims say, signed by an algorithm and key."""
    signing_input = f"{b64(text(header))}.{b64(text(claims))}"
    return f"{signing_input}.{b64(sign(algorithm, private, signing_input))}"


def certificate(
    names: Sequence[x509.GeneralName] = (),
    *,
    usages: Sequence[x509.ObjectIdentifier] | None = (ExtendedKeyUsageOID.CLIENT_AUTH,),
    ca: bool | None = False,
    signs: bool | None = None,
    common_name: str | None = None,
) -> bytes:
    """Return a self-signed certificate, DER. None leaves an extension out; `signs` is keyCertSign."""
    private = key("p256", "certificate")
    attributes = [] if common_name is None else [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    subject = x509.Name(attributes)
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    builder = x509.CertificateBuilder(
        subject_name=subject, issuer_name=subject, public_key=private.public_key(), serial_number=7
    )
    builder = builder.not_valid_before(start).not_valid_after(start + dt.timedelta(days=90))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    if usages is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    if signs is not None:
        names_of_bits = [
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ]
        bits = dict.fromkeys(names_of_bits, False) | {"digital_signature": True, "key_cert_sign": signs}
        usage = x509.KeyUsage(**bits)
        builder = builder.add_extension(usage, critical=True)
    return builder.sign(private, hashes.SHA256()).public_bytes(Encoding.DER)


def uri(value: str) -> x509.UniformResourceIdentifier:
    """Return a URI SAN, unchecked."""
    return x509.UniformResourceIdentifier._init_without_validation(value)


def dns(value: str) -> x509.DNSName:
    """Return a DNS SAN, unchecked."""
    return x509.DNSName._init_without_validation(value)
