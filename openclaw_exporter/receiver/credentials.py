"""The receiver's side of TLS: the context for new connections, made anew when a file has changed."""

from __future__ import annotations

import contextlib
import logging
import os
import ssl
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cryptography import x509

from openclaw_exporter.errors import CredentialError, UnreadableError
from openclaw_exporter.logs import Episodes
from openclaw_exporter.receiver.files import Watched
from openclaw_exporter.receiver.kept import TlsFiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from openclaw_exporter.receiver.settings import TlsSettings

_logger = logging.getLogger(__name__)


class Credentials:
    """The certificate, its key and the client authorities.

    Args:
        settings: The table `[receiver.tls]`.
        kept: What to go on with where the files cannot be used now.
        logger: Who is told.
        accepts: Reads the client authorities for something else; raises `CredentialError` where it cannot.

    Attributes:
        files: What is in use.
        context: For new connections.

    Raises:
        CredentialError: A file cannot be used, and nothing was kept; the text names it.
    """

    def __init__(
        self,
        settings: TlsSettings,
        kept: TlsFiles | None = None,
        logger: logging.Logger = _logger,
        accepts: Callable[[bytes], object] | None = None,
    ) -> None:
        self._settings = settings
        self._accepts = accepts
        self._watched = Watched(*(path for path in _paths(settings)))
        self._watched.changed()
        self._episodes = Episodes(logger)
        try:
            self.files, self.context = self._load()
        except CredentialError as error:
            if kept is None:
                raise
            self._stay(error)
            self.files = kept
            self.context = server_context(settings, kept)
        self._begins, self._ends = _validity(self.files.certificate)
        self._look_at_clock()

    @property
    def authorities(self) -> bytes:
        """The client authorities, PEM."""
        return self.files.ca

    def reload(self) -> tuple[bool, bool]:
        """Read the files again where one has changed; a set that does not fit together is left alone.

        Returns:
            Whether there is a new context, and whether the client authorities are others than before.
        """
        self._look_at_clock()
        if not self._watched.changed():
            return False, False
        try:
            files, context = self._load()
        except CredentialError as error:
            self._stay(error)
            return False, False
        self._episodes.end("tls", "the certificate files can be used again")
        others = files.ca != self.authorities
        self.files = files
        self.context = context
        self._begins, self._ends = _validity(files.certificate)
        self._look_at_clock()
        return True, others

    def _load(self) -> tuple[TlsFiles, ssl.SSLContext]:
        files = _read(self._settings)
        context = server_context(self._settings, files)
        if self._accepts is not None:
            self._accepts(files.ca)
        return files, context

    def _look_at_clock(self) -> None:
        """Tell when the certificate is one that nodes refuse, whose logs alone would say so."""
        now = time.time()
        if self._begins <= now < self._ends:
            self._episodes.end("certificate", "the certificate is valid now")
            return
        cause, at = ("has expired", self._ends) if now >= self._ends else ("is not valid yet", self._begins)
        self._episodes.begin(
            "certificate",
            cause,
            f"{self._settings.certificate}: the certificate {cause} ({datetime.fromtimestamp(at, UTC)}), "
            "so nodes refuse this receiver; see receiver.tls.certificate",
        )

    def _stay(self, error: CredentialError) -> None:
        self._watched.failed(error)
        self._episodes.begin("tls", str(error), f"{error}; the last good certificate stays in use")


def server_context(settings: TlsSettings, files: TlsFiles) -> ssl.SSLContext:
    """Return a context that asks every client for a certificate.

    Args:
        settings: What the files are called.
        files: Their content.

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
        with _in_memory(files.certificate) as chain, _in_memory(files.key) as private:
            context.load_cert_chain(chain, private, password=_refuse_password)
    except (OSError, ssl.SSLError, ValueError) as error:
        raise CredentialError(f"{certificate}, {key}: {_reason(error)}; see receiver.tls") from None
    try:
        with _in_memory(files.ca) as authorities:
            context.load_verify_locations(cafile=authorities)
    except (OSError, ssl.SSLError) as error:
        raise CredentialError(f"{ca}: {_reason(error)}; see receiver.tls.ca") from None
    return context


def _validity(certificate: bytes) -> tuple[float, float]:
    """Return from when and until when the first certificate holds, Unix times."""
    try:
        leaf = x509.load_pem_x509_certificates(certificate)[0]
    except Exception:  # noqa: BLE001 - OpenSSL has taken it: the handshake shows what it is worth
        return 0.0, float("inf")
    return leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()


def _paths(settings: TlsSettings) -> tuple[Path, Path, Path]:
    if settings.ca is None or settings.certificate is None or settings.key is None:
        raise CredentialError("receiver.tls: ca, certificate and key must all be set")
    return settings.ca, settings.certificate, settings.key


def _read(settings: TlsSettings) -> TlsFiles:
    ca, certificate, key = _paths(settings)
    try:
        authorities = ca.read_bytes()
    except OSError as error:
        raise UnreadableError(f"{ca}: {_reason(error)}; see receiver.tls.ca") from None
    try:
        return TlsFiles(authorities, certificate.read_bytes(), key.read_bytes())
    except OSError as error:
        raise UnreadableError(f"{certificate}, {key}: {_reason(error)}; see receiver.tls") from None


@contextlib.contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """Return the path of a file that is on no disk: the ssl module takes keys by path alone.

    Raises:
        UnreadableError: There is no descriptor or memory for it now.
    """
    try:
        descriptor = os.memfd_create("openclaw-tls", os.MFD_CLOEXEC)
    except OSError as error:
        raise UnreadableError(f"no file in memory can be made (memfd_create): {error.strerror}") from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        yield f"/proc/self/fd/{descriptor}"


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
