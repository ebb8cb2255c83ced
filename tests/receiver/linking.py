"""Links to real Redis servers, for tests of what stands on them."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from openclaw_exporter.receiver.store.redis.address import Host, Target
from openclaw_exporter.receiver.store.redis.link import Call, Link, ShardAwayError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from openclaw_exporter.receiver.store.redis.calls import Partition
    from support.redis import RedisServer

SCRIPTS = {"add": "return redis.call('INCRBY', KEYS[1], ARGV[1])"}


def host_of(server: RedisServer) -> Host:
    """Return a server's address."""
    return Host("127.0.0.1", server.port)


def target(*servers: RedisServer, **changes: Any) -> Target:
    """Return how servers are spoken to."""
    return Target(**{"hosts": tuple(map(host_of, servers)), "timeout": 5.0, "partitions": 8} | changes)


@contextlib.asynccontextmanager
async def linked(*servers: RedisServer, **changes: Any) -> AsyncIterator[Link]:
    """Open a link for as long as the context lasts."""
    link = Link(target(*servers, **changes), SCRIPTS)
    await link.open()
    try:
        yield link
    finally:
        await link.close()


def add(link: Link, partition: Partition, number: int = 1) -> Call:
    """Return a call of a script that adds to a partition's counter."""
    return Call(partition, ("EVALSHA", link.script("add"), 1, link.key(partition, "counter"), number))


async def until(link: Link, partition: Partition) -> None:
    """Probe until a partition can be used again."""
    async with asyncio.timeout(120):
        while link.away(partition):
            await link.probe()
            await asyncio.sleep(0.05)


async def until_away(link: Link, partition: Partition) -> ShardAwayError:
    """Call until a partition is away; return what is said then."""
    async with asyncio.timeout(120):
        while True:
            (answer,) = await link.run([add(link, partition)], durable=True)
            if link.away(partition):
                assert isinstance(answer, ShardAwayError)
                return answer
            await asyncio.sleep(0.02)


async def until_answered(link: Link, *calls: Call) -> list[Any]:
    """Repeat calls, as a publisher would, until all of them are answered at once."""
    last: list[Any] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(120):
            while True:
                last = await link.run(calls, durable=True)
                if not any(isinstance(answer, ShardAwayError) for answer in last):
                    return last
                await link.probe()
                await asyncio.sleep(0.05)
    pytest.fail(f"not answered: {last}")
