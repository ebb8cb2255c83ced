"""Questions to the registry: `GET /openclaw/nodes` and what it shows of a node."""

from __future__ import annotations

import asyncio
import binascii
import heapq
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Final
from uuid import UUID

import msgspec

from openclaw_exporter.receiver.discovery.index import EXACT, each, level_of
from openclaw_exporter.receiver.discovery.parameters import read_parameters, read_tags
from openclaw_exporter.receiver.liveness import LAPSED, LIVE, STATES, State, expires_ms
from openclaw_exporter.receiver.refusals import query_refusal
from openclaw_exporter.receiver.store import Page
from openclaw_exporter.wire.timestamps import format_ms

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from openclaw_exporter.receiver.discovery.index import Members
    from openclaw_exporter.receiver.listening import Moment
    from openclaw_exporter.receiver.liveness import NodeState
    from openclaw_exporter.receiver.registry import Registry

DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 1000
MAX_INTEGER: Final = 2**53 - 1
_SCAN: Final = 2000
"""Nodes looked at before the event loop gets its turn; about 1 ms."""

_BEST = "-available_slots"
_SINGLE = ("min_available_slots", "limit", "cursor", "sort")


class NodeView(msgspec.Struct, kw_only=True):
    """One node, as the API shows it.

    Attributes:
        node_id: The node.
        state: `up`, `late`, `suspect`, `expired`, `draining` or `offline`.
        reason: Why, in words.
        first_seen: Arrival of its first live heartbeat, RFC 3339.
        last_seen: Arrival of its last live heartbeat, RFC 3339.
        expires_at: When it expires if nothing more is heard, or did, RFC 3339.
        interval_seconds: Its effective interval.
        clock_skew_seconds: Its clock minus the receiver's, at its last live heartbeat.
        heartbeat: Its current heartbeat.
    """

    node_id: str
    state: State
    reason: str
    first_seen: str
    last_seen: str
    expires_at: str
    interval_seconds: int
    clock_skew_seconds: float
    heartbeat: msgspec.Raw


@dataclass(frozen=True, slots=True)
class Query:
    """Which nodes, and how many.

    Attributes:
        states: Nodes in any of these states; empty: in any.
        tags: Nodes that have all of these tags.
        min_slots: Nodes that offer at least so many slots. Only live nodes offer any.
        limit: At most so many.
        after: Only nodes behind this node_id.
        best: Those that offer the most slots first, instead of by node_id.
    """

    states: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()
    min_slots: int = 0
    limit: int = DEFAULT_LIMIT
    after: str | None = None
    best: bool = False

    def matches(self, state: NodeState) -> bool:
        """Whether a node is asked for, its place in the order apart."""
        if self.states and state.state not in self.states:
            return False
        if self.min_slots and offered_slots(state) < self.min_slots:
            return False
        return not self.tags or self.tags.issubset(state.tags)


def offered_slots(state: NodeState) -> int:
    """Return the slots that a node offers: none unless it is live, for a draining node offers no capacity."""
    return state.slots if state.state in LIVE else 0


def parse_query(query_string: bytes) -> Query:
    """Read the query string of `GET /openclaw/nodes`.

    Raises:
        RefusedError: 400: a parameter is unknown or not valid; the document names it.
    """
    return _read(read_parameters(query_string, single=_SINGLE, repeated=("state", "tag")))


def _read(values: dict[str, list[str]]) -> Query:
    for state in values.get("state", ()):
        if state not in STATES:
            raise query_refusal("state", f"must be one of {', '.join(STATES)}")
    best = "sort" in values
    if best and values["sort"] != [_BEST]:
        raise query_refusal("sort", f"must be {_BEST}, or be left out")
    if best and "cursor" in values:
        raise query_refusal("cursor", "has no meaning beside sort")
    return Query(
        states=frozenset(values.get("state", ())),
        tags=read_tags(values),
        min_slots=_integer(values, "min_available_slots", 0, 0, MAX_INTEGER),
        limit=_integer(values, "limit", DEFAULT_LIMIT, 1, MAX_LIMIT),
        after=_after(values["cursor"][0]) if "cursor" in values else None,
        best=best,
    )


