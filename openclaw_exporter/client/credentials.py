"""The TLS side of a node's identity: certificate, key and authorities, read again when they change.

A new pair takes the place of a good one only as a whole: the key is the certificate's, OpenSSL takes both,
the files did not change while they were read, and the certificate is the same node's.
"""

from __future__ import annotations

import hashlib
import logging
import math
import re
import ssl
import time
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_private_key,
)

from openclaw_exporter.client.certificates import read_certificates
from openclaw_exporter.client.files import WatchedFiles, unreadable
from openclaw_exporter.errors import CredentialError
from openclaw_exporter.wire.fields import UUID
from openclaw_exporter.wire.thumbprint import thumbprint

if TYPE_CHECKING:
    from pathlib import Path

    from openclaw_exporter.client.certificates import Certificate
    from openclaw_exporter.client.settings import ClientSettings, TlsSettings
    from openclaw_exporter.logs import Episodes

_LOG = logging.getLogger(__name__)
_ATTEMPTS: Final = 3
_AUTHORITIES: Final = "give the PEM file of the authorities that sign the receiver's certificate"
_CERTIFICATE: Final = "give the PEM file of this client's certificate"
_KEY: Final = "give the PEM file of the certificate's private key"
_node_of = re.compile(rf"spiffe://[^/]+/chimera/node/({UUID})").fullmatch
_private_key_in = re.compile(rb"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?-----END \1-----", re.DOTALL).search


class Validity(NamedTuple):
    """From when until when a credential holds.

    Attributes:
        not_before: Unix seconds.
        not_after: Unix seconds.
    """

    not_before: float
    not_after: float


class Credentials(msgspec.Struct, frozen=True):
    """One consistent set of TLS files.

    Attributes:
        context: For connections to the receiver: TLS 1.2 or newer, both sides authenticated. None: no TLS.
        thumbprint: The certificate's `x5t#S256`.
        node_id: The node that the certificate's URI SAN names; None where it names none.
        certificate: The certificate's validity.
        ca: The validity of the authority that ends first.
        digest: Tells one set of files from another.
    """

    context: ssl.SSLContext | None
    thumbprint: str
    node_id: str | None
    certificate: Validity
    ca: Validity
    digest: bytes


class Tls(Protocol):
    """What a connection to the receiver is secured with.

    Attributes:
        current: What is in use.
    """

    current: Credentials

    def refresh(self, node_id: str) -> bool:
        """Bring `current` up to date for this node; return whether it is another set now."""
        ...


def open_tls(settings: ClientSettings, episodes: Episodes) -> Tls:
    """Return what the settings ask for; a log line says so where that is nothing.

    Raises:
        CredentialError: There is no usable set of files to begin with.
    """
    if not settings.insecure_dev:
        return TlsFiles(settings.tls, episodes)
    _LOG.warning(
        "openclaw.insecure_dev is on: heartbeats go to %s in plain HTTP, without certificate and token. "
        "This is for trying things out on this machine only",
        settings.endpoint,
    )
    return NoTls()


class NoTls:
    """Plain HTTP: no files."""

    def __init__(self) -> None:
        always = Validity(-math.inf, math.inf)
        self.current = Credentials(None, "", None, certificate=always, ca=always, digest=b"")

    def refresh(self, node_id: str) -> bool:  # noqa: ARG002 - there is nothing that could be another's
        """Return that nothing has changed."""
        return False


