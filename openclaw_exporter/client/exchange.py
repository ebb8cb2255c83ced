"""One HTTP exchange: what is sent, what comes back, and why nothing does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Field = tuple[bytes, bytes]


class NoAnswerError(Exception):
    """There is no answer. The cause, where there is one, is the system's or OpenSSL's error."""


class TimedOutError(NoAnswerError):
    """Connecting, writing or reading took too long."""


class UnreachableError(NoAnswerError):
    """No connection came about."""


class BrokenError(NoAnswerError):
    """The connection broke, or was closed before an answer."""


class ProtocolError(NoAnswerError):
    """What came back is no HTTP/1.1, or what was to be sent is none."""


class ProxyError(NoAnswerError):
    """The proxy did not connect us; the text is its status."""


class Request(msgspec.Struct, frozen=True):
    """What is sent.

    Attributes:
        method: `GET` or `POST`.
        target: The path with its query.
        fields: The header, `Host` and the content's length included.
        body: The content.
        connect_timeout: Seconds for a new connection, TLS included.
        silence: Seconds for which the receiver may take nothing and say nothing.
    """

    method: str
    target: str
    fields: Mapping[str, str]
    body: bytes = b""
    connect_timeout: float = 10.0
    silence: float = 10.0


class Response:
    """An answer whose body is still to be read.

    Args:
        status: The status code.
        fields: The header.
        content: The body, as it comes.
        close: Ends the exchange.
    """

    def __init__(
        self,
        status: int,
        fields: Iterable[Field] = (),
        content: Iterable[bytes] = (),
        close: Callable[[], None] | None = None,
    ) -> None:
        self.status = status
        self.fields = list(fields)
        self._content = content
        self._close = close

    def pieces(self) -> Iterator[bytes]:
        """Yield the body as it comes, once; raise a `NoAnswerError` where it breaks off."""
        yield from self._content

    def read(self) -> bytes:
        """Return the whole body."""
        return b"".join(self.pieces())

    def close(self) -> None:
        """End the exchange: the connection is kept if the body was read to its end."""
        if self._close is not None:
            self._close()


class Transport(Protocol):
    """What sends requests: a `KeptTransport`, or whatever stands in for one."""

    def handle_request(self, request: Request) -> Response:
        """Send a request and return the answer, its body not read yet; raise `NoAnswerError` or `OSError`."""
        ...
