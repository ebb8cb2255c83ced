"""Who has which partition, kept up to date, and what may have been missed meanwhile."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, Literal

from openclaw_exporter.logs import Episodes
from openclaw_exporter.receiver.store.redis import topology
from openclaw_exporter.receiver.store.redis.connection import LostError, UnreachableError
from openclaw_exporter.receiver.store.redis.line import Line, Scripts
from openclaw_exporter.receiver.store.redis.opening import connect

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from openclaw_exporter.receiver.store.redis.address import Host, Target
    from openclaw_exporter.receiver.store.redis.calls import Partition
    from openclaw_exporter.receiver.store.redis.topology import Topology

_logger = logging.getLogger(__name__)

Mode = Literal["standalone", "cluster", "sentinel"]

TAGS: Final = ("clock", "events")
"""Partitions without nodes: the shared clock, and the one log of events."""
_REFUSED_FOR: Final = 5.0
"""Seconds until a server is asked again that wants other credentials or rights."""


class Owners:
    """See the module.

    Args:
        target: The Redis.
        scripts: What every connection knows.
    """

    def __init__(self, target: Target, scripts: Scripts) -> None:
        self._target = target
        self._scripts = scripts
        self.mode: Mode = "standalone"
        self.partitions: tuple[Partition, ...] = (*range(target.partitions), *TAGS)
        self.owner: dict[Partition, Line | None] = dict.fromkeys(self.partitions)
        self.generation: dict[Partition, int] = dict.fromkeys(self.partitions, 0)
        self._slots = {partition: topology.key_slot(str(partition)) for partition in self.partitions}
        self._lines: dict[Host, Line] = {}
        self._nodes: frozenset[Host] = frozenset(target.hosts)
        self._epoch = 0
        self._learning: asyncio.Task[None] | None = None
        self.learned_at = 0.0
        """When it was last told who has what, in the loop's time."""
        self._episodes = Episodes(_logger)

    @property
    def lines(self) -> set[Line]:
        """The servers that have a partition."""
        return {line for line in self.owner.values() if line is not None}

    def of(self, line: Line) -> list[Partition]:
        """Return the partitions that a server has."""
        return [partition for partition, owner in self.owner.items() if owner is line]

    def line(self, host: Host) -> Line:
        """Return the line to a server, whether it has partitions or not."""
        line = self._lines.get(host)
        if line is None:
            line = self._lines[host] = Line(host, self._target, self._scripts, self._opened)
        return line

    def missed(self, partitions: Iterable[Partition]) -> None:
        """Note that something of these partitions may have been missed."""
        for partition in partitions:
            self.generation[partition] += 1

    def assign(self, owners: Mapping[Partition, Line | None]) -> None:
        """Note who has partitions now."""
        changed = [partition for partition, line in owners.items() if self.owner[partition] is not line]
        self.owner.update(owners)
        self.missed(changed)

    def lose(self, line: Line, cause: str, reason: str) -> None:
        """Note that a server cannot be used now; its partitions are away."""
        line.reason = reason
        count, whole = len(self.of(line)), len(self.partitions)
        message = f"Redis cannot be used: {reason}; {count} of {whole} partitions wait for it"
        self._episodes.begin(str(line.host), cause, message, level=logging.ERROR)

    def forbid(self, line: Line, cause: str, reason: str) -> None:
        """Note that a server wants other credentials or rights; only people can mend that."""
        line.retry_at = asyncio.get_running_loop().time() + _REFUSED_FOR
        self.lose(line, cause, reason)

    async def verify(self, line: Line) -> Exception | None:
        """Find out whether a server can be written to; return why not."""
        keys = [self.key(partition, "probe") for partition in self.of(line)]
        try:
            await line.verify(keys)
        except UnreachableError as error:
            if error.refused:
                self.forbid(line, "refused", str(error))
            else:
                self.lose(line, "unreachable", str(error))
            return error
        except LostError as error:
            self.lose(line, type(error).__name__, str(error))
            return error
        line.reason = None
        self._episodes.end(str(line.host), f"Redis {line.host} can be used again")
        return None

    def key(self, partition: Partition, name: str) -> str:
        """Return a partition's key of a name."""
        return f"{self._target.prefix}:{{{partition}}}:{name}"

    async def detect(self) -> None:
        """Find out what stands there.

        Raises:
            UnreachableError: Nobody can be reached, or it is nothing that we can use.
        """
        if self._target.service is not None:
            self.mode = "sentinel"
            return
        reasons: list[UnreachableError] = []
        for host in self._target.hosts:
            try:
                connection = await connect(host, self._target)
            except UnreachableError as error:
                reasons.append(error)
                continue
            connection.close()
            if connection.greeting.mode == "sentinel":
                text = f"{host}: is a Sentinel; write redis+sentinel://{host}/SERVICE"
                raise UnreachableError(text, refused=True)
            self.mode = "cluster" if connection.greeting.mode == "cluster" else "standalone"
            return
        raise UnreachableError("; ".join(map(str, reasons)), refused=any(error.refused for error in reasons))

    async def relearn(self) -> None:
        """Learn who has what, as far as somebody tells; one at a time."""
        if self._learning is None or self._learning.done():
            self._learning = asyncio.create_task(self._try_to_learn(), name="openclaw-topology")
        await asyncio.shield(self._learning)

    async def learn(self) -> None:
        """Learn who has what.

        Raises:
            UnreachableError: Nobody tells.
        """
        if self.mode == "cluster":
            known = sorted(self._nodes.union(self._target.hosts))
            learned = await topology.of_cluster(self._target, known, self._epoch)
        elif self.mode == "sentinel":
            learned = await topology.of_sentinels(self._target, self._target.hosts)
        else:
            learned = await topology.of_single(self._target, self._target.hosts)
        self._use(learned)

    async def refresh(self) -> None:
        """Learn from one that is known to be well, or else from all."""
        line = next(
            (line for line in self.lines if line.connection is not None and line.reason is None), None
        )
        connection = line.connection if line is not None else None
        if line is None or connection is None or self.mode == "sentinel":
            await self.relearn()
            return
        try:
            learned = await topology.look(connection, line.host, is_cluster=self.mode == "cluster")
        except (UnreachableError, LostError):
            await self.relearn()
            return
        if learned.epoch >= self._epoch:
            self._use(learned)

    def close(self) -> None:
        """Close all connections."""
        if self._learning is not None:
            self._learning.cancel()
        for line in self._lines.values():
            line.close()

    async def _try_to_learn(self) -> None:
        try:
            await self.learn()
        except UnreachableError as error:
            # Where there is but one server it is told of anyway.
            if self.mode != "standalone":
                cause = "refused" if error.refused else "unreachable"
                self._episodes.begin("topology", cause, f"Redis does not tell who has what: {error}")
        else:
            self._episodes.end("topology", "Redis tells who has what again")

    def _use(self, learned: Topology) -> None:
        self.learned_at = asyncio.get_running_loop().time()
        self._nodes = learned.nodes
        self._epoch = learned.epoch
        owners: dict[Partition, Line | None] = {}
        for partition, slot in self._slots.items():
            shard = learned.owner(slot)
            line = owners[partition] = None if shard is None else self.line(shard.host)
            if line is not None and shard is not None:
                wanted = self._target.replicas
                line.needed = min(1, shard.replicas) if wanted is None else wanted
        self.assign(owners)
        for host in self._lines.keys() - {line.host for line in self.lines}:
            self._lines.pop(host).close()

    def _opened(self, line: Line) -> None:
        self.missed(self.of(line))
