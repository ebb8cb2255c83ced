"""The receiver's HTTP application: plain ASGI, one method for each route."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from openclaw_exporter.errors import StoreUnavailableError, TokenError, WireError
from openclaw_exporter.receiver.answers import (
    Answer,
    internal_error,
    json_answer,
    problem_answer,
    raw_json_answer,
)
from openclaw_exporter.receiver.protocol import CONNECTION_KEY
from openclaw_exporter.receiver.publishing import AVAILABILITY
from openclaw_exporter.receiver.query import NodeView, cursor_of, parse_query
from openclaw_exporter.receiver.refusals import RefusedError
from openclaw_exporter.wire.fields import UUID
from openclaw_exporter.wire.heartbeat import MAX_BODY_BYTES
from openclaw_exporter.wire.timestamps import format_ms

if TYPE_CHECKING:
    from openclaw_exporter.receiver.keys import KeyRing
    from openclaw_exporter.receiver.liveness import Outcome
    from openclaw_exporter.receiver.publishing import Publishing
    from openclaw_exporter.receiver.registry import KeyRow
    from openclaw_exporter.receiver.store import Store

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_logger = logging.getLogger(__name__)

NODES: Final = "/openclaw/nodes"
NODE: Final = "/openclaw/nodes/{node_id}"
HISTORY: Final = "/openclaw/nodes/{node_id}/history"

is_node_id = re.compile(UUID).fullmatch


class NodePage(msgspec.Struct):
    """The body of `GET /openclaw/nodes`."""

    nodes: list[NodeView]
    next_cursor: str | None


class HistoryEntry(msgspec.Struct):
    """One arrival, as `GET /openclaw/nodes/{node_id}/history` shows it."""

    arrived_at: str
    last_heartbeat: str
    result: str
    sequence: str | None


class NodeHistory(msgspec.Struct):
    """The body of `GET /openclaw/nodes/{node_id}/history`."""

    node_id: str
    history: list[HistoryEntry]


class _Route(NamedTuple):
    template: str
    method: str
    handle: Callable[..., Awaitable[Answer]]
    arguments: tuple[str, ...] = ()

    def check(self, method: str) -> None:
        if method != self.method and not (method == "HEAD" and self.method == "GET"):
            allow = "GET, HEAD" if self.method == "GET" else self.method
            raise RefusedError("method-not-allowed", f"allowed: {allow}", allow=allow)


class Application:
    """The routes of the API.

    Args:
        publishing: Decides on heartbeats.
        store: The registry.
        keys: What vouches for tokens.
    """

    def __init__(self, publishing: Publishing, store: Store, keys: KeyRing) -> None:
        self._publishing = publishing
        self._store = store
        self._keys = keys
        self._metrics = publishing.metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI 3, `http` scopes only)."""
        started = time.perf_counter()
        template = ""
        try:
            self._check_head(scope)
            route = self._find(scope["path"])
            template = route.template
            route.check(scope["method"])
            answer = await route.handle(scope, receive, *route.arguments)
        except _GoneError:
            return
        except (WireError, StoreUnavailableError) as error:
            answer = problem_answer(error)
        except Exception:
            _logger.exception("a request to %s failed", template or "an unknown path")
            answer = internal_error()
        if template == AVAILABILITY and answer.error:
            self._metrics.refused(answer.error, answer.status)
        await send({"type": "http.response.start", "status": answer.status, "headers": answer.fields})
        await send({"type": "http.response.body", "body": answer.body})
        seconds = time.perf_counter() - started
        self._metrics.answered(scope["method"], template, answer, seconds, scope["scheme"])

    def _check_head(self, scope: Scope) -> None:
        """Refuse a request by its header fields alone; none is where certificates are asked for."""

    def _require_reader(self, scope: Scope) -> None:
        speaker = scope[CONNECTION_KEY].speaker(scope["headers"])
        if speaker.identify().identity.role != "reader":
            raise RefusedError("role-not-allowed", "only a reader's certificate may read the registry")

    def _find(self, path: str) -> _Route:
        if path == AVAILABILITY:
            return _Route(AVAILABILITY, "POST", self._publish)
        if path == NODES:
            return _Route(NODES, "GET", self._list)
        parts = path.split("/")
        if path.startswith(NODES + "/") and parts[3]:
            if len(parts) == len(NODE.split("/")):
                return _Route(NODE, "GET", self._show, (parts[3],))
            if parts[4:] == ["history"]:
                return _Route(HISTORY, "GET", self._history, (parts[3],))
        raise RefusedError("not-found")

    async def _publish(self, scope: Scope, receive: Receive) -> Answer:
        body = await _read_body(receive)
        try:
            outcome = await self._record(scope, body)
        except TokenError as error:
            if error.slug != "token-key-unknown" or not await self._keys.refresh(unknown=True):
                raise
            outcome = await self._record(scope, body)
        return raw_json_answer(self._publishing.answer(outcome))

    async def _record(self, scope: Scope, body: bytes) -> Outcome:
        stored: asyncio.Future[Outcome | None] = asyncio.get_running_loop().create_future()
        self._publishing.publish(scope[CONNECTION_KEY], scope["headers"], body, partial(_settle, stored))
        outcome = await stored
        if outcome is None:
            raise StoreUnavailableError
        return outcome

    async def _list(self, scope: Scope, _receive: Receive) -> Answer:
        self._require_reader(scope)
        page = await self._store.page(parse_query(scope["query_string"]))
        return json_answer(NodePage(page.nodes, cursor_of(page.after) if page.after else None))

    async def _show(self, scope: Scope, _receive: Receive, node_id: str) -> Answer:
        self._require_reader(scope)
        node = await self._store.node(node_id)
        if node is None:
            raise RefusedError("node-unknown")
        return json_answer(node)

    async def _history(self, scope: Scope, _receive: Receive, node_id: str) -> Answer:
        self._require_reader(scope)
        # A node that only ever sent replays has a history, though it is not known.
        rows = await self._store.history(node_id) if is_node_id(node_id) else []
        if not rows and await self._store.node(node_id) is None:
            raise RefusedError("node-unknown")
        return json_answer(NodeHistory(node_id, [_entry(row) for row in rows]))


class _GoneError(Exception):
    """The client has gone; there is nobody to answer."""


def _settle(future: asyncio.Future[Outcome | None], outcome: Outcome | None) -> None:
    # The request may have been given up.
    if not future.done():
        future.set_result(outcome)


def _entry(row: KeyRow) -> HistoryEntry:
    sequence = None if row.epoch is None else f"{row.epoch}.{row.number}"
    return HistoryEntry(format_ms(row.at_ms), format_ms(row.sent_ms), row.result, sequence)


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
