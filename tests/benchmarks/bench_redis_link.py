"""What the way to Redis costs a receiver: CPU for a call, beside redis-py on the same server in the same run.

    python tests/benchmarks/bench_redis_link.py

A Redis, and a cluster of three masters, are started on loopback. Batches of 18 calls of a script, one for
each partition, go out one after the other: by `Link.run`, by redis-py's asyncio pipeline, and in the cluster
by its cluster pipeline. redis-py parses with hiredis, too. Printed are medians of five rounds of 500 batches,
user and system time of this process.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import redis.asyncio

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from interpreter import announce  # noqa: E402
from receiver.linking import SCRIPTS, add, linked  # noqa: E402

from support.redis import RedisServer  # noqa: E402
from support.redis_cluster import RedisCluster  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from openclaw_exporter.receiver.store.redis.link import Link

ROUNDS = 5
BATCHES = 500
PARTITIONS = 16


def spent() -> float:
    """Return this process' CPU time, seconds."""
    times = os.times()
    return times.user + times.system


async def measure(batch: Callable[[], Awaitable[object]], calls: int) -> float:
    """Return microseconds of CPU for a call."""
    rounds = []
    for _ in range(ROUNDS):
        before = spent()
        for _ in range(BATCHES):
            await batch()
        rounds.append((spent() - before) / BATCHES / calls * 1e6)
    return statistics.median(rounds)


async def compare(name: str, server: RedisServer, client: redis.asyncio.Redis) -> None:
    """Print both, and their ratio."""
    async with linked(server, partitions=PARTITIONS) as link:
        calls = [add(link, partition) for partition in link.partitions]
        ours = await measure(lambda: link.run(calls, durable=True), len(calls))
        theirs = await measure(lambda: pipelined(client, link), len(calls))
    await client.aclose()
    print(f"{name}: {ours:.1f} µs a call, redis-py {theirs:.1f} µs ({ours / theirs:.2f} of it)")


async def pipelined(client: redis.asyncio.Redis, link: Link) -> None:
    """Run the same calls by redis-py."""
    pipeline = client.pipeline(transaction=False)
    for partition in link.partitions:
        pipeline.execute_command("EVALSHA", link.script("add"), 1, link.key(partition, "counter"), 1)
    await pipeline.execute()


async def main() -> None:
    """Measure both servers."""
    with tempfile.TemporaryDirectory() as directory:
        one, cluster = RedisServer(Path(directory)), RedisCluster(Path(directory), node_timeout=15_000)
        one.start()
        cluster.start()
        try:
            await compare("one Redis", one, redis.asyncio.Redis(port=one.port))
            first = cluster.nodes[0]
            await compare("a cluster", first, redis.asyncio.RedisCluster(host="127.0.0.1", port=first.port))
        finally:
            one.stop()
            cluster.stop()


if __name__ == "__main__":
    announce()
    print(f"{len(SCRIPTS)} script, batches of {PARTITIONS + 2} calls, medians of {ROUNDS} rounds")
    asyncio.run(main())
