"""The hot route: `POST /openclaw/availability` without a scope, a task or a future for each request.

Everything that the contract asks is asked in `publishing.py`, as for a request that takes the ordinary way
through the ASGI application. That way is taken by whatever is out of the ordinary: a pipelined request, one
that expects `100 Continue`, one after which the connection ends, a client that does not read its answers, and
a token whose key has to be fetched first.
"""

from __future__ import annotations

import logging
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from openclaw_exporter.errors import StoreUnavailableError, TokenError, WireError
from openclaw_exporter.receiver.answers import Answer, head_of, internal_error, problem_answer
from openclaw_exporter.receiver.heads import Head
from openclaw_exporter.receiver.protocol import HttpProtocol, ListenerState
from openclaw_exporter.receiver.publishing import AVAILABILITY
from openclaw_exporter.wire.heartbeat import MAX_BODY_BYTES

if TYPE_CHECKING:
    from openclaw_exporter.receiver.connection import Connection
    from openclaw_exporter.receiver.liveness import Outcome
    from openclaw_exporter.receiver.publishing import Publishing

_logger = logging.getLogger(__name__)

_PATH: Final = AVAILABILITY.encode()
_SUCCESS: Final = (b"content-type", b"application/json")
_NO_FIELDS: Final[list[tuple[bytes, bytes]]] = []


class _NoEvent:
    """Stands for the event that wakes an ASGI task; there is none."""

    __slots__ = ()

    def set(self) -> None:
        """Wake nobody."""


class HotCycle:
    """One heartbeat on its way, with what uvicorn asks of a request at hand.

    Args:
        protocol: Its connection.
        head: Its header fields.
    """

    __slots__ = (
        "body",
        "disconnected",
        "head",
        "keep_alive",
        "more_body",
        "protocol",
        "response_complete",
        "started",
    )

    message_event: Final = _NoEvent()
    response_started: Final = False

    def __init__(self, protocol: HotProtocol, head: Head) -> None:
        self.protocol = protocol
        self.head = head
        self.body = b""
        self.more_body = True
        self.response_complete = False
        self.disconnected = False
        self.keep_alive = True
        self.started = perf_counter()

    def done(self, outcome: Outcome | None) -> None:
        """Answer; called by the store."""
        self.protocol.answer(self, outcome)


