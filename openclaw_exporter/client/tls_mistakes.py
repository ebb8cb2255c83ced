"""Why a secure connection did not come about, and who has to mend what."""

from __future__ import annotations

import ssl
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from openclaw_exporter.client.answers import causes_of, is_eof

if TYPE_CHECKING:
    from collections.abc import Mapping

# X509_V_ERR_… of OpenSSL's x509_vfy.h.
_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
_STRANGERS: Final = frozenset({18, 19, 20, 21})
_OTHER_NAMES: Final = frozenset({62, 64})

CLOSED: Final = (
    "it closed the connection without a word, as it does where it refuses the certificate, which has to be "
    "signed by an authority in its receiver.tls.ca, valid now, and on no deny list"
)
"""With TLS 1.3 a certificate is refused after the client's handshake, by an alert or by silence."""

_REFUSED: Final = (
    "the receiver refuses this certificate ({alert}): it has to be signed by an authority in its "
    "receiver.tls.ca, valid now, and on no deny list"
)
_NO_TLS: Final = "what listens there does not speak TLS: is it the right port, and not one for http://?"
_NO_VERSION: Final = "the two have no version of TLS in common: 1.2 or newer is needed"
_ALERTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "WRONG_VERSION_NUMBER": _NO_TLS,
        "RECORD_LAYER_FAILURE": _NO_TLS,
        "PROTOCOL_VERSION": _NO_VERSION,
        "UNSUPPORTED_PROTOCOL": _NO_VERSION,
        "HANDSHAKE_FAILURE": "no cipher of TLS in common, or the receiver wants another certificate",
    }
)
_CERTIFICATE_ALERTS: Final = ("UNKNOWN_CA", "CERTIFICATE", "ACCESS_DENIED", "DECRYPT_ERROR")


def mistake_of(error: Exception, host: str) -> str:
    """Return what is wrong and its remedy; empty where TLS is not to blame.

    Args:
        error: What an exchange over TLS failed with.
        host: The name or address that the receiver was reached by.
    """
    for cause in causes_of(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _distrusted(cause, host)
        if isinstance(cause, ssl.SSLError) and not is_eof(cause):
            return _alerted(getattr(cause, "reason", None) or str(cause))
    return ""


def _distrusted(error: ssl.SSLCertVerificationError, host: str) -> str:
    code = error.verify_code
    if code in _STRANGERS:
        return (
            "the receiver's certificate is of no authority in the CA file: give that of the authority which "
            "signed it (of `pki init`, ca.pem)"
        )
    if code in _OTHER_NAMES:
        return (
            f"the receiver's certificate is not for {host}: reach it by a name that it is for, or make one "
            "for this (pki init --host)"
        )
    if code in (_EXPIRED, _NOT_YET_VALID):
        when = "has expired" if code == _EXPIRED else "is not valid yet"
        return f"the receiver's certificate {when}: renew it, or set this machine's clock"
    return f"the receiver's certificate is not trusted: {error.verify_message}"


def _alerted(reason: str) -> str:
    words = reason.replace("_", " ").lower()
    for part, text in _ALERTS.items():
        if part in reason:
            return text
    if any(part in reason for part in _CERTIFICATE_ALERTS):
        return _REFUSED.format(alert=words.partition(" alert ")[2] or words)
    return f"TLS failed: {words}"
