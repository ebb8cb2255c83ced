"""Fetching one page, within bounds of time, size and origin."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import msgspec

from openclaw_exporter_http_json.chimera import read_chimera
from openclaw_exporter_http_json.reading import Reading, check_age, read_pointers

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

    from openclaw_exporter.plugin import Observation
    from openclaw_exporter_http_json.options import Source

_MAX_REDIRECTS: Final = 3
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_REFUSALS: Final = frozenset({401, 403})


class Page:
    """One page."""

    def __init__(self, name: str, source: Source) -> None:
        self.name = name
        self._source = source
        self._client: httpx.Client | None = None
        self._url: httpx.URL | None = None
        self._socket: socket.socket | None = None

    def collect(self) -> list[Observation | Exception]:
        """Fetch the page and return what stands on it, and an error for each field that cannot be used.

        Raises:
            PermissionError: The server refuses the credentials, or one of their files cannot be read.
            TimeoutError: The page did not come in time.
            ConnectionError: The page cannot be had.
            ValueError: It is too large, no JSON or stale, or no field of it can be used.
        """
        place = self._source.place
        try:
            document = msgspec.json.decode(self._fetch())
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise ValueError(f"{place} is no JSON") from None
        reading = Reading(document)
        check_age(reading, self._source)
        read_pointers(reading, self._source)
        if self._source.mapping == "chimera":
            read_chimera(reading, self._source.topic)
        if not reading.found:
            why = str(reading.problems[0]) if reading.problems else "every one is missing or null"
            raise ValueError(f"no field of {place} can be used: {why}")
        return [*reading.found.values(), *reading.problems]

    def close(self) -> None:
        """Close the connection."""
        client, self._client = self._client, None
        connection, self._socket = self._socket, None
        for part in (client, connection):
            if part is not None:
                with suppress(Exception):
                    part.close()

    def _fetch(self) -> bytes:
        import httpx  # noqa: PLC0415 - 110 ms that the agent's start need not wait for

        source = self._source
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if source.token_file is not None:
            headers["Authorization"] = f"Bearer {_secret(source.token_file)}"
        late = threading.Event()
        watch = threading.Timer(2 * source.timeout, self._cut, (late,))
        watch.daemon = True
        watch.start()
        try:
            if self._client is None:
                self._url = httpx.URL(source.url or "")  # taken apart once
                self._client = self._connect(httpx)
            return self._get(self._client, headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            self.close()  # the next collection reads certificate and CA again
            if late.is_set() or isinstance(error, httpx.TimeoutException):
                raise TimeoutError(f"{source.place} gave no answer within {source.timeout:g} s") from None
            raise ConnectionError(f"{source.place} cannot be read: {error}") from None
        finally:
            watch.cancel()

    def _traced(self, event: str, info: dict[str, Any]) -> None:
        """Keep the socket of a new connection at hand."""
        if event == "connection.connect_tcp.complete":
            if self._socket is not None:
                self._socket.close()
            self._socket = info["return_value"].get_extra_info("socket").dup()

    def _cut(self, late: threading.Event) -> None:
        """End a connection whose server drips, so that no time-out of a single read strikes."""
        late.set()
        connection = self._socket
        if connection is not None:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _connect(self, module: Any) -> httpx.Client:
        source = self._source
        verify: ssl.SSLContext | bool = False
        if (source.url or "").startswith("https:"):
            try:
                verify = ssl.create_default_context(cafile=source.ca)
                if source.certificate is not None:
                    verify.load_cert_chain(source.certificate, source.key)
            except (OSError, ssl.SSLError) as error:
                raise PermissionError(f"ca, certificate or key for {source.place}: {error}") from None
        client: httpx.Client = module.Client(
            verify=verify,
            timeout=source.timeout,
            trust_env=False,  # no proxy and no netrc of the environment comes between
            limits=module.Limits(max_connections=1, keepalive_expiry=300),
            headers={"User-Agent": "openclaw-exporter-http-json"},
        )
        return client

    def _get(self, client: httpx.Client, headers: dict[str, str]) -> bytes:
        """Return the page's body, after redirects within its origin."""
        source = self._source
        deadline = time.monotonic() + source.timeout
        request = client.build_request("GET", self._url or "", headers=headers)
        request.extensions["trace"] = self._traced
        origin = _origin(request.url)
        for _ in range(_MAX_REDIRECTS + 1):
            response = client.send(request, stream=True)
            try:
                if response.status_code not in _REDIRECTS or response.next_request is None:
                    return self._body(response, deadline)
                request = response.next_request
            finally:
                response.close()
            if _origin(request.url) != origin:
                raise ConnectionError(f"{source.place} redirects to another host, which is not followed")
        raise ConnectionError(f"{source.place} redirects more than {_MAX_REDIRECTS} times")

    def _body(self, response: httpx.Response, deadline: float) -> bytes:
        source = self._source
        status = response.status_code
        if status in _REFUSALS:
            raise PermissionError(f"{source.place} refuses the credentials ({status})")
        if status != 200:  # noqa: PLR2004 - HTTP's own word for success with a body
            raise ConnectionError(f"{source.place} answers {status}")
        body = bytearray()
        for chunk in response.iter_raw():
            body += chunk
            if len(body) > source.max_bytes:
                raise ValueError(f"{source.place} is larger than max_bytes = {source.max_bytes}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"{source.place} was not whole within {source.timeout:g} s")
        return bytes(body)


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _secret(path: Path) -> str:
    """Return the token in a file.

    Raises:
        PermissionError: The file cannot be read, or holds no usable token.
    """
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not ASCII"
        raise PermissionError(f"token_file {path} cannot be read: {reason}") from None
    if not text or not text.isprintable() or " " in text:
        raise PermissionError(f"token_file {path} holds no usable token")
    return text
