"""Who is believed that tells who has what in a cluster: not the one that knows the past alone."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest
from receiver.linking import add, host_of, linked, until, until_answered

from support.redis_cluster import RedisCluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.redis import Engine, RedisServer


@pytest.fixture
def pairs(tmp_path: Path, engine: Engine) -> Iterator[RedisCluster]:
    """Three masters, each with a replica."""
    started = RedisCluster(tmp_path, replicas=1, node_timeout=3000, engine=engine)
    started.start()
    yield started
    started.stop()


@contextlib.contextmanager
def frozen(*servers: RedisServer) -> Iterator[None]:
    """Let servers answer nothing for as long as the context lasts."""
    for server in servers:
        server.freeze()
    try:
        yield
    finally:
        for server in servers:
            server.thaw()


def test_a_master_that_was_replaced_and_answers_alone_is_not_believed(pairs: RedisCluster) -> None:
    async def main() -> None:
        async with linked(*pairs.nodes, timeout=2.0, partitions=16) as link:
            was = link.shard(3)
            gone = next(node for node in pairs.nodes if host_of(node) == was)
            gone.stop()
            async with asyncio.timeout(120):
                while link.shard(3) == was or link.away(3):
                    await until_answered(link, add(link, 3))
                    await link._owners.refresh()
            now = [link.shard(partition) for partition in link.partitions]
            epoch = link._owners._epoch
            with frozen(*(node for node in pairs.nodes if node is not gone)):
                gone.start()
                await link._owners.relearn()
                assert [link.shard(partition) for partition in link.partitions] == now
                assert link._owners._epoch == epoch
            for partition in link.partitions:
                await until(link, partition)
            await until_answered(link, add(link, 3))

    asyncio.run(main())


def test_most_masters_are_believed_whatever_was_known(pairs: RedisCluster) -> None:
    async def main() -> None:
        async with linked(pairs.nodes[0], timeout=2.0, partitions=16) as link:
            epoch = link._owners._epoch
            # As it was before all of them were made anew.
            link._owners._epoch = epoch + 1000
            with frozen(pairs.nodes[2]):
                await link._owners.relearn()
            assert link._owners._epoch == epoch
            assert not any(link.away(partition) for partition in link.partitions)

    asyncio.run(main())