class TlsFiles:
    """The TLS files of one node.

    Args:
        settings: Where they are; `ca` and `certificate` are set.
        episodes: Where a set that cannot be used is logged.
        table: What the settings' keys are called: what stands before `ca`, `certificate` and `key`.

    Raises:
        CredentialError: There is no usable set to begin with.
    """

    def __init__(self, settings: TlsSettings, episodes: Episodes, table: str = "openclaw.tls.") -> None:
        if settings.ca is None or settings.certificate is None:
            raise CredentialError("openclaw.tls.ca and openclaw.tls.certificate are needed for mutual TLS")
        self._certificate = _File(f"{table}certificate", settings.certificate, _CERTIFICATE)
        self._ca = _File(f"{table}ca", settings.ca, _AUTHORITIES)
        if settings.key is None:
            elsewhere = f"name the PEM file of the certificate's private key in {table}key"
            self._key = self._certificate._replace(wanted=elsewhere)
        else:
            self._key = _File(f"{table}key", settings.key, _KEY)
        self._files = WatchedFiles(self._certificate.path, self._key.path, self._ca.path)
        self._episodes = episodes
        self.current = self._load()
        self._files.accept()

    def refresh(self, node_id: str) -> bool:
        """Read the files again if they changed, and keep the old set where the new one is not good.

        Args:
            node_id: Whose certificate it has to be.

        Returns:
            Whether `current` is another set now.
        """
        if not self._files.changed():
            return False
        try:
            fresh = self._load()
            self._check_node(fresh, node_id)
        except CredentialError as error:
            message = f"{error}; the credentials in use stay in force"
            self._episodes.begin("credentials", str(error), message)
            return False
        self._files.accept()
        self._episodes.end("credentials", "the TLS files can be used again")
        if fresh.digest == self.current.digest:
            return False
        self.current = fresh
        return True

    def _check_node(self, fresh: Credentials, node_id: str) -> None:
        # Where names are DNS SANs no certificate ever named a node.
        if fresh.node_id is None and self.current.node_id is not None:
            raise self._certificate.wrong("names no node, but the certificate in use names this one")
        if fresh.node_id not in (None, node_id):
            raise self._certificate.wrong(f"is the certificate of node {fresh.node_id}, not of this one")

    def _load(self) -> Credentials:
        for _ in range(_ATTEMPTS):
            contents = self._read()
            loaded = self._build(*contents)
            # OpenSSL reads the files itself: only if they are still the same did it read what we checked.
            if self._read() == contents:
                return loaded
        raise self._certificate.wrong(
            "and its key keep changing while they are read", "write both beside the old ones, and rename them"
        )

    def _read(self) -> tuple[bytes, ...]:
        try:
            return self._files.read()
        except OSError as error:
            files = (self._ca, self._key, self._certificate)
            failed = next(
                (file for file in files if str(file.path) == str(error.filename)), self._certificate
            )
            raise CredentialError(unreadable(failed.path, error), key=failed.key) from None

    def _build(self, certificate_pem: bytes, key_pem: bytes, ca_pem: bytes) -> Credentials:
        chain = _certificates(certificate_pem, self._certificate)
        authorities = _certificates(ca_pem, self._ca)
        leaf = chain[0]
        if _public_key_of(key_pem, self._key) != _spki(leaf, self._certificate):
            remedy = "give the one that the certificate was made for"
            raise self._key.wrong(f"is not the key of {self._certificate.path}", remedy)
        return Credentials(
            context=self._context(authorities),
            thumbprint=thumbprint(leaf.der),
            node_id=_node_id(leaf),
            certificate=_validity(leaf),
            ca=_first_to_end(authorities),
            digest=hashlib.sha256(b"\0".join((certificate_pem, key_pem, ca_pem))).digest(),
        )

    def _context(self, authorities: list[Certificate]) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        der = b"".join(authority.der for authority in authorities)
        certificate, key = self._certificate, self._key.path
        try:
            context.load_verify_locations(cadata=der)
            # Without a password of ours OpenSSL would ask for one on the terminal.
            context.load_cert_chain(certificate.path, key, password="")
        except OSError as error:
            reason = getattr(error, "reason", None) or error.strerror
            raise certificate.wrong(f"and {key} cannot be used for TLS: {reason}") from None
        return context


class _File(NamedTuple):
    """One of the files.

    Attributes:
        key: What names it: a key of the configuration, as a rule.
        path: Its path.
        wanted: What to give instead of one that is none.
    """

    key: str
    path: Path
    wanted: str

    def wrong(self, what: str, remedy: str = "") -> CredentialError:
        """Return what says that it cannot be used, and the remedy."""
        return CredentialError(f"{self.path} {what}; {remedy or self.wanted}", key=self.key)


def _certificates(pem: bytes, file: _File) -> list[Certificate]:
    try:
        found = read_certificates(pem)
    except ValueError:
        raise file.wrong("holds a certificate that cannot be read") from None
    if not found:
        raise file.wrong("holds no certificate in PEM form" if pem else "is empty: it holds no certificate")
    return found


def _public_key_of(pem: bytes, file: _File) -> bytes:
    block = _private_key_in(pem)
    if block is None:
        raise file.wrong("holds no private key in PEM form" if pem else "is empty: it holds no private key")
    try:
        key = load_pem_private_key(block[0], password=None)
        return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except TypeError:
        raise file.wrong("holds a key that is encrypted", "give it without a pass phrase") from None
    except (ValueError, UnsupportedAlgorithm):
        raise file.wrong("holds a private key that cannot be read") from None


def _spki(certificate: Certificate, file: _File) -> bytes:
    try:
        # Written anew: there is more than one way to write a key.
        key = load_der_public_key(certificate.key)
        return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, UnsupportedAlgorithm):
        raise file.wrong("holds a certificate whose key cannot be read") from None


def _node_id(certificate: Certificate) -> str | None:
    nodes = [match[1] for uri in certificate.uris if (match := _node_of(uri))]
    return nodes[0] if len(nodes) == 1 else None


def _validity(certificate: Certificate) -> Validity:
    return Validity(certificate.not_before, certificate.not_after)


def _first_to_end(authorities: list[Certificate]) -> Validity:
    validities = [_validity(authority) for authority in authorities]
    # A bundle may still hold authorities that ended long ago; they verify nothing any more.
    holding = [validity for validity in validities if validity.not_after > time.time()]
    return min(holding or validities, key=lambda validity: validity.not_after)
