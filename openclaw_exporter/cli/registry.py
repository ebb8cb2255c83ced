"""Reading a receiver's registry over HTTP, with a reader's certificate."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit

import httpx

from openclaw_exporter.errors import CredentialError, OpenClawError, UserError
from openclaw_exporter.wire.loopback import is_loopback_url

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_PAGE: Final = 500
_TIMEOUT: Final = 10.0
_FORBIDDEN: Final = 403


class RegistryError(OpenClawError):
    """The registry cannot be read now; the text says why and what to do."""


class Registry:
    """A connection to one receiver's registry; a context manager.

    Args:
        endpoint: The receiver's base URL; `http://` for a receiver with insecure_dev on this machine, which
            needs no files.
        ca: PEM file of the authorities that sign the receiver's certificate.
        certificate: PEM file of the reader's certificate.
        key: PEM file of its private key.

    Raises:
        CredentialError: One of the files cannot be used.
        UserError: The endpoint is no https URL.
    """

    def __init__(self, endpoint: str, *, ca: Path | None, certificate: Path | None, key: Path | None) -> None:
        parts = urlsplit(endpoint)
        is_open = is_loopback_url(endpoint)
        if not is_open and (parts.scheme != "https" or not parts.hostname):
            raise UserError(f"the endpoint {endpoint!r} is no https URL, such as https://receiver:8443")
        self._base = f"{parts.scheme}://{parts.netloc}"
        verify = True if is_open else _context(ca, certificate, key)
        self._client = httpx.Client(base_url=self._base, verify=verify, timeout=_TIMEOUT, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def nodes(self, filters: Mapping[str, object] | None = None) -> Iterator[dict[str, Any]]:
        """Yield the nodes by node_id, page after page.

        Args:
            filters: `state`, `tag` (a list), `min_available_slots`, as the API has them.

        Raises:
            RegistryError: The receiver does not answer, or refuses.
        """
        query: dict[str, Any] = {"limit": _PAGE} | dict(filters or {})
        while True:
            page = self._get("/openclaw/nodes", query)
            yield from page["nodes"]
            if not page.get("next_cursor"):
                return
            query["cursor"] = page["next_cursor"]

    def _get(self, path: str, query: Mapping[str, Any]) -> Any:
        try:
            answer = self._client.get(path, params=query)
            if answer.is_success:
                return answer.json()
        except httpx.HTTPError as error:
            text = str(error) or type(error).__name__
            raise RegistryError(f"{self._base} does not answer: {text}") from error
        except ValueError as error:
            raise RegistryError(f"{self._base}{path} did not answer with JSON") from error
        raise RegistryError(_refusal(self._base, answer))


def _context(ca: Path | None, certificate: Path | None, key: Path | None) -> ssl.SSLContext:
    if ca is None or certificate is None or key is None:
        raise UserError("an https endpoint needs ca, certificate and key")
    for path in (ca, certificate, key):
        try:
            path.open("rb").close()
        except OSError as error:
            raise CredentialError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        context = ssl.create_default_context(cafile=str(ca))
    except ssl.SSLError as error:
        raise CredentialError(f"{ca}: no certificate in PEM form in it") from error
    try:
        context.load_cert_chain(certificate, key)
    except ssl.SSLError as error:
        raise CredentialError(f"{certificate} and {key} are not a certificate and its private key") from error
    return context


def _refusal(base: str, answer: httpx.Response) -> str:
    try:
        problem = answer.json()
        detail = problem.get("detail") or problem.get("title") or ""
    except (ValueError, AttributeError):
        detail = ""
    text = f"{base} answered {answer.status_code}" + (f": {detail}" if detail else "")
    if answer.status_code == _FORBIDDEN:
        text += "; to make one: openclaw-exporter pki reader DIR --name NAME"
    return text
