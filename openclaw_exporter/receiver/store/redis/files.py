"""The files of a Redis' user: passwords, and what TLS needs."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from openclaw_exporter.errors import CredentialError

if TYPE_CHECKING:
    from pathlib import Path

    from openclaw_exporter.receiver.store.redis.address import Target


def read_secret(name: str, path: Path) -> str:
    """Return a file's one line.

    Args:
        name: The key of `[receiver.store]` that names the file.
        path: The file.

    Raises:
        CredentialError: It cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise CredentialError(f"receiver.store.{name}: {path} cannot be read: {reason}") from None


def tls_context(target: Target) -> ssl.SSLContext:
    """Return a context made of the files as they are now; it checks the servers' certificates and names.

    Raises:
        CredentialError: A file cannot be used.
    """
    for name in ("ca", "certificate", "key"):
        path: Path | None = getattr(target, name)
        if path is not None:
            read_secret(name, path)  # OpenSSL would not say which of them it misses
    try:
        context = ssl.create_default_context(cafile=target.ca)
        if target.certificate is not None:
            context.load_cert_chain(target.certificate, target.key)
    except ssl.SSLError as error:
        files = ", ".join(
            str(path) for path in (target.ca, target.certificate, target.key) if path is not None
        )
        raise CredentialError(f"receiver.store: {files}: {error.reason or error}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def check(target: Target) -> None:
    """Look at all files once.

    Raises:
        CredentialError: One of them cannot be used.
    """
    for name in ("password_file", "sentinel_password_file"):
        path: Path | None = getattr(target, name)
        if path is not None:
            read_secret(name, path)
    if target.tls:
        tls_context(target)
