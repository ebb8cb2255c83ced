"""Asking a receiver what it knows: one kept connection, and one for each stream."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import msgspec

from openclaw_exporter import __version__
from openclaw_exporter.client.answers import failure_of, why
from openclaw_exporter.client.credentials import TlsFiles
from openclaw_exporter.client.exchange import BrokenError, Request
from openclaw_exporter.client.settings import TlsSettings
from openclaw_exporter.client.tls_mistakes import CLOSED, mistake_of
from openclaw_exporter.client.transport import NO_ANSWER, KeptTransport
from openclaw_exporter.errors import OpenClawError, UserError
from openclaw_exporter.logs import Episodes
from openclaw_exporter.wire.loopback import is_loopback_url
from openclaw_exporter.wire.problems import TYPE_PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_ANSWER_BYTES: Final = 64 << 20
MAX_SILENCE: Final = 45.0
"""A stream that has nothing to tell says so every 15 seconds."""

_KEEP_SECONDS: Final = 60.0
_OK: Final = 200
_FORBIDDEN: Final = 403
_JSON: Final = "application/json, application/problem+json"
_LOG = logging.getLogger(__name__)


class RegistryError(OpenClawError):
    """The registry cannot be read now; the text says why and what to do.

    Attributes:
        status: The answer's status; None where there was none.
        problem: The case of the problem document, such as `role-not-allowed`; empty where there was none.
    """

    def __init__(self, message: str, *, status: int | None = None, problem: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.problem = problem


class Line:
    """Connections to one receiver, with a reader's certificate. For one thread at a time.

    Args:
        endpoint: The receiver's base URL; http on loopback needs no files.
        ca: PEM file of the authorities that sign the receiver's certificate.
        certificate: PEM file of the reader's certificate.
        key: PEM file of its private key.
        timeout: Seconds that one exchange may take.

    Attributes:
        base: The base URL.

    Raises:
        CredentialError: One of the files cannot be used.
        UserError: The endpoint is no https URL, or a file is missing.
    """

    def __init__(
        self,
        endpoint: str,
        ca: Path | str | None,
        certificate: Path | str | None,
        key: Path | str | None,
        timeout: float,
    ) -> None:
        is_open = is_loopback_url(endpoint)
        try:
            parts = urlsplit(endpoint)
            is_right = parts.port != 0 and (is_open or bool(parts.scheme == "https" and parts.hostname))
        except ValueError:
            is_right = False
        if not is_right:
            raise UserError(f"the endpoint {endpoint!r} is no https URL, such as https://receiver:8443")
        self.base = f"{parts.scheme}://{parts.netloc}"
        self._host = parts.netloc
        self._timeout = timeout
        self._tls = None if is_open else _open_tls(ca, certificate, key)
        self._kept: KeptTransport | None = None

    def close(self) -> None:
        """Close the kept connection; the next exchange opens another one."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def get(self, target: str) -> tuple[int, bytes]:
        """Return the answer's status and body.

        Raises:
            RegistryError: There is no answer.
        """
        try:
            return self._exchange(target)
        except NO_ANSWER as error:
            self.close()
            raise self._silence(error) from error

    def stream(self, target: str, fields: Mapping[str, str]) -> Iterator[bytes]:
        """Yield the body of an answer as it comes, over a connection of its own.

        Raises:
            RegistryError: The receiver does not answer, refuses, or has gone.
        """
        kept = self._connect()
        try:
            response = kept.handle_request(self._request(target, fields, silence=MAX_SILENCE))
            if response.status != _OK:
                raise refusal(self.base, response.status, response.read())
            yield from response.pieces()
        except NO_ANSWER as error:
            raise self._silence(error) from error
        finally:
            kept.close()

    def _exchange(self, target: str) -> tuple[int, bytes]:
        if self._tls is not None and self._tls.refresh(""):
            self.close()
        if self._kept is not None:
            try:
                return self._converse(self._kept, target)
            except NO_ANSWER:
                # The receiver may have closed the kept connection meanwhile: once more on a new one.
                self.close()
        self._kept = self._connect()
        return self._converse(self._kept, target)

    def _connect(self) -> KeptTransport:
        if self._tls is not None:
            self._tls.refresh("")
        context = None if self._tls is None else self._tls.current.context
        return KeptTransport(self.base, context, keep=_KEEP_SECONDS)

    def _silence(self, error: Exception) -> RegistryError:
        if self._tls is not None and (mistake := mistake_of(error, urlsplit(self.base).hostname or "")):
            return RegistryError(f"no secure connection to {self.base}: {mistake}")
        closed = self._tls is not None and isinstance(error, BrokenError)
        text = CLOSED if closed else why(error) or str(error) or failure_of(error)
        return RegistryError(f"{self.base} does not answer: {text}")

    def _request(self, target: str, fields: Mapping[str, str], *, silence: float) -> Request:
        sent = {"Host": self._host, "User-Agent": f"openclaw-exporter/{__version__}", **fields}
        return Request("GET", target, sent, connect_timeout=self._timeout, silence=silence)

    def _converse(self, kept: KeptTransport, target: str) -> tuple[int, bytes]:
        request = self._request(target, {"Accept": _JSON}, silence=self._timeout)
        kept.network.deadline = time.monotonic() + self._timeout
        response = kept.handle_request(request)
        try:
            body = bytearray()
            for piece in response.pieces():
                body += piece
                if len(body) > MAX_ANSWER_BYTES:
                    raise RegistryError(f"{self.base} answered more than {MAX_ANSWER_BYTES} bytes")
            return response.status, bytes(body)
        finally:
            response.close()


def _open_tls(ca: Path | str | None, certificate: Path | str | None, key: Path | str | None) -> TlsFiles:
    if ca is None or certificate is None:
        raise UserError(
            "an https endpoint needs ca, certificate, and key where the certificate has none with it"
        )
    files = TlsSettings(ca=Path(ca), certificate=Path(certificate), key=None if key is None else Path(key))
    return TlsFiles(files, Episodes(_LOG), table="")


def refusal(base: str, status: int, body: bytes) -> RegistryError:
    """Return the error that an answer other than 200 is."""
    try:
        document: Any = msgspec.json.decode(body)
        kind = str(document.get("type", ""))
        detail = str(document.get("detail") or document.get("title") or "")
    except (ValueError, AttributeError):
        kind = detail = ""
    text = f"{base} answered {status}" + (f": {detail}" if detail else "")
    if status == _FORBIDDEN:
        text += "; to make one: openclaw-exporter pki reader DIR --name NAME"
    problem = kind.removeprefix(TYPE_PREFIX) if kind.startswith(TYPE_PREFIX) else ""
    return RegistryError(text, status=status, problem=problem)