def _integer(values: dict[str, list[str]], name: str, default: int, least: int, greatest: int) -> int:
    if name not in values:
        return default
    text = values[name][0]
    # Python's own int() takes signs, spaces, underscores and digits of other scripts.
    if text.isascii() and text.isdigit() and len(text) <= len(str(greatest)):
        number = int(text)
        if least <= number <= greatest:
            return number
    raise query_refusal(name, f"must be a whole number of {least} to {greatest}")


def cursor_of(node_id: str) -> str:
    """Return the cursor of the page behind a node."""
    return urlsafe_b64encode(UUID(node_id).bytes).rstrip(b"=").decode()


def _after(cursor: str) -> str:
    try:
        node_id = str(UUID(bytes=urlsafe_b64decode(cursor.encode("ascii") + b"==")))
    except (ValueError, binascii.Error):
        node_id = ""
    if not node_id or cursor_of(node_id) != cursor:
        raise query_refusal("cursor", "not one that this receiver gave")
    return node_id


async def select(registry: Registry, query: Query) -> Page:
    """Answer a query from memory, in slices between which the event loop goes on."""
    if query.best:
        return await _select_best(registry, query)
    index = registry.index
    is_plain = not (query.states or query.tags or query.min_slots)
    levels = {} if is_plain else await index.find(query)
    groups = None if is_plain else chain.from_iterable(levels.values())
    states, after = await index.first(groups, query.matches, after=query.after, limit=query.limit)
    return _page(states, registry, after)


async def _select_best(registry: Registry, query: Query) -> Page:
    levels = await registry.index.find(query)
    best: list[NodeState] = []
    for level in sorted(levels, reverse=True):
        missing = query.limit - len(best)
        if not missing:
            break
        best += await _best_of(registry, query, level, levels[level], missing)
    return _page(best, registry, None)


async def _best_of(
    registry: Registry, query: Query, level: int, groups: list[Members], limit: int
) -> list[NodeState]:
    """Return the best of those that are on one level: by slots, and by node_id where they offer the same."""

    def wants(state: NodeState) -> bool:
        return query.matches(state) and level_of(offered_slots(state)) == level

    if level <= EXACT:
        states, _ = await registry.index.first(groups, wants, after=None, limit=limit, is_bounded=False)
        return states
    best: list[tuple[int, str, NodeState]] = []
    ids = [one for group in groups for one in each(group)]
    for start in range(0, len(ids), _SCAN):
        found = (registry.nodes.get(one) for one in ids[start : start + _SCAN])
        keyed = [
            (-state.slots, state.node_id, state) for state in found if state is not None and wants(state)
        ]
        best = heapq.nsmallest(limit, best + keyed)
        await asyncio.sleep(0)
    return [state for _, _, state in best]


async def scan(registry: Registry, query: Query) -> AsyncIterator[list[NodeState]]:
    """Yield all nodes that a query asks for, whatever its limit, in slices of those that there were."""
    states = list(registry.nodes.values())
    for start in range(0, len(states), _SCAN):
        yield [state for state in states[start : start + _SCAN] if query.matches(state)]
        await asyncio.sleep(0)


def _page(states: Iterable[NodeState], registry: Registry, after: str | None) -> Page:
    at = registry.listening.read()
    return Page([view(state, at) for state in states], after)


def view(state: NodeState, at: Moment) -> NodeView:
    """Return what the API shows of a node."""
    return NodeView(
        node_id=state.node_id,
        state=state.state,
        reason=_reason(state, at),
        first_seen=format_ms(state.first_seen_ms),
        last_seen=format_ms(state.last_seen_ms),
        expires_at=format_ms(expires_ms(state, at)),
        interval_seconds=state.interval,
        clock_skew_seconds=state.skew_ms / 1000,
        heartbeat=msgspec.Raw(state.payload),
    )


def _reason(state: NodeState, at: Moment) -> str:
    until = state.lapsed_at if state.state in LAPSED else at.seconds
    silence = f"{until - state.heard_at:.0f} s of listening time, its interval is {state.interval} s"
    return {
        "up": f"heard within the last {silence}",
        "late": f"not heard for {silence}",
        "suspect": f"not heard for {silence}, but most of the fleet fell silent with it",
        "expired": f"was not heard for {silence}",
        "draining": f"said that it leaves; heard within the last {silence}",
        "offline": f"said that it leaves, then was not heard for {silence}",
    }[state.state]
