"""The receiver's HTTP application: plain ASGI, one method for each route."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING

from openclaw_exporter.errors import StoreUnavailableError, TokenError, WireError
from openclaw_exporter.receiver.answers import Answer, Stream, internal_error, problem_answer, raw_json_answer
from openclaw_exporter.receiver.discovery.operations import BY_PATH
from openclaw_exporter.receiver.discovery.reading import MAY_READ_KEY, find_operation
from openclaw_exporter.receiver.heads import Head
from openclaw_exporter.receiver.protocol import CONNECTION_KEY
from openclaw_exporter.receiver.publishing import AVAILABILITY
from openclaw_exporter.receiver.refusals import RefusedError
from openclaw_exporter.wire.heartbeat import MAX_BODY_BYTES

if TYPE_CHECKING:
    from openclaw_exporter.receiver.answers import Handlers, Receive, Scope, Send
    from openclaw_exporter.receiver.keys import KeyRing
    from openclaw_exporter.receiver.publishing import Publishing

_logger = logging.getLogger(__name__)


class Application:
    """The routes of the API.

    Args:
        publishing: Decides on heartbeats.
        handlers: What answers readers.
        keys: What vouches for tokens.
    """

    def __init__(self, publishing: Publishing, handlers: Handlers, keys: KeyRing) -> None:
        self._publishing = publishing
        self._handlers = handlers
        self._keys = keys
        self._metrics = publishing.metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI 3, `http` scopes only)."""
        started = time.perf_counter()
        template = ""
        answer: Answer | Stream
        try:
            self._check_head(scope)
            template, arguments = find_operation(scope["path"])
            answer = await self._answer(scope, receive, template, arguments)
        except _GoneError:
            return
        except (WireError, StoreUnavailableError) as error:
            answer = problem_answer(error)
        except Exception:
            _logger.exception("a request to %s failed", template or "an unknown path")
            answer = internal_error()
        if isinstance(answer, Stream):
            await answer.run(receive, send)
            return
        if template == AVAILABILITY and answer.error:
            self._metrics.refused(answer.error, answer.status)
        await send({"type": "http.response.start", "status": answer.status, "headers": answer.fields})
        await send({"type": "http.response.body", "body": answer.body})
        seconds = time.perf_counter() - started
        self._metrics.answered(scope["method"], template, answer, seconds, scope["scheme"])

    def _check_head(self, scope: Scope) -> None:
        """Refuse a request by its header fields alone; none is where certificates are asked for."""

    def _require_reader(self, scope: Scope) -> None:
        speaker = scope[CONNECTION_KEY].speaker(Head(scope["headers"]))
        if speaker.identify().identity.role != "reader":
            raise RefusedError("role-not-allowed", "only a reader's certificate may read the registry")

    async def _answer(
        self, scope: Scope, receive: Receive, template: str, arguments: tuple[str, ...]
    ) -> Answer | Stream:
        if not template:
            raise RefusedError("not-found")
        method = BY_PATH[template].method
        if scope["method"] != method and not (scope["method"] == "HEAD" and method == "GET"):
            allow = "GET, HEAD" if method == "GET" else method
            raise RefusedError("method-not-allowed", f"allowed: {allow}", allow=allow)
        if template == AVAILABILITY:
            return await self._publish(scope, receive)
        self._require_reader(scope)
        scope[MAY_READ_KEY] = partial(self._require_reader, scope)
        return await self._handlers[template](scope, *arguments)

    async def _publish(self, scope: Scope, receive: Receive) -> Answer:
        heartbeat = scope[CONNECTION_KEY], Head(scope["headers"]), await _read_body(receive)
        try:
            outcome = await self._publishing.record(*heartbeat)
        except TokenError as error:
            if error.slug != "token-key-unknown" or not await self._keys.refresh(unknown=True):
                raise
            outcome = await self._publishing.record(*heartbeat)
        return raw_json_answer(self._publishing.answer(outcome))


class _GoneError(Exception):
    """The client has gone; there is nobody to answer."""


async def _read_body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _GoneError
        body += message["body"]
        # The protocol has a limit of its own; this one holds under any server.
        if len(body) > MAX_BODY_BYTES:
            raise RefusedError("body-too-large", f"at most {MAX_BODY_BYTES} bytes")
        if not message.get("more_body", False):
            return bytes(body)
