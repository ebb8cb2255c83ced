"""Who is believed: whose certificate it is, who is denied, and which proxies may speak for others.

Behind a proxy that ends TLS the handshake proves who the proxy is, and the proxy says whose certificate it
saw (RFC 9440). That the client held its key is the proxy's word alone. All the rest of the forwarded
certificate is checked here again, as in a handshake of our own: a proxy may trust more authorities than this
receiver, or be set to ask for certificates without verifying them, and then it forwards anybody's.
"""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

import msgspec

from openclaw_exporter.errors import IdentityError
from openclaw_exporter.receiver.authorities import Authorities
from openclaw_exporter.receiver.connection import Speaker, denied
from openclaw_exporter.wire.certificates import IdentityRule, identify_proxy
from openclaw_exporter.wire.client_cert import (
    CLIENT_CERT,
    CLIENT_CERT_CHAIN,
    parse_client_cert,
    parse_client_cert_chain,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from openclaw_exporter.receiver.deny import DenyList
    from openclaw_exporter.receiver.settings import ProxySettings, TlsSettings
    from openclaw_exporter.wire.certificates import PeerCertificate

_CLIENT_CERT: Final = CLIENT_CERT.lower().encode()
_CLIENT_CERT_CHAIN: Final = CLIENT_CERT_CHAIN.lower().encode()


_DIGEST_BYTES: Final = 16
"""Of a digest so much is kept: to find another text with the same takes 2^128 tries."""


class Forwarded(Speaker):
    """A client behind a proxy. It outlives the request, so that its token is verified once.

    Args:
        peer: Its certificate; `not_after` is that of its whole chain.
        authorities: What verified it.
        denials: The number of the deny list that it is not on.

    Attributes:
        was_heard: Whether it was since it was last to make room.
    """

    __slots__ = ("authorities", "denials", "was_heard")

    def __init__(self, peer: PeerCertificate, authorities: Authorities | None, denials: int) -> None:
        super().__init__(peer)
        self.authorities = authorities
        self.denials = denials
        self.was_heard = True

    def token_key(self, authorization: bytes) -> bytes:
        """Return the digest: a proxy brings a fleet, and the tokens of a fleet fill a memory."""
        return _digest(authorization)


class Trust:
    """Who is believed.

    Args:
        tls: The table `[receiver.tls]`.
        proxy: The table `[receiver.proxy]`.
        deny: The deny list; open before anybody comes.

    Raises:
        ConfigError: The table `[receiver.tls]` says of no names, or of two kinds.
    """

    def __init__(self, tls: TlsSettings, proxy: ProxySettings, deny: DenyList) -> None:
        self._rule = IdentityRule(tls.trust_domain, tls.dns_suffix)
        self._deny = deny
        self._names = frozenset(proxy.names)
        self._networks = [ipaddress.ip_network(address) for address in proxy.addresses]
        self._authorities: Authorities | None = None
        self._ca = tls.ca
        self._denials = 0
        self._most = proxy.remembered
        self._forwarded: OrderedDict[bytes, Forwarded] = OrderedDict()

    def use_authorities(self, pem: bytes) -> None:
        """Verify forwarded certificates with these authorities from now on.

        Raises:
            CredentialError: See `read_authorities`.
        """
        # What is remembered was verified by others, and is verified once more when it is met again: to forget
        # a fleet at once would take too long.
        self._authorities = self.read_authorities(pem)

    def read_authorities(self, pem: bytes) -> Authorities | None:
        """Return these authorities; None: no proxy is believed, so nobody has to verify by them.

        Raises:
            CredentialError: There is no certificate among them, or one that cannot be read.
        """
        return Authorities(pem, str(self._ca)) if self._names else None

    def reload(self) -> bool:
        """Read the deny list again where it has changed; return whether others are denied now than before."""
        changed = self._deny.reload()
        self._denials += changed
        return changed

    def is_denied(self, peer: PeerCertificate) -> bool:
        """Whether a certificate, or its node, is on the deny list."""
        return self._deny.holds(peer)

    def look(self, der: bytes, address: Any) -> tuple[PeerCertificate, bool]:
        """Look at the certificate of a connection.

        Args:
            der: The certificate, verified by the handshake.
            address: The peer's, as a socket has it.

        Returns:
            Whose it is, and whether that is a proxy that may speak for others.

        Raises:
            IdentityError: It names nobody.
        """
        proxy = identify_proxy(der, self._names) if self._names and self._is_near(address) else None
        return proxy or self._rule.identify(der), proxy is not None

    def forwarded(self, headers: Iterable[tuple[bytes, bytes]]) -> Forwarded:
        """Return whom a trusted proxy forwards in one request.

        Raises:
            IdentityError: It forwards no certificate, or one that is not trusted.
        """
        certificate: bytes | None = None
        chain = []
        for name, value in headers:
            if name == _CLIENT_CERT:
                if certificate is not None:
                    # The proxy's own and a client's, which it should have removed.
                    raise IdentityError("identity-forwarded", f"{CLIENT_CERT} is there more than once")
                certificate = value
            elif name == _CLIENT_CERT_CHAIN:
                chain.append(value)
        if certificate is None:
            raise IdentityError("identity-missing", f"the proxy forwarded no {CLIENT_CERT}")
        return self._recall(certificate, chain)

    def recall(self, certificate: bytes, authorization: bytes) -> Forwarded | None:
        """Return whom a trusted proxy forwards where nothing of it has to be looked at.

        Args:
            certificate: The value of `Client-Cert`, to the letter.
            authorization: The value of `Authorization`.

        Returns:
            None where the certificate has to be looked at, or where it was not this token that was verified
            with it last.
        """
        known = self._forwarded.get(_digest(certificate))
        if (
            known is None
            or known.authorities is not self._authorities
            or known.denials != self._denials
            or known.verdict is None
            or known.verdict.authorization != known.token_key(authorization)
            or known.identify().not_after <= time.time()
        ):
            return None
        known.was_heard = True
        return known

    def _recall(self, certificate: bytes, chain: list[bytes]) -> Forwarded:
        now = time.time()
        key = _digest(certificate)
        known = self._forwarded.get(key)
        if known is None or known.authorities is not self._authorities:
            peer = self._verify(certificate, chain, now)
            known = Forwarded(peer, self._authorities, self._denials)
            self._remember(key, known)
        elif known.denials != self._denials:
            # Another list is no reason to check the signatures of a fleet once more.
            if self._deny.holds(known.identify()):
                raise denied()
            known.denials = self._denials
        known.was_heard = True
        if known.identify().not_after <= now:
            self._forwarded.pop(key, None)
            raise IdentityError("identity-certificate", "the client certificate has expired")
        return known

    def _remember(self, key: bytes, known: Forwarded) -> None:
        """Remember a client, where there is room or one that is not heard any more.

        Who was heard longest ago beats next: if that one had to make room each time, nobody of a fleet with
        one node too many would be remembered. So it is asked twice, and meanwhile the new one goes without.
        """
        if key not in self._forwarded and len(self._forwarded) >= self._most:
            longest, candidate = next(iter(self._forwarded.items()))
            if candidate.was_heard:
                candidate.was_heard = False
                self._forwarded.move_to_end(longest)
                return
            del self._forwarded[longest]
        self._forwarded[key] = known

    def _verify(self, certificate: bytes, chain: list[bytes], now: float) -> PeerCertificate:
        leaf, peer = self._rule.read(parse_client_cert(certificate))
        # Before the signatures, which cost most.
        if self._deny.holds(peer):
            raise denied()
        if self._authorities is None:
            raise IdentityError("identity-forwarded", "no authorities are known")
        not_after = self._authorities.verify(leaf, parse_client_cert_chain(chain), now)
        # Nobody asks for its beginning any more, and all have that one number together.
        return msgspec.structs.replace(peer, not_before=0.0, not_after=not_after)

    def _is_near(self, address: Any) -> bool:
        """Whether a connection comes from one of the proxies' addresses, where those are configured."""
        if not self._networks:
            return True
        try:
            found = ipaddress.ip_address(address[0].partition("%")[0])
        except (TypeError, ValueError, IndexError):
            return False
        # A socket for both families shows an IPv4 peer like this.
        found = getattr(found, "ipv4_mapped", None) or found
        return any(found in network for network in self._networks)


def _digest(value: bytes) -> bytes:
    return sha256(value).digest()[:_DIGEST_BYTES]
