"""The receiver's side of TLS: the context for new connections, made anew when a file has changed."""

from __future__ import annotations

import logging
import ssl
from typing import TYPE_CHECKING

from openclaw_exporter.errors import CredentialError
from openclaw_exporter.logs import Episodes
from openclaw_exporter.receiver.files import Watched

if TYPE_CHECKING:
    from pathlib import Path

    from openclaw_exporter.receiver.settings import TlsSettings

_logger = logging.getLogger(__name__)


class Credentials:
    """The certificate, its key and the client authorities.

    Attributes:
        context: For new connections.
        authorities: The client authorities, PEM.
    """

    def __init__(self, settings: TlsSettings) -> None:
        self._settings = settings
        self._watched = Watched(*(path for path in _paths(settings)))
        self._watched.changed()
        self._episodes = Episodes(_logger)
        self.authorities = _read_authorities(settings)
        self.context = server_context(settings)

    def reload(self) -> tuple[bool, bool]:
        """Read the files again where one has changed; a set that does not fit together is left alone.

        Returns:
            Whether there is a new context, and whether the client authorities are others than before.
        """
        if not self._watched.changed():
            return False, False
        try:
            authorities = _read_authorities(self._settings)
            context = server_context(self._settings)
        except CredentialError as error:
            self._episodes.begin("tls", str(error), f"{error}; the last good certificate stays in use")
            return False, False
        self._episodes.end("tls", "the certificate files can be used again")
        others = authorities != self.authorities
        self.authorities = authorities
        self.context = context
        return True, others


def server_context(settings: TlsSettings) -> ssl.SSLContext:
    """Return a context that asks every client for a certificate.

    Raises:
        CredentialError: A file cannot be used; the text names it.
    """
    ca, certificate, key = _paths(settings)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key, password=_refuse_password)
    except (OSError, ssl.SSLError, ValueError) as error:
        raise CredentialError(f"{certificate}, {key}: {_reason(error)}; see receiver.tls") from None
    try:
        context.load_verify_locations(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise CredentialError(f"{ca}: {_reason(error)}; see receiver.tls.ca") from None
    return context


def _paths(settings: TlsSettings) -> tuple[Path, Path, Path]:
    if settings.ca is None or settings.certificate is None or settings.key is None:
        raise CredentialError("receiver.tls: ca, certificate and key must all be set")
    return settings.ca, settings.certificate, settings.key


def _read_authorities(settings: TlsSettings) -> bytes:
    ca, _, _ = _paths(settings)
    try:
        return ca.read_bytes()
    except OSError as error:
        raise CredentialError(f"{ca}: {_reason(error)}; see receiver.tls.ca") from None


def _refuse_password() -> str:
    # Without this OpenSSL would ask on the terminal.
    raise ValueError("the key is encrypted; give it without a pass phrase")


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        known = {"KEY_VALUES_MISMATCH": "the key does not belong to the certificate"}
        return known.get(error.reason or "", f"not usable PEM ({error.reason or error})")
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror}"
    return str(error)
