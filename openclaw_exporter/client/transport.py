"""One kept HTTP/1.1 connection: h11 reads and writes, the sockets are ours.

httpx and its httpcore would do it, but import three times as much, and limit each operation instead of the
exchange.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import h11

from openclaw_exporter.client.exchange import (
    BrokenError,
    NoAnswerError,
    ProtocolError,
    ProxyError,
    Request,
    Response,
    Transport,
)
from openclaw_exporter.client.network import Network

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

    from openclaw_exporter.client.network import Stream

__all__ = ["NO_ANSWER", "KeptTransport", "Transport"]

NO_ANSWER: Final = (NoAnswerError, OSError)
"""What `handle_request` raises where there is no answer."""

_PORTS: Final = {"http": 80, "https": 443}
_MAX_HEADER: Final = 100 * 1024
_SWITCHED: Final = 101


class KeptTransport:
    """One connection to the receiver, kept between requests. For one thread at a time.

    Args:
        url: Where the receiver is.
        context: How to authenticate the receiver, and this node to it; None for `http://` alone.
        keep: Seconds for which an idle connection is kept.
        proxy: URL of an HTTP proxy that is asked for a tunnel; empty for none.
    """

    def __init__(self, url: str, context: ssl.SSLContext | None, *, keep: float, proxy: str = "") -> None:
        self.network = Network()
        self._host, self._port = _place(url)
        self._proxy = _place(proxy) if proxy else None
        self._context = context if urlsplit(url).scheme == "https" else None
        self._keep = keep
        self._connection: _Connection | None = None
        if self._context is not None:
            self._context.set_alpn_protocols(["http/1.1"])

    def handle_request(self, request: Request) -> Response:
        """Send a request and return the answer, its body not read yet; raise one of `NO_ANSWER`."""
        connection = self._connection
        if connection is None or not connection.usable:
            self.close()
            connection = self._connection = self._connect(request.connect_timeout)
        return connection.exchange(request)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self, timeout: float) -> _Connection:
        stream = self.network.connect(*(self._proxy or (self._host, self._port)), timeout)
        if self._proxy is not None:
            self._tunnel(stream, timeout)
        if self._context is not None:
            stream = self.network.secure(stream, self._context, self._host)
        return _Connection(stream, self._keep)

    def _tunnel(self, stream: Stream, timeout: float) -> None:
        """Ask the proxy for the way to the receiver (RFC 9110, 9.3.6)."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        target = f"{host}:{self._port}"
        asked = Request("CONNECT", target, {"Host": target, "Accept": "*/*"}, silence=timeout)
        answer = _Connection(stream, self._keep).exchange(asked)
        if not 200 <= answer.status < 300:  # noqa: PLR2004 - the classes of RFC 9110 are known by their numbers
            stream.close()
            raise ProxyError(str(answer.status))


class _Connection:
    """HTTP/1.1 over one stream."""

    def __init__(self, stream: Stream, keep: float) -> None:
        self._stream = stream
        self._keep = keep
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEADER)
        self._idle_until = time.monotonic() + keep
        self._is_busy = False

    @property
    def usable(self) -> bool:
        """Whether a request may go out: nothing is under way, it is not too old, and the peer is there."""
        return not self._is_busy and time.monotonic() <= self._idle_until and not self._stream.has_news()

    def exchange(self, request: Request) -> Response:
        """Send a request and read the head of its answer."""
        self._is_busy = True
        try:
            self._send(request)
            head = self._head(request.silence)
        except BaseException:
            self.close()
            raise
        fields = list(head.headers)
        return Response(head.status_code, fields, self._body(request.silence), self._ended)

    def close(self) -> None:
        """Close the connection."""
        self._is_busy = True
        self._stream.close()

    def _send(self, request: Request) -> None:
        fields = [(name.encode(), value.encode()) for name, value in request.fields.items()]
        send = self._http.send
        try:
            content = send(h11.Request(method=request.method, target=request.target, headers=fields))
            if request.body:
                content += send(h11.Data(data=request.body))
            content += send(h11.EndOfMessage())
        except h11.LocalProtocolError as error:
            raise ProtocolError(str(error)) from error
        try:
            self._stream.write(content, request.silence)
        except BrokenError:
            # A receiver may answer and close before it has read everything: the answer is still to be had.
            return

    def _head(self, silence: float) -> h11.Response | h11.InformationalResponse:
        while True:
            event = self._event(silence)
            if isinstance(event, h11.Response):
                return event
            if isinstance(event, h11.InformationalResponse) and event.status_code == _SWITCHED:
                return event

    def _body(self, silence: float) -> Iterator[bytes]:
        while isinstance(event := self._event(silence), h11.Data):
            yield bytes(event.data)

    def _event(self, silence: float) -> h11.Event | type[h11.PAUSED]:
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                raise ProtocolError(str(error)) from error
            if event is not h11.NEED_DATA:
                return event  # type: ignore[return-value] # h11's sentinels are classes
            content = self._stream.read(silence)
            if not content and self._http.their_state is h11.SEND_RESPONSE:
                raise BrokenError("the connection was closed without an answer")
            self._http.receive_data(content)

    def _ended(self) -> None:
        """Be ready for the next exchange, or close where this one is not at its end."""
        done = self._http.our_state is h11.DONE and self._http.their_state is h11.DONE
        # What came behind the answer would pass for the answer to the next request.
        if done and not self._http.trailing_data[0]:
            self._http.start_next_cycle()
            self._idle_until = time.monotonic() + self._keep
            self._is_busy = False
        else:
            self.close()


def _place(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)
