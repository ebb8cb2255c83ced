"""What the live nodes have together: `GET /openclaw/capacity`.

Summing up a fleet takes a pass over all of it, so nodes are summed up by their set of tags, once for all
questions that come within a while, and each question then adds up the few sets that it asks for. The larger
the fleet the longer a survey counts: asking costs at most a tenth of a core, however often.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Final

import msgspec

from openclaw_exporter.receiver.content import CONTENT, swarm_of
from openclaw_exporter.receiver.liveness import LIVE
from openclaw_exporter.receiver.query import Query
from openclaw_exporter.wire.fields import MAX_INTEGER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from openclaw_exporter.receiver.content import Content
    from openclaw_exporter.receiver.liveness import NodeState

_SHARE: Final = 10
"""A survey that took a second to make counts for so many."""


class Capacity(msgspec.Struct, kw_only=True):
    """What the live nodes have together; live are those that are up, late or suspect.

    Attributes:
        nodes: How many there are.
        workers: Their workers.
        available_slots: Their free slots.
        resources: Every other resource, by name.
        queue_depth: Messages that wait, by topic: the greatest depth among the nodes of each swarm, for they
            share queues, summed over swarms.
        queue_depth_sum: The same, summed over topics.
    """

    nodes: int
    workers: int
    available_slots: int
    resources: dict[str, int | float]
    queue_depth: dict[str, int]
    queue_depth_sum: int


class _Sum:
    """The live nodes that have exactly the same tags."""

    __slots__ = ("deepest", "nodes", "resources")

    def __init__(self) -> None:
        self.nodes = 0
        self.resources: dict[str, int | float] = {}
        self.deepest: dict[str, int] = {}

    def add(self, content: Content) -> None:
        self.nodes += 1
        for resource, amount in content.capacity.items():
            self.resources[resource] = self.resources.get(resource, 0) + amount
        for topic, depth in content.queue_depth.items():
            if depth > self.deepest.get(topic, -1):
                self.deepest[topic] = depth


_Survey = dict[tuple[str, ...], _Sum]


class CapacityDesk:
    """Answers questions for capacity.

    Args:
        scan: Returns all nodes that a query asks for, in slices between which the event loop goes on.
        clock: Returns seconds of a clock that never goes back.
    """

    def __init__(
        self,
        scan: Callable[[Query], AsyncIterator[list[NodeState]]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._scan = scan
        self._clock = clock
        self._survey: _Survey = {}
        self._good_until = 0.0
        self._making = asyncio.Lock()

    async def read(self, tags: frozenset[str]) -> Capacity:
        """Return what the live nodes have that carry all of these tags."""
        async with self._making:
            if self._clock() >= self._good_until:
                await self._make()
        return _add_up({key: value for key, value in self._survey.items() if tags.issubset(key)})

    async def _make(self) -> None:
        survey: _Survey = {}
        worked = 0.0
        async for states in self._scan(Query(states=frozenset(LIVE))):
            # Only what is done here counts, and not what the loop does between two slices.
            started = self._clock()
            for state in states:
                group = survey.get(state.tags)
                if group is None:
                    group = survey[state.tags] = _Sum()
                group.add(CONTENT.decode(state.payload))
            worked += self._clock() - started
        self._survey = survey
        self._good_until = self._clock() + _SHARE * worked


def _add_up(survey: Mapping[tuple[str, ...], _Sum]) -> Capacity:
    nodes = 0
    resources: dict[str, int | float] = {}
    deepest: dict[tuple[str, str], int] = {}
    for tags, group in survey.items():
        nodes += group.nodes
        for resource, amount in group.resources.items():
            resources[resource] = resources.get(resource, 0) + amount
        swarm = swarm_of(tags)
        for topic, depth in group.deepest.items():
            key = (swarm, topic)
            deepest[key] = max(depth, deepest.get(key, 0))
    queues: dict[str, int] = {}
    for (_, topic), depth in deepest.items():
        queues[topic] = queues.get(topic, 0) + depth
    return Capacity(
        nodes=nodes,
        workers=_whole(resources.pop("workers", 0)),
        available_slots=_whole(resources.pop("available_slots", 0)),
        resources={name: _number(amount) for name, amount in sorted(resources.items())},
        queue_depth={topic: _whole(depth) for topic, depth in sorted(queues.items())},
        queue_depth_sum=_whole(sum(queues.values())),
    )


def _whole(number: float) -> int:
    """Return an integer that every reader of JSON keeps exact, or the greatest such."""
    return min(int(number), MAX_INTEGER)


def _number(amount: float) -> float:
    return _whole(amount) if isinstance(amount, int) else min(amount, sys.float_info.max)
