"""What a TLS error says to a person; the handshakes themselves are made in tests/cli/test_services.py."""

from __future__ import annotations

import ssl

import pytest

from openclaw_exporter.client.exchange import BrokenError, UnreachableError
from openclaw_exporter.client.tls_mistakes import mistake_of


def failed(reason: str, code: int = 0) -> UnreachableError:
    """Return what an exchange raises for an error of OpenSSL's; with a code, one of the certificate's."""
    kind = ssl.SSLCertVerificationError if code else ssl.SSLError
    cause = kind(1, reason)
    cause.reason = reason
    if isinstance(cause, ssl.SSLCertVerificationError):
        cause.verify_code, cause.verify_message = code, reason
    error = UnreachableError(cause)
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (failed("self-signed certificate", 18), "is of no authority in the CA file"),
        (failed("unable to get local issuer certificate", 20), "is of no authority in the CA file"),
        (failed("Hostname mismatch", 62), "is not for receiver.example: "),
        (failed("IP address mismatch", 64), "is not for receiver.example: "),
        (failed("certificate has expired", 10), "has expired: renew it"),
        (failed("certificate is not yet valid", 9), "is not valid yet: renew it"),
        (
            failed("CA cert does not include key usage extension", 92),
            "is not trusted: CA cert does not include",
        ),
        (failed("WRONG_VERSION_NUMBER"), "does not speak TLS"),
        (failed("TLSV1_ALERT_PROTOCOL_VERSION"), "1.2 or newer is needed"),
        (failed("SSLV3_ALERT_HANDSHAKE_FAILURE"), "no cipher of TLS in common"),
        (failed("TLSV1_ALERT_UNKNOWN_CA"), "refuses this certificate (unknown ca): "),
        (failed("TLSV13_ALERT_CERTIFICATE_REQUIRED"), "refuses this certificate (certificate required): "),
        (failed("TLSV1_ALERT_INTERNAL_ERROR"), "TLS failed: tlsv1 alert internal error"),
    ],
)
def test_every_mistake_has_a_remedy(error: Exception, said: str) -> None:
    assert said in mistake_of(error, "receiver.example")


def test_what_is_no_mistake_of_tls() -> None:
    broken = BrokenError("gone")
    broken.__cause__ = ssl.SSLEOFError(8, "EOF occurred in violation of protocol")
    assert mistake_of(broken, "x") == mistake_of(UnreachableError("nobody listens"), "x") == ""
