"""Following streams: all of a server's in one batch of XREAD, on a connection of its own, again and again.

Nothing blocks: in a cluster one XREAD reads only what is in one slot, so each stream would want a connection
and a wake-up of its own. A busy store wakes its readers at each turn anyway; an idle one is asked less often.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from openclaw_exporter.receiver.store.redis.connection import (
    AnswerError,
    LostError,
    UnreachableError,
    packed,
)
from openclaw_exporter.receiver.store.redis.opening import connect

if TYPE_CHECKING:
    from openclaw_exporter.receiver.store.redis.address import Host, Target
    from openclaw_exporter.receiver.store.redis.calls import Partition
    from openclaw_exporter.receiver.store.redis.connection import Connection
    from openclaw_exporter.receiver.store.redis.link import Link

_logger = logging.getLogger(__name__)

Entry = tuple[bytes, list[bytes]]
"""A stream's entry: its id, and its fields and values in turns."""
Take = Callable[["Partition", str, list[Entry]], None]
"""Is given new entries of a partition's stream by its key, oldest first. It must be quick."""

_COUNT: Final = 1000
_LEAST_PACE: Final = 0.02
_MOST_PACE: Final = 0.1
"""Seconds between two looks, while entries come and after a while without any."""
_SLOWER: Final = 1.25
_PAUSE: Final = 0.5
"""Seconds before a server that is away is asked again."""


class Tail:
    """Follows streams, each from an entry on; resumes behind the last entry taken wherever its slot goes.

    What Redis itself lost in a fail-over, or trimmed while we were away, is not seen: the link's `generation`
    of the partition has grown then.

    Args:
        link: Knows who has what.
        target: How servers are spoken to.
        take: Is given what is new.
    """

    def __init__(self, link: Link, target: Target, take: Take) -> None:
        self._link = link
        self._target = target
        self._take = take
        self._after: dict[tuple[Partition, str], bytes] = {}
        self._tasks: dict[Host, asyncio.Task[None]] = {}

    def follow(self, partition: Partition, key: str, after: bytes) -> None:
        """Follow a stream behind an entry; one that is followed already goes on from there.

        Args:
            partition: The stream's partition.
            key: The stream's key.
            after: An entry's id; `0-0` for all that is there.
        """
        self._after[partition, key] = after
        self.regroup()

    def regroup(self) -> None:
        """Look again at who has what."""
        shards = (self._link.shard(partition) for partition, _ in self._after)
        hosts = {host for host in shards if host is not None}
        for gone in self._tasks.keys() - hosts:
            self._tasks.pop(gone).cancel()
        for host in hosts - self._tasks.keys():
            self._tasks[host] = asyncio.create_task(self._run(host), name=f"openclaw-tail {host}")

    async def close(self) -> None:
        """End."""
        tasks = [*self._tasks.values()]
        self._tasks.clear()
        self._after.clear()
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task

    async def _run(self, host: Host) -> None:
        is_first = True
        while True:
            try:
                connection = await connect(host, self._target)
            except UnreachableError:
                await asyncio.sleep(_PAUSE)
                continue
            try:
                if not is_first:
                    self._link.missed(self._partitions(host))
                is_first = False
                await self._read(host, connection)
            except (LostError, UnreachableError) as error:
                _logger.debug("a tail of %s ended: %s", host, error)
            finally:
                connection.close()

    async def _read(self, host: Host, connection: Connection) -> None:
        pace = _LEAST_PACE
        while True:
            streams = [
                (partition, key, after)
                for (partition, key), after in self._after.items()
                if self._link.shard(partition) == host
            ]
            commands = [
                packed(("XREAD", "COUNT", _COUNT, "STREAMS", key, after)) for _, key, after in streams
            ]
            answers = await connection.ask(b"".join(commands), len(commands)) if commands else []
            is_busy = is_moved = False
            for (partition, key, after), answer in zip(streams, answers, strict=True):
                if isinstance(answer, AnswerError):
                    is_moved = is_moved or answer.code == "MOVED"
                    _logger.debug("%s: %s: %s", host, key, answer)
                elif answer is not None and self._after.get((partition, key)) == after:
                    is_busy = True
                    self._give(partition, key, answer[0][1])
            if is_moved:
                await self._link.refresh()
            pace = _LEAST_PACE if is_busy else min(_MOST_PACE, pace * _SLOWER)
            await asyncio.sleep(pace)

    def _give(self, partition: Partition, key: str, entries: list[list[Any]]) -> None:
        self._after[partition, key] = entries[-1][0]
        try:
            self._take(partition, key, [(entry[0], entry[1]) for entry in entries])
        except Exception:
            # A fault of ours must not end the only reader.
            _logger.exception("what is new in a stream could not be taken")

    def _partitions(self, host: Host) -> set[Partition]:
        return {partition for partition, _ in self._after if self._link.shard(partition) == host}
