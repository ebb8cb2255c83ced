"""What is kept of one connection: whose certificate it has, and the token that was verified on it."""

from __future__ import annotations

import ssl
import time
from typing import TYPE_CHECKING, Any

import msgspec

from openclaw_exporter.errors import IdentityError
from openclaw_exporter.receiver.forms import Forms
from openclaw_exporter.wire.tokens import Verifier

if TYPE_CHECKING:
    import asyncio

    from openclaw_exporter.receiver.heads import Head
    from openclaw_exporter.receiver.trust import Trust
    from openclaw_exporter.wire.certificates import PeerCertificate
    from openclaw_exporter.wire.heartbeat import Heartbeat

_TLS_VERSIONS = {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """A verified token, good for one certificate and one set of keys.

    Attributes:
        authorization: What the header is recognized by; see `Speaker.token_key`.
        verifier: What verified it.
        subject: The node that the token speaks for.
        until: Unix seconds until which it counts, leeway included.
        issuer: Whose token it is.
        key_id: The key that signed it.
    """

    authorization: bytes
    verifier: Verifier
    subject: str
    until: float
    issuer: str
    key_id: str

    def is_good_for(self, verifier: Verifier | None) -> bool:
        """Whether the key that signed the token is still what another key set has under its name."""
        if verifier is self.verifier:
            return True
        signed = self.verifier.key(self.issuer, self.key_id)
        return verifier is not None and verifier.key(self.issuer, self.key_id) == signed


class Speaker:
    """Whoever makes a request, by a certificate that was looked at once.

    Attributes:
        verdict: The token that was verified with this certificate last.
    """

    __slots__ = ("_error", "_peer", "verdict")

    def __init__(self, peer: PeerCertificate | None = None, error: IdentityError | None = None) -> None:
        self.verdict: Verdict | None = None
        self._peer = peer
        self._error = error

    @property
    def not_after(self) -> float | None:
        """The end of the certificate, Unix seconds, where it could be read."""
        return None if self._peer is None else self._peer.not_after

    def token_key(self, authorization: bytes) -> bytes:
        """Return what a token is recognized by in `verdict`: here the whole value of the header."""
        return authorization

    def identify(self) -> PeerCertificate:
        """Return whose certificate it is.

        Raises:
            IdentityError: It has none, or one that names neither a node nor a reader, or one that is denied.
        """
        if self._peer is None:
            # A new one: an exception that is raised twice keeps the first traceback, and with it the request.
            known = self._error
            raise IdentityError(known.slug, known.detail) if known else IdentityError("identity-missing", "")
        return self._peer


class Connection(Speaker):
    """One TLS connection, looked at once.

    Args:
        transport: The connection's, its handshake done.
        trust: Who is believed; None on a listener without TLS.

    Attributes:
        extensions: Of an ASGI scope.
        forms: Of the heads that come over it, where it is a proxy's.
        heartbeat: The last one of the connection's own node; the next one differs in little.
    """

    __slots__ = ("_is_proxy", "_shown", "_trust", "extensions", "forms", "heartbeat")

    def __init__(self, transport: asyncio.BaseTransport, trust: Trust | None) -> None:
        super().__init__()
        self._trust = trust
        self.heartbeat: Heartbeat | None = None
        self.forms: Forms | None = None
        self._is_proxy = False
        self._shown: PeerCertificate | None = None
        tls = transport.get_extra_info("ssl_object")
        der = tls.getpeercert(binary_form=True) if tls is not None else None
        self.extensions: dict[str, Any] = {} if tls is None else {"tls": _tls_extension(tls, der)}
        if trust is None or der is None:
            self._error = IdentityError("identity-missing", "the connection has no client certificate")
            return
        try:
            peer, self._is_proxy = trust.look(der, transport.get_extra_info("peername"))
        except IdentityError as error:
            self._error = error
            return
        if self._is_proxy:
            self.forms = Forms(trust)
        # A resumed TLS session is not verified again.
        if peer.not_after <= time.time():
            self._error = IdentityError("identity-certificate", "the client certificate has expired")
        else:
            self._shown = peer
            self._judge(peer, trust)

    def speaker(self, head: Head) -> Speaker:
        """Return who makes a request: whom the proxy forwards where this is a proxy's connection.

        Args:
            head: The request's header fields.

        Raises:
            WireError: The proxy itself is denied, or what it forwards is not one certificate that is trusted.
        """
        if not self._is_proxy or self._trust is None:
            return self
        self.identify()
        return head.speaker or self._trust.forwarded(head.fields)

    def recheck(self, verifier: Verifier | None) -> bool:
        """Look again after the deny list or the keys have changed.

        Args:
            verifier: What verifies tokens now.

        Returns:
            Whether the connection has to end: its certificate is denied, or the key of its token is gone.
        """
        if self._shown is not None and self._trust is not None:
            was_believed = self._peer is not None
            self._judge(self._shown, self._trust)
            if self._peer is None:
                return was_believed
        return self.verdict is not None and not self.verdict.is_good_for(verifier)

    def _judge(self, peer: PeerCertificate, trust: Trust) -> None:
        if trust.is_denied(peer):
            self._peer, self._error = None, denied()
        else:
            self._peer, self._error = peer, None


def denied() -> IdentityError:
    """Return the refusal of somebody who is on the deny list."""
    return IdentityError("node-denied", "the node, or its certificate, is on the receiver's deny list")


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