class HotProtocol(HttpProtocol):
    """One connection of the API's listener.

    Args:
        arguments: As for `HttpProtocol`.
        publishing: Decides on heartbeats.
    """

    __slots__ = ("_head", "_hot", "_publishing", "_shared")

    def __init__(self, *arguments: Any, publishing: Publishing, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._publishing = publishing
        self._hot: HotCycle | None = None
        self._head: Head | None = None
        self._shared = cast("HotState", self.server_state)

    def connection_lost(self, exc: Exception | None) -> None:
        """End: a request that has not come as a whole and this object know each other."""
        super().connection_lost(exc)
        self._hot = self._head = None

    def data_received(self, data: bytes | memoryview) -> None:
        """Take what has arrived: without the parser where it has read all but two numbers of it before."""
        is_new = not self._bytes and self._is_idle()
        if is_new and self._head is not None and not self.flow.write_paused:
            request = bytes(data)
            found = self._recognize(self._head, request)
            if found is not None and found[3] <= self._limits.header_bytes:
                self._take(request, *found)
                return
        super().data_received(data)
        if is_new and not self._is_refused and (head := self._head) is not None:
            head.learn(data)
            if self._connection is not None and self._connection.forms is not None:
                self._connection.forms.learn(data, head)

    def _recognize(self, head: Head, request: bytes) -> tuple[Head, bytes, bytes, int] | None:
        """Return what is known of a request by its bytes; see `Forms.find`."""
        if head.stencil is not None:
            found = head.stencil.fits(request)
            if found is None:
                return None
            (length, sequence), body_at = found
            return head, length, sequence, body_at
        forms = cast("Connection", self._connection).forms
        return None if forms is None else forms.find(request)

    def _take(self, request: bytes, head: Head, length: bytes, sequence: bytes, body_at: int) -> None:
        """Decide on a heartbeat whose head is known."""
        head.vary(length, sequence)
        hot = HotCycle(self, head)
        hot.body = request[body_at:]
        hot.more_body = False
        self.cycle = hot  # type: ignore[assignment] # all that uvicorn asks of one
        self._publish(hot)

    def _goes_on(self) -> bool:
        head, self._head = self._head, None
        if head is None:
            return False
        if not (
            self.url == _PATH
            and self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and head.follow(self._fields)
            and head.varying is not None
        ):
            return False
        length, sequence = head.varying
        size = head.size + len(length) + len(sequence)
        if size > self._limits.header_bytes or int(length) > MAX_BODY_BYTES:
            return False
        self._note_head(size)
        self._head = head
        return True

    def _begin(self) -> None:
        head = self._head
        if head is None and self._is_heartbeat():
            head = Head(self._fields)
            if head.settle() and head.varying is not None:
                head.size = self._head_size - sum(map(len, head.varying))
                self._head = head
        cycle = self.cycle
        is_free = (cycle is None or cycle.response_complete) and not self.flow.write_paused
        if head is not None and is_free:
            self.headers = []
            self._hot = HotCycle(self, head)
            self.cycle = self._hot  # type: ignore[assignment] # all that uvicorn asks of one
            return
        self._hot = None
        if head is not None:
            self.headers = head.fields
        super()._begin()

    def _is_heartbeat(self) -> bool:
        """Whether a request whose head breaks no rule is one for the hot route."""
        return (
            self.url == _PATH
            and self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and self.parser.should_keep_alive()
            and not self._expects_continue
        )

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        hot = self._hot
        if hot is None:
            super().on_body(body)
        elif self._fits(len(body)):
            hot.body += body

    def on_message_complete(self) -> None:
        """Decide on a heartbeat that has arrived."""
        hot = self._hot
        if hot is None:
            super().on_message_complete()
        elif not self._is_refused:
            self._hot = None
            self._note_end()
            hot.more_body = False
            self._publish(hot)

    def _publish(self, hot: HotCycle) -> None:
        connection = cast("Connection", self._connection)
        try:
            self._publishing.publish(connection, hot.head, hot.body, hot.done)
        except TokenError as error:
            if error.slug == "token-key-unknown":
                self._give_to_application(hot)
            else:
                self._send(hot, problem_answer(error))
        except (WireError, StoreUnavailableError) as error:
            self._send(hot, problem_answer(error))
        except Exception:
            _logger.exception("a request to %s failed", AVAILABILITY)
            self._send(hot, internal_error())

    def _give_to_application(self, hot: HotCycle) -> None:
        """Let the application answer, which can wait for something."""
        self.cycle = None
        self.headers = hot.head.fields
        super()._begin()
        HttpToolsProtocol.on_body(self, hot.body)
        HttpToolsProtocol.on_message_complete(self)

    def answer(self, hot: HotCycle, outcome: Outcome | None) -> None:
        """Answer a heartbeat whose outcome is stored; None: the store was lost."""
        try:
            if outcome is None:
                raise StoreUnavailableError  # noqa: TRY301 - answered like one that was raised
            body = self._publishing.answer(outcome)
        except (WireError, StoreUnavailableError) as error:
            self._send(hot, problem_answer(error))
        except Exception:
            _logger.exception("a request to %s failed", AVAILABILITY)
            self._send(hot, internal_error())
        else:
            self._send(hot, Answer(200, _NO_FIELDS, body))

    def _send(self, hot: HotCycle, answer: Answer) -> None:
        metrics = self._publishing.metrics
        hot.response_complete = True
        if answer.error:
            metrics.refused(answer.error, answer.status)
        if not hot.disconnected:
            self._write(hot, answer)
        seconds = perf_counter() - hot.started
        metrics.answered("POST", AVAILABILITY, answer, seconds, self.scheme or "")
        if self.pipeline or self.flow.read_paused:
            self.on_response_complete()
        elif self._is_idle():
            self._become_idle()

    def _write(self, hot: HotCycle, answer: Answer) -> None:
        if answer.status == 200 and hot.keep_alive:  # noqa: PLR2004 - OK
            self.transport.write(b"%b%d\r\n\r\n%b" % (self._shared.success, len(answer.body), answer.body))
            return
        fields = answer.fields or [_SUCCESS, (b"content-length", b"%d" % len(answer.body))]
        if not hot.keep_alive:
            fields = [*fields, (b"connection", b"close")]
        head = head_of(STATUS_LINE[answer.status], [*self._shared.default_headers, *fields])
        self.transport.write(head + answer.body)
        if not hot.keep_alive:
            self.transport.close()


class HotState(ListenerState):
    """uvicorn's state of a listener, with the head that most answers begin with.

    Attributes:
        success: Head of a 200, up to the value of its Content-Length.
    """

    success = b""

    def date(self, now: bytes) -> None:
        """Let answers carry a `Date` from now on."""
        self.default_headers = [(b"date", now)]
        head = head_of(STATUS_LINE[200], [*self.default_headers, _SUCCESS])
        self.success = head.removesuffix(b"\r\n") + b"content-length: "
