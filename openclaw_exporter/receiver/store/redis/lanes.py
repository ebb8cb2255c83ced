"""Plans under way side by side: none waits for the answers of two servers, and no partition is in two."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from openclaw_exporter.receiver.listening import Moment
    from openclaw_exporter.receiver.store.batching import Waiting
    from openclaw_exporter.receiver.store.redis.link import Link
    from openclaw_exporter.receiver.store.redis.packing import Names

_PATIENCE: Final = 0.25
"""Seconds that one who decides on all nodes waits for plans under way; then it passes theirs by."""


class Lane(NamedTuple):
    """A plan under way.

    Attributes:
        partitions: Where.
        since: When the first arrival in it came; None: none is in it.
    """

    partitions: frozenset[int]
    since: Moment | None


class Lanes:
    """See the module.

    Args:
        link: The way to Redis.
        names: The keys.
        ended: Called when a plan has ended.

    Attributes:
        gate: Held where a plan begins.
        busy: The partitions that have a plan under way.
    """

    def __init__(self, link: Link, names: Names, ended: Callable[[], None]) -> None:
        self._link = link
        self._names = names
        self.gate = asyncio.Lock()
        self.busy: set[int] = set()
        self._lanes: list[Lane] = []
        self._tell = ended
        self._ended = asyncio.Event()

    @property
    def since(self) -> list[Moment]:
        """When the first arrival of each plan under way came."""
        return [lane.since for lane in self._lanes if lane.since is not None]

    def partitions(self, nodes: Iterable[str]) -> set[int]:
        """Return the partitions of nodes."""
        return {self._names.partition(node_id) for node_id in nodes}

    def blocked(self, nodes: Iterable[str]) -> set[str]:
        """Return those nodes whose partitions have a plan under way."""
        return {one for one in nodes if self._names.partition(one) in self.busy} if self.busy else set()

    def begin(self, partitions: Iterable[int], since: Moment | None = None) -> Lane:
        """Note that a plan is under way.

        Args:
            partitions: Where; none of them is busy.
            since: When the first arrival in it came.
        """
        lane = Lane(frozenset(partitions), since)
        self._lanes.append(lane)
        self.busy |= lane.partitions
        return lane

    def end(self, lane: Lane) -> None:
        """Note that a plan has ended."""
        self._lanes.remove(lane)
        self.busy -= lane.partitions
        self._ended.set()
        self._tell()

    async def quiet(self) -> None:
        """Wait until no plan is under way, but for one that takes long. To be called with the gate held."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                while self.busy:
                    self._ended.clear()
                    await self._ended.wait()

    def divide(
        self, waiting: Sequence[Waiting], most: int
    ) -> tuple[list[tuple[list[int], list[Waiting]]], list[Waiting]]:
        """Divide what waits among servers.

        Args:
            waiting: What waits, in its order.
            most: How many may be begun with.

        Returns:
            For each server its partitions that are free and what can begin; and what has to wait on.
        """
        partition_of, busy = self._names.partition, self.busy
        if not waiting or len(busy) == len(self._names.partitions):
            return [], [*waiting]
        servers = [self._link.shard(partition) for partition in self._names.partitions]
        if not busy and len(set(servers)) == 1:
            batch = [*waiting[:most]]
            return ([([*self._names.partitions], batch)] if batch else []), [*waiting[most:]]
        free: dict[object, list[Waiting]] = {}
        rest: list[Waiting] = []
        for one in waiting:
            partition = partition_of(one[0].node_id)
            if most and partition not in busy:
                free.setdefault(servers[partition], []).append(one)
                most -= 1
            else:
                rest.append(one)
        of_server = {
            server: [one for one in self._names.partitions if servers[one] == server and one not in busy]
            for server in free
        }
        return [(of_server[server], batch) for server, batch in free.items()], rest
