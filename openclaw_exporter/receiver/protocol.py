"""HTTP for clients that one does not trust: uvicorn's httptools protocol with deadlines and limits.

What uvicorn leaves open is closed here: how many bytes a head and a body may have and how long they may take,
what happens to a connection that broke a rule (it is answered, read no further, and soon aborted), when a
connection ends with its certificate, and the client's certificate in the ASGI scope.
"""

from __future__ import annotations

import time
from enum import Enum
from typing import TYPE_CHECKING, Final, cast

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from openclaw_exporter.receiver.answers import head_of, problem_answer
from openclaw_exporter.receiver.connection import Connection
from openclaw_exporter.receiver.refusals import RefusedError, SheddingError
from openclaw_exporter.wire.heartbeat import MAX_BODY_BYTES

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from uvicorn import Config

    from openclaw_exporter.receiver.heads import Field
    from openclaw_exporter.receiver.settings import LimitSettings
    from openclaw_exporter.receiver.trust import Trust
    from openclaw_exporter.wire.tokens import Verifier

CONNECTION_KEY: Final = "openclaw.connection"
"""The `Connection` of a request, in its ASGI scope."""

PROTOCOL_KEY: Final = "openclaw.protocol"
"""The `HttpProtocol` of a request, in its ASGI scope."""

PIECE: Final = 4096
"""The most that is read of a connection at once, and so beyond any limit."""

_MAX_FRAMED_BYTES: Final = MAX_BODY_BYTES + PIECE
"""The most that is read of a body, its chunk sizes, extensions and trailers with it."""

LINGER_SECONDS: Final = 1.0
"""How long a refused connection stays open, unread, so that the answer arrives before the reset."""


GRACE_SECONDS: Final = 15.0
"""How long a refused connection waits for the answer to the request before."""


_JUDGED: Final = frozenset({b"host", b"content-length", b"transfer-encoding", b"expect"})


class _Part(Enum):
    NOTHING = "between two requests"
    HEAD = "request line and headers"
    BODY = "body"


_NOTHING, _HEAD, _BODY = _Part


class ListenerState(ServerState):
    """uvicorn's state of a listener.

    Attributes:
        generation: A connection that was accepted in an earlier one is not taken when its handshake is done.
    """

    generation = 0


