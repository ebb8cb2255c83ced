"""What is kept of one connection: whose certificate it has, and the token that was verified on it."""

from __future__ import annotations

import ssl
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from openclaw_exporter.errors import IdentityError

if TYPE_CHECKING:
    import asyncio

    from openclaw_exporter.wire.certificates import IdentityRule, PeerCertificate
    from openclaw_exporter.wire.tokens import Verifier

_TLS_VERSIONS = {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}


class Verdict(NamedTuple):
    """A verified token, good for one connection and one set of keys.

    Attributes:
        authorization: The whole value of the header.
        verifier: What verified it.
        subject: The node that the token speaks for.
        until: Unix seconds until which it counts, leeway included.
    """

    authorization: bytes
    verifier: Verifier
    subject: str
    until: float


class Connection:
    """One TLS connection, looked at once.

    Args:
        transport: The connection's, its handshake done.
        rule: How names are read from certificates.
    """

    __slots__ = ("_error", "_peer", "extensions", "verdict")

    def __init__(self, transport: asyncio.BaseTransport, rule: IdentityRule | None) -> None:
        self.verdict: Verdict | None = None
        self._peer: PeerCertificate | None = None
        self._error: IdentityError | None = None
        tls = transport.get_extra_info("ssl_object")
        der = tls.getpeercert(binary_form=True) if tls is not None else None
        self.extensions: dict[str, Any] = {} if tls is None else {"tls": _tls_extension(tls, der)}
        if rule is None or der is None:
            self._error = IdentityError("identity-missing", "the connection has no client certificate")
            return
        try:
            peer = rule.identify(der)
        except IdentityError as error:
            self._error = error
            return
        # A resumed TLS session is not verified again.
        if peer.not_after <= time.time():
            self._error = IdentityError("identity-certificate", "the client certificate has expired")
        else:
            self._peer = peer

    @property
    def not_after(self) -> float | None:
        """The end of the client's certificate, Unix seconds, where it could be read."""
        return None if self._peer is None else self._peer.not_after

    def identify(self) -> PeerCertificate:
        """Return whose certificate it is.

        Raises:
            IdentityError: It has none, or one that names neither a node nor a reader.
        """
        if self._peer is None:
            # A new one: an exception that is raised twice keeps the first traceback, and with it the request.
            known = self._error
            raise IdentityError(known.slug, known.detail) if known else IdentityError("identity-missing", "")
        return self._peer


def _tls_extension(tls: ssl.SSLObject, der: bytes | None) -> dict[str, Any]:
    """Return the ASGI TLS extension (asgiref, `specs/tls`), without what the interpreter does not tell."""
    return {
        "server_cert": None,
        "client_cert_chain": [] if der is None else [ssl.DER_cert_to_PEM_cert(der)],
        "client_cert_name": None,
        "client_cert_error": None,
        "tls_version": _TLS_VERSIONS.get(tls.version() or ""),
        "cipher_suite": None,
    }
