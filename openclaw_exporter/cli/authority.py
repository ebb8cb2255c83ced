"""A small certificate authority and token keys, so that nobody needs openssl to try the exporter.

What is issued is what the contract's identity section asks: one URI SAN in the trust domain, extended key
usage clientAuth for nodes and readers, serverAuth for the receiver, P-256 keys throughout. Production
fleets bring their own authority (SPIRE, Vault, cert-manager); nothing else in the project knows this module.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from openclaw_exporter.errors import CredentialError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_SKEW = dt.timedelta(minutes=5)
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_is_host_name = re.compile(rf"(?=.{{1,253}}\Z)(?:\*\.)?{_LABEL}(?:\.{_LABEL})*").fullmatch
"""Of DNS, with the underscores that names of containers have, and a wildcard in front."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate with its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> bytes:
        """The certificate, PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The private key, PKCS #8, PEM, not encrypted."""
        return private_key_pem(self.key)


def private_key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key as PKCS #8, PEM, not encrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


class Authority:
    """A certificate authority that lives in memory or in two PEM files."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.issued = Issued(certificate, key)

    @classmethod
    def create(cls, *, name: str = "OpenClaw CA", days: int = 3650) -> Self:
        """Make a new authority that may sign end-entity certificates only."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _common_name(name)
        builder = _builder(subject, subject, key.public_key(), dt.timedelta(days=days))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_key_usage(ca=True), critical=True)
        return cls(builder.sign(key, hashes.SHA256()), key)

    @classmethod
    def load(cls, certificate: Path, key: Path) -> Self:
        """Read an authority from two PEM files.

        Raises:
            ValueError: One of the files is not what it should be, or the key is not a P-256 key.
        """
        loaded = serialization.load_pem_private_key(key.read_bytes(), password=None)
        if not isinstance(loaded, ec.EllipticCurvePrivateKey):
            message = f"{key} holds a {type(loaded).__name__}, not an elliptic-curve key"
            raise ValueError(message)  # noqa: TRY004 - the content is wrong, not a Python type
        return cls(x509.load_pem_x509_certificate(certificate.read_bytes()), loaded)

    def client(
        self, uris: Sequence[str], *, dns: Sequence[str] = (), lifetime: dt.timedelta | None = None
    ) -> Issued:
        """Issue a clientAuth certificate with these URI (and DNS) SANs; a node has one URI."""
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in uris]
        names += [x509.DNSName(host) for host in dns]
        return self._issue(names, ExtendedKeyUsageOID.CLIENT_AUTH, lifetime or dt.timedelta(days=90))

    def server(self, hosts: Sequence[str], *, lifetime: dt.timedelta | None = None) -> Issued:
        """Issue a serverAuth certificate for these host names and IP addresses.

        Raises:
            CredentialError: One of them is neither.
        """
        names = [_host_name(host) for host in hosts]
        return self._issue(names, ExtendedKeyUsageOID.SERVER_AUTH, lifetime or dt.timedelta(days=397))

    def _issue(
        self, names: list[x509.GeneralName], usage: x509.ObjectIdentifier, lifetime: dt.timedelta
    ) -> Issued:
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = self.issued.certificate
        builder = _builder(x509.Name([]), issuer.subject, key.public_key(), lifetime)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_key_usage(ca=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.issued.key.public_key())
        builder = builder.add_extension(signer, critical=False)
        return Issued(builder.sign(self.issued.key, hashes.SHA256()), key)


def node_uri(trust_domain: str, node_id: str) -> str:
    """Return the URI SAN of a node's certificate."""
    return f"spiffe://{trust_domain}/chimera/node/{node_id}"


def reader_uri(trust_domain: str, name: str) -> str:
    """Return the URI SAN of a reader's certificate."""
    return f"spiffe://{trust_domain}/openclaw/reader/{name}"


def proxy_uri(trust_domain: str, name: str) -> str:
    """Return the URI SAN of the certificate of a proxy that forwards nodes and readers."""
    return f"spiffe://{trust_domain}/openclaw/proxy/{name}"


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, lifetime: dt.timedelta
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder(subject_name=subject, issuer_name=issuer, public_key=key)
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - _SKEW).not_valid_after(now + lifetime)
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        if not _is_host_name(host):
            raise CredentialError(
                f"{host!r} is no host name and no address: give it without scheme and port"
            ) from None
        return x509.DNSName(host)


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