class HttpProtocol(HttpToolsProtocol):
    """One connection.

    Args:
        config: uvicorn's, loaded.
        server_state: uvicorn's, of this listener.
        limits: The table `[receiver.limits]`.
        trust: Who is believed; None on a listener without TLS.
        refused: Called with the slug and status of each request that is refused here.
        turn_away: Returns after how many seconds one connection too many may come back.
    """

    # With uvicorn's there would be more than the 30 that CPython keeps without a dictionary for each object.
    __slots__ = (
        "_asked",
        "_bytes",
        "_connection",
        "_content",
        "_deadline",
        "_expects_continue",
        "_fields",
        "_generation",
        "_head_size",
        "_idle_since",
        "_is_refused",
        "_last",
        "_limits",
        "_note_refused",
        "_part",
        "_piece",
        "_trust",
        "_turn_away",
        "on_shutdown",
    )

    def __init__(
        self,
        config: Config,
        server_state: ListenerState,
        *,
        limits: LimitSettings,
        trust: Trust | None,
        refused: Callable[[str, int], None],
        turn_away: Callable[[], int],
    ) -> None:
        super().__init__(config, server_state, {})
        self._generation = server_state.generation
        self.cycle: RequestResponseCycle | None = None  # type: ignore[assignment] # uvicorn hides the None
        self._limits = limits
        self._trust = trust
        self._note_refused = refused
        self._turn_away = turn_away
        self._part = _NOTHING
        self._bytes = 0
        self._piece = 0
        self._content = 0
        self._head_size = 0
        self._fields: list[Field] = []
        self._is_refused = False
        self._connection: Connection | None = None
        self._asked: list[RequestResponseCycle] = []
        self._expects_continue = False
        self.on_shutdown: Callable[[], None] | None = None
        self._idle_since = 0.0
        self._deadline: asyncio.TimerHandle | None = None
        self._last: asyncio.TimerHandle | None = None

    @property
    def room(self) -> int:
        """How many bytes may be read at once, 1 to `PIECE`."""
        return max(1, min(PIECE, _MAX_FRAMED_BYTES - self._bytes)) if self._part is _BODY else PIECE

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in uvicorn
        """Begin."""
        super().connection_made(transport)
        if self._generation != cast("ListenerState", self.server_state).generation:
            # Its handshake began when other authorities were believed.
            transport.abort()
            return
        if len(self.connections) > self._limits.connections:
            self.refuse(SheddingError("there are too many connections", retry_after=self._turn_away()))
            return
        self._deadline = self.loop.call_later(self._limits.header_timeout, self._time_out)

    def connection_lost(self, exc: Exception | None) -> None:
        """End: nothing may keep the connection's objects alive for longer."""
        self._disarm()
        # uvicorn leaves this one where the connection was reset.
        self._unset_keepalive_if_required()
        if self._last is not None:
            self._last.cancel()
            self._last = None
        # uvicorn tells the newest request alone; one before it may be a stream that goes on.
        for cycle in self._asked:
            cycle.disconnected = True
            cycle.message_event.set()
        self._asked.clear()
        super().connection_lost(exc)
        # Both know this object. What is left in a circle keeps its TLS state, 40 KiB that the cycle collector
        # does not count, until that comes by.
        self.pipeline.clear()
        self.cycle = None
        self.scope = None  # type: ignore[assignment] # as before the first request

    def shutdown(self) -> None:
        """End after the request at hand; one that would go on for ever is told by `on_shutdown`."""
        super().shutdown()
        if self.on_shutdown is not None:
            self.on_shutdown()

    def data_received(self, data: bytes | memoryview) -> None:
        """Parse what has arrived."""
        if self._is_refused or self.parser is None:
            return
        self._piece = len(data)
        self._bytes += self._piece
        try:
            self.parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            # The parser's own words are not repeated: they may hold a piece of the request.
            self.refuse(RefusedError("bad-request"))
        else:
            self._check_progress()

    def on_message_begin(self) -> None:
        """Note a new request; what uvicorn makes for it is made once it is known to need that."""
        self._part = _HEAD
        self._bytes = self._piece
        self.url = b""
        self._fields = []
        if self._connection is None:
            self._look_at_certificate()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note a header; a trailer behind a chunked body finds nobody who reads it."""
        self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        """Start the request, unless its head breaks a rule."""
        if self._is_refused:
            return
        if self._deadline is not None:
            self._disarm()
        refusal = None if self._goes_on() else self._judge_head()
        self._part = _BODY
        self._content = 0
        if refusal is None:
            self._begin()
        else:
            self.refuse(refusal, started=False)

    def _goes_on(self) -> bool:
        """Whether a complete head is like the one before, which broke no rule; its size is noted then."""
        return False

    def _begin(self) -> None:
        """Give the request to the application."""
        url, headers = self.url, self.headers
        super().on_message_begin()
        self.url = url
        # The scope has this list already.
        self.headers += headers
        self.expect_100_continue = self._expects_continue
        self.scope[CONNECTION_KEY] = self._connection  # type: ignore[typeddict-unknown-key] # ours
        self.scope[PROTOCOL_KEY] = self  # type: ignore[typeddict-unknown-key] # ours
        self.scope["extensions"] = self._connection.extensions  # type: ignore[union-attr] # looked at before
        super().on_headers_complete()
        self._asked = [cycle for cycle in self._asked if not cycle.response_complete]
        if self.cycle is not None:
            self._asked.append(self.cycle)

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        if self._fits(len(body)):
            super().on_body(body)

    def _fits(self, size: int) -> bool:
        """Count a piece of the body; return whether it may be taken."""
        if self._is_refused:
            return False
        self._content += size
        if self._content > MAX_BODY_BYTES:
            self.refuse(_too_large())
            return False
        return True

    def on_message_complete(self) -> None:
        """Note the end of a request."""
        if self._is_refused:
            return
        self._note_end()
        super().on_message_complete()

    def _note_end(self) -> None:
        if self._deadline is not None:
            self._disarm()
        self._part = _NOTHING
        # What has come of the next request with the end of this one.
        self._piece = min(self._piece, max(0, self._bytes - self._content))
        self._bytes = 0

    def on_response_complete(self) -> None:
        """Go on with the next request, or begin to be idle."""
        super().on_response_complete()
        self._idle_since = self.loop.time()

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that has been idle for long enough; a busy one gets a timer when it is idle."""
        self.timeout_keep_alive_task = None
        if not self._is_idle():
            return
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self.timeout_keep_alive_task = self.loop.call_later(left, self.timeout_keep_alive_handler)
        else:
            super().timeout_keep_alive_handler()

    def _is_idle(self) -> bool:
        answered = self.cycle is None or self.cycle.response_complete
        return answered and self._part is _NOTHING and not self._is_refused

    def _become_idle(self) -> None:
        """Note that nothing is asked now. One timer serves many requests: it is early, and looks again."""
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None and not self.transport.is_closing():
            keep_alive = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)
            self.timeout_keep_alive_task = keep_alive

    def recheck(self, verifier: Verifier | None) -> bool:
        """Look again at who is connected; return whether the connection has to end. See `Connection`."""
        return self._connection is not None and self._connection.recheck(verifier)

    def refuse(self, refusal: RefusedError, *, started: bool = True) -> None:
        """Answer with a problem document, read no further, and abort the connection soon.

        Args:
            refusal: Why.
            started: Whether the request at hand, if its body was due, has been given to the application.
        """
        if self._is_refused:
            return
        self._is_refused = True
        self._disarm()
        self._unset_keepalive_if_required()
        answer = problem_answer(refusal)
        self._note_refused(answer.error, answer.status)
        if self._may_answer(started=started):
            fields = [*self.server_state.default_headers, *answer.fields, (b"connection", b"close")]
            self.transport.write(head_of(STATUS_LINE[answer.status], fields) + answer.body)
        self.flow.pause_reading()
        # close() would read on until the peer has said good-bye: that is what a flood waits for.
        self._deadline = self.loop.call_later(self._end_cycle(), self.transport.abort)

    def _end_cycle(self) -> float:
        """End the application's part of a refused connection; return how long it may go on, seconds."""
        if self.cycle is None or self.cycle.response_complete:
            return LINGER_SECONDS
        if not self.cycle.more_body and not self.pipeline:
            # A whole request came before the one that breaks a rule, and its answer is still due.
            self.cycle.keep_alive = False
            return GRACE_SECONDS
        self.cycle.disconnected = True
        self.cycle.message_event.set()
        return LINGER_SECONDS

    def _may_answer(self, *, started: bool) -> bool:
        """Whether the request at hand is the one whose answer is due, and none has begun."""
        if self.cycle is None or self.cycle.response_complete:
            return True
        in_hand = started and self._part is _BODY
        return in_hand and not self.pipeline and not self.cycle.response_started

    def _judge_head(self) -> RefusedError | None:
        """Return why a complete head is refused, having told its bytes from those of the body."""
        self.headers = [(name.lower(), value) for name, value in self._fields]
        # In its usual form: no more spaces than it needs.
        size = len(self.parser.get_method()) + len(self.url) + len(b"  HTTP/1.1\r\n\r\n")
        size += 4 * len(self.headers)
        hosts = length = 0
        codings = []
        self._expects_continue = False
        for name, value in self.headers:
            size += len(name) + len(value)
            if name not in _JUDGED:
                continue
            if name == b"host":
                hosts += 1
            elif name == b"content-length":
                length = int(value)
            elif name == b"transfer-encoding":
                codings.append(value.strip().lower())
            elif name == b"expect":
                self._expects_continue = value.lower() == b"100-continue"
        self._note_head(size)
        if size > self._limits.header_bytes:
            return self._head_too_large()
        if length > MAX_BODY_BYTES:
            return _too_large()
        return self._judge_form(hosts, codings)

    def _note_head(self, size: int) -> None:
        """Note how many bytes a head has."""
        self._head_size = size
        # What has come of the body with the end of the head.
        self._bytes = max(0, self._bytes - size)

    def _judge_form(self, hosts: int, codings: list[bytes]) -> RefusedError | None:
        if self.parser.should_upgrade():
            return RefusedError("bad-request", "upgrades are not offered")
        version = self.parser.get_http_version()
        if version not in ("1.1", "1.0"):
            return RefusedError("bad-request", "only HTTP/1.1 is spoken here")
        # RFC 9112, 6.1: no other coding is understood here, and HTTP/1.0 has none.
        if codings and (codings != [b"chunked"] or version == "1.0"):
            return RefusedError("bad-request", "the only transfer coding is chunked, once, in HTTP/1.1")
        # RFC 9112, 3.2.
        if hosts != 1 and version == "1.1":
            return RefusedError("bad-request", "exactly one Host is needed")
        return None

    def _head_too_large(self) -> RefusedError:
        return RefusedError("headers-too-large", f"at most {self._limits.header_bytes} bytes")

    def _check_progress(self) -> None:
        """After each piece: is the part at hand too large, and by when must it be complete?"""
        if self._is_refused:
            return
        # The piece may have begun with the end of the request before.
        if self._part is not _BODY and self._bytes > self._limits.header_bytes + PIECE:
            self.refuse(self._head_too_large())
        elif self._part is _NOTHING:
            if self._is_idle():
                self._become_idle()
        elif self._part is _BODY and self._bytes >= _MAX_FRAMED_BYTES:
            self.refuse(_too_large())
        elif self._deadline is None:
            head = self._part is _HEAD
            seconds = self._limits.header_timeout if head else self._limits.body_timeout
            self._deadline = self.loop.call_later(seconds, self._time_out)

    def _time_out(self) -> None:
        self._deadline = None
        if self._part is _NOTHING:
            # Nobody has asked anything yet.
            self.transport.abort()
        else:
            self.refuse(RefusedError("request-timeout", f"the {self._part.value} took too long"))

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _look_at_certificate(self) -> None:
        self._connection = Connection(self.transport, self._trust)
        not_after = self._connection.not_after
        if not_after is not None:
            self._last = self.loop.call_later(max(0.0, not_after - time.time()), self.shutdown)


def _too_large() -> RefusedError:
    return RefusedError("body-too-large", f"at most {MAX_BODY_BYTES} bytes")
