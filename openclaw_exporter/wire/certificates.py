"""Who a client certificate says that its holder is.

The chain, the validity and the holder's key are TLS's to check; this module reads the names. The common name
never counts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, NamedTuple

import msgspec
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from openclaw_exporter.errors import ConfigError, ConfigProblem, IdentityError
from openclaw_exporter.wire.fields import UUID
from openclaw_exporter.wire.thumbprint import thumbprint

Role = Literal["node", "reader", "proxy"]

MAX_CERTIFICATE_BYTES: Final = 16_384
"""No certificate with one name comes near it; a longer one is not parsed."""

# SPIFFE ID, section 2: letters of a trust domain and of a path segment; a segment is neither `.` nor `..`.
_is_trust_domain = re.compile(r"[a-z0-9._-]{1,255}").fullmatch
_SEGMENT = r"(?!\.{1,2}\Z)[A-Za-z0-9._-]{1,64}"
_PATH = rf"/chimera/node/(?P<node>{UUID})|/openclaw/reader/(?P<reader>{_SEGMENT})"

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_is_dns_suffix = re.compile(rf"{_LABEL}(?:\.{_LABEL})*").fullmatch
_HOST = rf"(?P<node>{UUID})\.node|(?P<reader>{_LABEL})\.reader"


class Identity(msgspec.Struct, frozen=True, gc=False):
    """Whom a certificate names. A proxy brings a fleet: none is the garbage collector's to look at.

    Attributes:
        role: What the holder may do: publish (`node`), read (`reader`) or forward both (`proxy`).
        name: A node's node_id; a reader's own name; a proxy's whole SAN.
    """

    role: Role
    name: str


class PeerCertificate(msgspec.Struct, frozen=True, gc=False):
    """What is kept of a client certificate.

    Attributes:
        identity: Whom it names.
        thumbprint: Its `x5t#S256`.
        not_before: Unix seconds.
        not_after: Unix seconds.
    """

    identity: Identity
    thumbprint: str
    not_before: float
    not_after: float


def check_publisher(peer: PeerCertificate, *, subject: str, node_id: str) -> None:
    """Check that certificate, token and heartbeat are one node's.

    Args:
        peer: The connection's certificate.
        subject: The node that the token speaks for: `sub` of a minted token, the mapped one of an external.
        node_id: The heartbeat's.

    Raises:
        IdentityError: The certificate is no node's, or the three are not the same node.
    """
    if peer.identity.role != "node":
        raise IdentityError("role-not-allowed", "only a node's certificate may publish")
    if not peer.identity.name == subject == node_id:
        raise IdentityError("identity-mismatch", "certificate, token and heartbeat name different nodes")


@dataclass(frozen=True, slots=True)
class IdentityRule:
    """How names are read from certificates. Exactly one of the two is set.

    Attributes:
        trust_domain: A SPIFFE trust domain: the certificate has exactly one URI SAN,
            `spiffe://<trust_domain>/chimera/node/<node_id>` or `spiffe://<trust_domain>/openclaw/reader/<name>`.
            DNS SANs beside it have no meaning.
        dns_suffix: A DNS domain: the certificate has exactly one DNS SAN, `<node_id>.node.<dns_suffix>` or
            `<name>.reader.<dns_suffix>`. URI SANs beside it have no meaning.

    Raises:
        ConfigError: Both are set, or neither, or the one that is set cannot be such a name.
    """

    trust_domain: str | None = None
    dns_suffix: str | None = None

    def __post_init__(self) -> None:
        if (self.trust_domain is None) == (self.dns_suffix is None):
            raise _wrong_setting("trust_domain", "set either trust_domain or dns_suffix, and not both")
        if self.trust_domain is not None and not _is_trust_domain(self.trust_domain):
            raise _wrong_setting(
                "trust_domain", "not a SPIFFE trust domain", "lower case, such as prod.example"
            )
        if self.dns_suffix is not None and not _is_dns_suffix(self.dns_suffix):
            raise _wrong_setting("dns_suffix", "not a DNS domain", "lower case, such as fleet.example")

    def identify(self, der: bytes) -> PeerCertificate:
        """Read a client certificate.

        Args:
            der: The certificate, DER.

        Raises:
            IdentityError: It cannot be read, is an authority's, is not for client authentication, or does not
                name exactly one node or reader.
        """
        return self.read(der)[1]

    def read(self, der: bytes) -> tuple[x509.Certificate, PeerCertificate]:
        """Read a client certificate as `identify` does, for somebody who has to look at all of it.

        Args:
            der: The certificate, DER.

        Raises:
            IdentityError: As `identify` does.
        """
        certificate, traits = _read(der)
        return certificate, _peer(der, certificate, self._identity(traits))

    def is_node_or_reader(self, name: str) -> bool:
        """Whether a SAN, URI or DNS, is one that names a node or a reader here."""
        return self._match(name) is not None

    def _identity(self, traits: _Traits) -> Identity:
        names = ("URI", traits.uris) if self.trust_domain is not None else ("DNS", traits.hosts)
        match = self._match(_only(*names))
        if match is None:
            detail = "the client certificate's SAN names no node or reader of this domain"
            raise IdentityError("identity-name", detail)
        if match["node"] is not None:
            return Identity("node", match["node"])
        return Identity("reader", match["reader"])

    def _match(self, name: str) -> re.Match[str] | None:
        if self.trust_domain is not None:
            return _uri_pattern(self.trust_domain).fullmatch(name)
        # DNS names have no case (RFC 4343).
        return _host_pattern(self.dns_suffix or "").fullmatch(name.lower())


@lru_cache(maxsize=8)
def _uri_pattern(trust_domain: str) -> re.Pattern[str]:
    return re.compile(rf"spiffe://{re.escape(trust_domain)}(?:{_PATH})")


@lru_cache(maxsize=8)
def _host_pattern(dns_suffix: str) -> re.Pattern[str]:
    return re.compile(rf"(?:{_HOST})\.{re.escape(dns_suffix)}")


def identify_proxy(der: bytes, names: frozenset[str]) -> PeerCertificate | None:
    """Read the certificate of a connection that may be a proxy's.

    Args:
        der: The certificate, DER.
        names: The SANs of the proxies, URI or DNS, to the letter.

    Returns:
        The proxy's, or None where its only URI SAN, or its only DNS SAN, is none of the names.

    Raises:
        IdentityError: It cannot be read, is an authority's, or is not for client authentication.
    """
    certificate, traits = _read(der)
    found = {sans[0] for sans in (traits.uris, traits.hosts) if len(sans) == 1} & names
    return _peer(der, certificate, Identity("proxy", min(found))) if found else None


class _Traits(NamedTuple):
    authority: bool
    client: bool
    uris: tuple[str, ...]
    hosts: tuple[str, ...]


def _read(der: bytes) -> tuple[x509.Certificate, _Traits]:
    """Read a certificate that may be a client's.

    Raises:
        IdentityError: It cannot be read, is an authority's, or is not for client authentication.
    """
    if len(der) > MAX_CERTIFICATE_BYTES:
        raise IdentityError("identity-certificate", "the client certificate is too large")
    try:
        certificate = x509.load_der_x509_certificate(der)
        traits = _read_traits(certificate)
    except Exception:  # noqa: BLE001 - a foreign parser on foreign bytes: whatever it raises, nothing is read
        raise IdentityError("identity-certificate", "the client certificate cannot be read") from None
    if traits.authority:
        raise IdentityError("identity-authority", "the client certificate is an authority's")
    if not traits.client:
        raise IdentityError("identity-usage", "the client certificate lacks extended key usage clientAuth")
    return certificate, traits


def _peer(der: bytes, certificate: x509.Certificate, identity: Identity) -> PeerCertificate:
    return PeerCertificate(
        identity=identity,
        thumbprint=thumbprint(der),
        not_before=certificate.not_valid_before_utc.timestamp(),
        not_after=certificate.not_valid_after_utc.timestamp(),
    )


def _read_traits(certificate: x509.Certificate) -> _Traits:
    authority = client = False
    uris: list[str] = []
    hosts: list[str] = []
    for extension in certificate.extensions:
        value = extension.value
        # By the type itself: to ask an abstract class costs more than to read the whole certificate.
        if type(value) is x509.BasicConstraints:
            authority = authority or value.ca
        elif type(value) is x509.KeyUsage:
            # What may sign certificates or revocation lists acts as an authority, whatever else it says.
            authority = authority or value.key_cert_sign or value.crl_sign
        elif type(value) is x509.ExtendedKeyUsage:
            client = ExtendedKeyUsageOID.CLIENT_AUTH in value
        elif type(value) is x509.SubjectAlternativeName:
            for name in value:
                if type(name) is x509.UniformResourceIdentifier:
                    uris.append(name.value)
                elif type(name) is x509.DNSName:
                    hosts.append(name.value)
    return _Traits(authority, client, tuple(uris), tuple(hosts))


def _only(kind: str, names: tuple[str, ...]) -> str:
    if len(names) != 1:
        detail = f"the client certificate has {len(names)} {kind} SANs; exactly one is needed"
        raise IdentityError("identity-name", detail)
    return names[0]


def _wrong_setting(key: str, message: str, allowed: str = "") -> ConfigError:
    return ConfigError((ConfigProblem(key, message, allowed),))
