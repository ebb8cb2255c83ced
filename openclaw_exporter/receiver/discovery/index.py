"""Where nodes are found without looking at all of them: in order of their ids, and by state, tags and slots.

Nodes with the same tags, state and free slots are one group, and a query is answered by whole groups: how
many nodes match is known before one of them is looked at. Of few matches all are collected and the first
taken; of many the ids are walked along in order, and enough of them come soon. Each node is in one group and
costs it one entry of a set.
"""

from __future__ import annotations

import asyncio
import heapq
from itertools import islice
from typing import TYPE_CHECKING, Final

from sortedcontainers import SortedList

from openclaw_exporter.receiver.liveness import LIVE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from openclaw_exporter.receiver.liveness import NodeState, State
    from openclaw_exporter.receiver.query import Query

SLICE: Final = 2000
"""Nodes, or sets of tags, that are looked at before the event loop gets its turn; about 1 ms."""

MOST: Final = 60_000
"""Nodes that one page looks at; then it ends with what it has found, and a cursor."""

EXACT: Final = 4096
"""Nodes that offer more slots than this are grouped by the number's length in bits."""

_WALK_COST: Final = 4
"""What it costs to look at a node on the way, in units of what it costs to collect one."""

Members = set[str] | str
"""The ids of one group; of a single node its id alone."""

Levels = dict[int, list[Members]]
"""Groups by level: slots that the nodes offer up to `EXACT`, above that a class of them."""

_Groups = dict[tuple["State", int], Members]


class Index:
    """Finds nodes.

    Args:
        nodes: All nodes, kept by somebody else, who tells of each change with `move`.
    """

    def __init__(self, nodes: Mapping[str, NodeState]) -> None:
        self._nodes = nodes
        self._ids: SortedList[str] = SortedList(nodes)
        self._by_tags: dict[tuple[str, ...], _Groups] = {}
        for state in nodes.values():
            self._enter(state)

    def move(self, before: NodeState | None, after: NodeState | None) -> None:
        """Note that one state of a node takes the place of another; None: not known, or forgotten."""
        if before is not None:
            self._leave(before)
            if after is None:
                self._ids.discard(before.node_id)
        if after is not None:
            self._enter(after)
            if before is None:
                self._ids.add(after.node_id)

    async def find(self, query: Query) -> Levels:
        """Return all groups whose nodes match, but for slots beyond `EXACT`, by what they offer."""
        found: Levels = {}
        least = level_of(query.min_slots)
        for number, (tags, groups) in enumerate(list(self._by_tags.items()), start=1):
            if query.tags.issubset(tags):
                for (state, level), ids in groups.items():
                    offered = level if state in LIVE else 0
                    if offered >= least and (not query.states or state in query.states):
                        found.setdefault(offered, []).append(ids)
            if number % SLICE == 0:
                await asyncio.sleep(0)
        return found

    async def first(
        self,
        groups: Iterable[Members] | None,
        wants: Callable[[NodeState], bool],
        *,
        after: str | None,
        limit: int,
        is_bounded: bool = True,
    ) -> tuple[list[NodeState], str | None]:
        """Return the first nodes of some groups by node_id.

        Args:
            groups: Some of those that `find` returns; None: all nodes match.
            wants: Whether a node is one of them: they may have changed meanwhile.
            after: Only nodes behind this node_id.
            limit: At most so many nodes.
            is_bounded: Whether to give up after `MOST` nodes on the way.

        Returns:
            The nodes, and the node_id behind which to go on, None where there are no more.
        """
        if groups is None:
            return await self._walk(wants, after, limit, None)
        sets = list(groups)
        size = sum(1 if isinstance(ids, str) else len(ids) for ids in sets)
        if not size:
            return [], None
        if size * size <= _WALK_COST * (limit + 1) * len(self._ids):
            ids = (one for members in sets for one in each(members) if after is None or one > after)
            matching = (one for one in ids if one in self._nodes and wants(self._nodes[one]))
            states = [self._nodes[one] for one in heapq.nsmallest(limit + 1, matching)]
            return states[:limit], states[limit - 1].node_id if len(states) > limit else None
        return await self._walk(wants, after, limit, MOST if is_bounded else None)

    async def _walk(
        self, wants: Callable[[NodeState], bool], after: str | None, limit: int, most: int | None
    ) -> tuple[list[NodeState], str | None]:
        states: list[NodeState] = []
        looked_at = 0
        while most is None or looked_at < most:
            # By id each time: the list may have changed while the loop went on.
            ids = list(islice(self._ids.irange(after, None, (False, True)), SLICE))
            for one in ids:
                state = self._nodes.get(one)
                if state is not None and wants(state):
                    if len(states) == limit:
                        return states, states[-1].node_id
                    states.append(state)
            if len(ids) < SLICE:
                return states, None
            after = ids[-1]
            looked_at += SLICE
            await asyncio.sleep(0)
        return states, after

    def _enter(self, state: NodeState) -> None:
        groups = self._by_tags.setdefault(state.tags, {})
        key = (state.state, level_of(state.slots))
        members = groups.get(key)
        if members is None:
            # Most groups of a fleet whose nodes all have a tag of their own have one member.
            groups[key] = state.node_id
        elif isinstance(members, str):
            groups[key] = {members, state.node_id}
        else:
            members.add(state.node_id)

    def _leave(self, state: NodeState) -> None:
        groups = self._by_tags[state.tags]
        key = (state.state, level_of(state.slots))
        members = groups[key]
        if not isinstance(members, str):
            members.discard(state.node_id)
            if members:
                return
        del groups[key]
        if not groups:
            del self._by_tags[state.tags]


def level_of(slots: int) -> int:
    """Return the level of nodes that offer so many slots."""
    return slots if slots <= EXACT else EXACT + slots.bit_length()


def each(members: Members) -> Iterator[str]:
    """Yield the nodes of a group."""
    if isinstance(members, str):
        yield members
    else:
        yield from members
