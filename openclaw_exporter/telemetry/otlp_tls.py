"""The certificates that the standard variables name for OTLP, looked at before anybody uses them.

The exporters do not: over HTTP a missing file shows at each export, over gRPC it is left out, and a client
key whose certificate is named by a variable of the other kind (`OTEL_EXPORTER_OTLP_METRICS_…` beside
`OTEL_EXPORTER_OTLP_…`) makes gRPC end the whole process.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from openclaw_exporter.errors import UserError
from openclaw_exporter.telemetry.settings import standard

_NAMES: Final = ("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY")


@dataclass(frozen=True, slots=True)
class OtlpTls:
    """PEM files; None where no variable names one.

    Attributes:
        ca: The authorities that the collector's certificate may come from.
        certificate: This client's certificate, with those between it and its authority.
        key: Its private key; it may stand in the certificate's file.
    """

    ca: str | None
    certificate: str | None
    key: str | None

    def read(self, path: str | None) -> bytes | None:
        """Return a file's content."""
        return Path(path).read_bytes() if path else None


def otlp_tls() -> OtlpTls:
    """Return the files that the variables name.

    Raises:
        UserError: One cannot be read or is no PEM file of its kind, key and certificate do not belong
            together, or a key is named without its certificate.
    """
    ca, certificate, key = (standard(name) or None for name in _NAMES)
    for name, path in zip(_NAMES, (ca, certificate, key), strict=True):
        _check_readable(name, path)
    if key and not certificate:
        raise UserError(
            "OTEL_EXPORTER_OTLP_CLIENT_KEY is set without OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE; "
            "set both or none"
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if ca:
            context.load_verify_locations(ca)
    except ssl.SSLError as error:
        message = f"OTEL_EXPORTER_OTLP_CERTIFICATE: {ca} has no PEM certificates ({error.reason or error})"
        raise UserError(message) from error
    try:
        if certificate:
            # An empty password: nobody is there to be asked for that of an encrypted key.
            context.load_cert_chain(certificate, key, password="")
    except (ssl.SSLError, ValueError) as error:
        message = (
            f"OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE: {certificate} and its key ({key or 'in the same file'}) "
            f"cannot be used ({error}); name a PEM certificate and its unencrypted key"
        )
        raise UserError(message) from error
    return OtlpTls(ca, certificate, key or certificate)


def _check_readable(name: str, path: str | None) -> None:
    try:
        if path:
            Path(path).open("rb").close()
    except OSError as error:
        message = (
            f"OTEL_EXPORTER_OTLP_{name}: {path} cannot be read ({error.strerror}); "
            "name a PEM file that this process may read, or remove the variable"
        )
        raise UserError(message) from error
