"""The authorities of clients, for certificates that did not come in by a TLS handshake of ours."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509 import verification as v
from cryptography.x509.oid import ExtendedKeyUsageOID

from openclaw_exporter.errors import CredentialError, IdentityError

if TYPE_CHECKING:
    from collections.abc import Sequence

_DEPTH: Final = 8


class Authorities:
    """Verifies chains up to the certificates of `receiver.tls.ca`, as a handshake would.

    Args:
        pem: The file's content.
        source: Its name, for the error text.

    Raises:
        CredentialError: It holds no certificate.
    """

    def __init__(self, pem: bytes, source: str) -> None:
        try:
            self._store = v.Store(x509.load_pem_x509_certificates(pem))
        except (ValueError, UnsupportedAlgorithm):
            raise CredentialError(f"{source}: not usable PEM; see receiver.tls.ca") from None
        # What a leaf's extensions must be is `IdentityRule`'s to say; the web's rules are not ours.
        leaf = v.ExtensionPolicy.permit_all()
        authority = v.ExtensionPolicy.permit_all()
        authority = authority.require_present(x509.BasicConstraints, v.Criticality.AGNOSTIC, _is_authority)
        authority = authority.may_be_present(x509.KeyUsage, v.Criticality.AGNOSTIC, _may_sign)
        authority = authority.may_be_present(x509.ExtendedKeyUsage, v.Criticality.AGNOSTIC, _may_vouch)
        builder = v.PolicyBuilder().store(self._store).max_chain_depth(_DEPTH)
        self._builder = builder.extension_policies(ca_policy=authority, ee_policy=leaf)

    def verify(self, leaf: bytes, intermediates: Sequence[bytes], now: float) -> float:
        """Verify a chain at a time.

        Args:
            leaf: The client's certificate, DER.
            intermediates: What may stand between it and an authority, DER, in any order.
            now: Unix seconds.

        Returns:
            The end of the certificate in the chain that ends first, Unix seconds.

        Raises:
            IdentityError: There is no chain to one of the authorities in which every signature and validity
                holds.
        """
        at = dt.datetime.fromtimestamp(now, dt.UTC).replace(tzinfo=None)
        try:
            own = x509.load_der_x509_certificate(leaf)
            others = [x509.load_der_x509_certificate(der) for der in intermediates]
            chain = self._builder.time(at).build_client_verifier().verify(own, others).chain
        except v.VerificationError:
            detail = (
                "the forwarded certificate is not signed by an authority of this receiver, or has expired"
            )
            raise IdentityError("identity-forwarded", detail) from None
        except Exception:  # noqa: BLE001 - a foreign parser on foreign bytes: whatever it raises, nothing is read
            raise IdentityError("identity-forwarded", "a forwarded certificate cannot be read") from None
        return min(certificate.not_valid_after_utc.timestamp() for certificate in chain)


def _is_authority(_policy: v.Policy, _certificate: x509.Certificate, value: x509.BasicConstraints) -> None:
    if not value.ca:
        message = "not an authority's"
        raise ValueError(message)


def _may_sign(_policy: v.Policy, _certificate: x509.Certificate, value: x509.KeyUsage | None) -> None:
    if value is not None and not value.key_cert_sign:
        message = "may not sign certificates"
        raise ValueError(message)


def _may_vouch(
    _policy: v.Policy, _certificate: x509.Certificate, value: x509.ExtendedKeyUsage | None
) -> None:
    usages = {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}
    if value is not None and usages.isdisjoint(value):
        message = "not an authority of clients"
        raise ValueError(message)
