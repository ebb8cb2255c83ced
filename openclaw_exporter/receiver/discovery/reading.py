"""Answers whoever may read the registry: one method for each operation."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from openclaw_exporter.receiver.answers import Answer, Stream, json_answer, raw_json_answer
from openclaw_exporter.receiver.discovery.capacity import CapacityDesk
from openclaw_exporter.receiver.discovery.document import build_document
from openclaw_exporter.receiver.discovery.events import ALL_EVENTS, DEFAULT_EVENTS, Filter
from openclaw_exporter.receiver.discovery.operations import (
    BY_PATH,
    CAPACITY,
    DOCUMENT,
    EVENTS,
    HISTORY,
    NODE,
    NODES,
    TARGETS,
    WHOLE,
    HistoryEntry,
    NodeHistory,
    NodePage,
)
from openclaw_exporter.receiver.discovery.parameters import read_parameters, read_tags
from openclaw_exporter.receiver.discovery.streaming import FIELDS, stream
from openclaw_exporter.receiver.discovery.targets import Suffixes, target_of
from openclaw_exporter.receiver.liveness import LIVE
from openclaw_exporter.receiver.protocol import PROTOCOL_KEY
from openclaw_exporter.receiver.query import Query, cursor_of, parse_query
from openclaw_exporter.receiver.refusals import RefusedError, query_refusal
from openclaw_exporter.wire.fields import UUID
from openclaw_exporter.wire.timestamps import format_ms

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from openclaw_exporter.receiver.answers import Scope
    from openclaw_exporter.receiver.discovery.events import Hub
    from openclaw_exporter.receiver.discovery.targets import Target
    from openclaw_exporter.receiver.registry import KeyRow
    from openclaw_exporter.receiver.settings import DiscoverySettings
    from openclaw_exporter.receiver.store import Store


MAY_READ_KEY: Final = "openclaw.may_read"
"""What asks once more whether a request's reader may read, in its ASGI scope."""

_RETRY_SECONDS: Final = 30
_LAST_EVENT_ID: Final = b"last-event-id"
_is_node_id = re.compile(UUID).fullmatch


class Reading:
    """Everything that reads.

    Args:
        store: The registry.
        hub: What happens to its nodes.
        settings: The table `[receiver.discovery]`.
    """

    def __init__(self, store: Store, hub: Hub, settings: DiscoverySettings) -> None:
        self._store = store
        self._hub = hub
        self._subscribers = settings.subscribers
        self._suffixes = Suffixes(settings.host_suffixes)
        self._capacity = CapacityDesk(store.scan)
        self._document = b""
        self.handlers: dict[str, Callable[..., Awaitable[Answer | Stream]]] = {
            NODES: self._list,
            NODE: self._show,
            HISTORY: self._history,
            CAPACITY: self._sum,
            EVENTS: self._stream,
            TARGETS: self._targets,
            DOCUMENT: self._describe,
        }

    async def _list(self, scope: Scope) -> Answer:
        page = await self._store.page(parse_query(scope["query_string"]))
        return json_answer(NodePage(page.nodes, cursor_of(page.after) if page.after else None))

    async def _show(self, _scope: Scope, node_id: str) -> Answer:
        node = await self._store.node(node_id)
        if node is None:
            raise RefusedError("node-unknown")
        return json_answer(node)

    async def _history(self, _scope: Scope, node_id: str) -> Answer:
        # A node that only ever sent replays has a history, though it is not known.
        rows = await self._store.history(node_id) if _is_node_id(node_id) else []
        if not rows and await self._store.node(node_id) is None:
            raise RefusedError("node-unknown")
        return json_answer(NodeHistory(node_id, [_entry(row) for row in rows]))

    async def _sum(self, scope: Scope) -> Answer:
        return json_answer(await self._capacity.read(_tags(scope, CAPACITY)))

    async def _targets(self, scope: Scope) -> Answer:
        query = Query(states=frozenset(LIVE), tags=_tags(scope, TARGETS))
        targets: list[Target] = []
        async for states in self._store.scan(query):
            found = (target_of(state, self._suffixes) for state in states)
            targets += [target for target in found if target is not None]
        return json_answer(targets)

    async def _stream(self, scope: Scope) -> Answer | Stream:
        values = read_parameters(scope["query_string"], repeated=BY_PATH[EVENTS].repeated)
        events = frozenset(values.get("event", DEFAULT_EVENTS))
        if not events.issubset(ALL_EVENTS):
            raise query_refusal("event", f"must be one of {', '.join(ALL_EVENTS)}")
        wanted = Filter(events, read_tags(values))
        if scope["method"] == "HEAD":
            return Answer(200, FIELDS, b"")
        if self._hub.closed:
            raise RefusedError("shutting-down", retry_after=1)
        if len(self._hub) >= self._subscribers:
            detail = "there are as many readers of events as receiver.discovery.subscribers allows"
            raise RefusedError("shedding", detail, retry_after=_RETRY_SECONDS)
        last_id = next((value for name, value in scope["headers"] if name == _LAST_EVENT_ID), b"")
        place = last_id.decode("latin-1")
        return Stream(partial(stream, self._hub, wanted, place, scope[PROTOCOL_KEY], scope[MAY_READ_KEY]))

    async def _describe(self, scope: Scope) -> Answer:
        read_parameters(scope["query_string"])
        self._document = self._document or msgspec.json.encode(build_document())
        return raw_json_answer(self._document)


def _tags(scope: Scope, path: str) -> frozenset[str]:
    return read_tags(read_parameters(scope["query_string"], repeated=BY_PATH[path].repeated))


def _entry(row: KeyRow) -> HistoryEntry:
    sequence = None if row.epoch is None else f"{row.epoch}.{row.number}"
    return HistoryEntry(format_ms(row.at_ms), format_ms(row.sent_ms), row.result, sequence)


def find_operation(path: str) -> tuple[str, tuple[str, ...]]:
    """Return the operation's path, and what stands for its parts in braces; an empty path: there is none."""
    if path in WHOLE:
        return path, ()
    parts = path.split("/")
    if path.startswith(NODES + "/") and parts[3]:
        if len(parts) == len(NODE.split("/")):
            return NODE, (parts[3],)
        if parts[4:] == ["history"]:
            return HISTORY, (parts[3],)
    return "", ()
