"""The authorities of clients, for certificates that did not come in by a TLS handshake of ours."""

from __future__ import annotations

import datetime as dt
import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cryptography import x509
from cryptography.x509 import verification as v
from cryptography.x509.oid import ExtendedKeyUsageOID

from openclaw_exporter.errors import CredentialError, IdentityError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_DEPTH: Final = 8
_PATHS: Final = 64
"""So many chains above clients' certificates are remembered; a fleet has few."""


class _Path(NamedTuple):
    """What was found good above clients' certificates, and is the same for all of them.

    Attributes:
        builder: Knows the issuers that have signed them, and asks no more of those than the time.
        begins: When the last certificate above the issuers begins, Unix seconds.
        ends: When the first of them ends, Unix seconds.
    """

    builder: v.PolicyBuilder
    begins: float
    ends: float


class Authorities:
    """Verifies chains up to the certificates of `receiver.tls.ca`, as a handshake would.

    A fleet's certificates have the same few issuers. Of those, signatures and extensions are looked at once;
    the validity of each certificate in a chain is looked at every time.

    Args:
        pem: The file's content.
        source: Its name, for the error text.

    Raises:
        CredentialError: It holds no certificate, or one that cannot be read.
    """

    def __init__(self, pem: bytes, source: str) -> None:
        try:
            roots = x509.load_pem_x509_certificates(pem)
            store = v.Store(roots)
        except Exception:  # noqa: BLE001 - OpenSSL may have taken what this parser raises anything for
            raise CredentialError(f"{source}: not usable PEM; see receiver.tls.ca") from None
        self._builder = _builder(store, _issuers())
        sound = [root for root in roots if _is_issuer(root)]
        self._roots = _Path(_builder(v.Store(sound), _known()), -math.inf, math.inf) if sound else None
        # By what came with a client's certificate.
        self._paths: dict[tuple[bytes, ...], _Path] = {}
        self._note((), self._roots)

    def verify(self, leaf: x509.Certificate, intermediates: Sequence[bytes], now: float) -> float:
        """Verify a chain at a time.

        Args:
            leaf: The client's certificate.
            intermediates: What may stand between it and an authority, DER, in any order.
            now: Unix seconds.

        Returns:
            The end of the certificate in the chain that ends first, Unix seconds.

        Raises:
            IdentityError: There is no chain to one of the authorities in which every signature and validity
                holds.
        """
        between = tuple(intermediates)
        at = dt.datetime.fromtimestamp(now, dt.UTC).replace(tzinfo=None)
        path = self._paths.get(between)
        if path is not None and path.begins <= now <= path.ends:
            try:
                chain = path.builder.time(at).build_client_verifier().verify(leaf, []).chain
                return min(path.ends, _end_of(chain))
            except Exception:  # noqa: BLE001, S110 - whatever is not plainly right is looked at as a whole
                pass
        chain = self._verify(leaf, between, at)
        self._remember(between, chain[1:])
        return _end_of(chain)

    def _verify(
        self, leaf: x509.Certificate, between: tuple[bytes, ...], at: dt.datetime
    ) -> list[x509.Certificate]:
        try:
            others = [x509.load_der_x509_certificate(der) for der in between]
            return self._builder.time(at).build_client_verifier().verify(leaf, others).chain
        except v.VerificationError:
            detail = (
                "the forwarded certificate is not signed by an authority of this receiver, or has expired"
            )
            raise IdentityError("identity-forwarded", detail) from None
        except Exception:  # noqa: BLE001 - a foreign parser on foreign bytes: whatever it raises, nothing is read
            raise IdentityError("identity-forwarded", "a forwarded certificate cannot be read") from None

    def _remember(self, between: tuple[bytes, ...], above: list[x509.Certificate]) -> None:
        """Remember what stands above a client's certificate, for the next one with the same beside it.

        An authority higher up may allow some names and not others (RFC 5280, 4.2.1.10): that has to be asked
        of each client, and such a chain is verified as a whole every time.
        """
        if len(above) == 1:
            self._note(between, self._roots)
        elif above and not any(map(_constrains, above[1:])):
            begins = max(certificate.not_valid_before_utc.timestamp() for certificate in above)
            self._note(between, _Path(_builder(v.Store(above[:1]), _known()), begins, _end_of(above)))

    def _note(self, between: tuple[bytes, ...], path: _Path | None) -> None:
        if path is None:
            return
        if between not in self._paths and len(self._paths) >= _PATHS:
            del self._paths[next(iter(self._paths))]
        self._paths[between] = path


def _builder(store: v.Store, authority: v.ExtensionPolicy) -> v.PolicyBuilder:
    # What a leaf's extensions must be is `IdentityRule`'s to say; the web's rules are not ours.
    leaf = v.ExtensionPolicy.permit_all()
    builder = v.PolicyBuilder().store(store).max_chain_depth(_DEPTH)
    return builder.extension_policies(ca_policy=authority, ee_policy=leaf)


def _issuers() -> v.ExtensionPolicy:
    """Return what is asked of an authority's extensions, as in a handshake."""
    policy = v.ExtensionPolicy.permit_all()
    policy = policy.require_present(
        x509.BasicConstraints, v.Criticality.AGNOSTIC, _asked(_is_authority, "not an authority's")
    )
    policy = policy.may_be_present(
        x509.KeyUsage, v.Criticality.AGNOSTIC, _asked(_may_sign, "may not sign certificates")
    )
    return policy.may_be_present(
        x509.ExtendedKeyUsage, v.Criticality.AGNOSTIC, _asked(_may_vouch, "not an authority of clients")
    )


def _known() -> v.ExtensionPolicy:
    """Return what is asked of an authority of which all that has been asked before."""
    policy = v.ExtensionPolicy.permit_all()
    return policy.require_present(x509.BasicConstraints, v.Criticality.AGNOSTIC, None)


def _end_of(chain: Sequence[x509.Certificate]) -> float:
    return min(certificate.not_valid_after_utc.timestamp() for certificate in chain)


def _constrains(certificate: x509.Certificate) -> bool:
    """Whether an authority says something about the names below it; also where that cannot be read."""
    values = _extensions(certificate)
    return values is None or x509.NameConstraints in values


def _is_issuer(certificate: x509.Certificate) -> bool:
    """Whether an authority's extensions are what `_issuers` asks for."""
    values = _extensions(certificate)
    if values is None or x509.BasicConstraints not in values:
        return False
    return (
        _is_authority(values[x509.BasicConstraints])
        and _may_sign(values.get(x509.KeyUsage))
        and _may_vouch(values.get(x509.ExtendedKeyUsage))
    )


def _extensions(certificate: x509.Certificate) -> dict[type, Any] | None:
    try:
        return {type(extension.value): extension.value for extension in certificate.extensions}
    except Exception:  # noqa: BLE001 - a foreign parser on foreign bytes: whatever it raises, nothing is read
        return None


def _asked(
    is_right: Callable[[Any], bool], message: str
) -> Callable[[v.Policy, x509.Certificate, Any], None]:
    def check(_policy: v.Policy, _certificate: x509.Certificate, value: Any) -> None:
        if not is_right(value):
            raise ValueError(message)

    return check


def _is_authority(value: x509.BasicConstraints) -> bool:
    return value.ca


def _may_sign(value: x509.KeyUsage | None) -> bool:
    return value is None or value.key_cert_sign


def _may_vouch(value: x509.ExtendedKeyUsage | None) -> bool:
    usages = {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}
    return value is None or not usages.isdisjoint(value)
