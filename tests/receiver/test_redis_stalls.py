"""A server of a cluster that does not answer for a while: who is stored elsewhere does not wait for it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest
import redis
from receiver.linking import host_of
from receiver.shared import Fleet, heartbeats
from receiver.virtual import node_id

from support.redis_cluster import RedisCluster
from support.wait import come_true

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from receiver.shared import Receiver

    from support.redis import RedisServer

NODES = [node_id(number) for number in range(1, 61)]
PATIENCE = 60.0
"""Of the link, seconds; far longer than anything else here takes."""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RedisCluster]:
    """Three masters that do not miss each other."""
    cluster = RedisCluster(tmp_path, node_timeout=15_000)
    cluster.start()
    yield cluster
    cluster.stop()


@contextlib.contextmanager
def stalled(server: RedisServer) -> Iterator[None]:
    """Let a server take no writes for as long as the context lasts; then it goes on with those that wait."""
    with redis.Redis(port=server.port) as client:
        client.execute_command("CLIENT", "PAUSE", 600_000, "WRITE")
        try:
            yield
        finally:
            client.execute_command("CLIENT", "UNPAUSE")


def divided(cluster: RedisCluster, one: Receiver, partition: int | str) -> tuple[RedisServer, set[str]]:
    """Return the server that has a partition, and the nodes that are stored there."""
    host = one.link.shard(partition)
    server = next(node for node in cluster.nodes if host_of(node) == host)
    partition_of = one.store._names.partition
    return server, {node for node in NODES if one.link.shard(partition_of(node)) == host}


def without_clock(one: Receiver) -> int:
    """Return a partition whose server has neither the clock nor the log."""
    others = {one.link.shard("clock"), one.link.shard("events")}
    return next(number for number in one.store._names.partitions if one.link.shard(number) not in others)


@pytest.mark.parametrize("of_clock", [False, True])
def test_a_server_that_hangs_keeps_nobody_elsewhere_waiting(cluster: RedisCluster, *, of_clock: bool) -> None:
    async def main() -> None:
        async with Fleet(cluster.url, timeout=PATIENCE) as fleet:
            (one,) = fleet.receivers
            await asyncio.gather(*map(one.publish, heartbeats(60, 1000)))
            server, there = divided(cluster, one, "clock" if of_clock else without_clock(one))
            assert 0 < len(there) < len(NODES)
            with stalled(server):
                # Then the shared clock is asked for before anything is stored.
                fleet.clock.pass_(2.0)
                waiting = []
                # The first ones are a batch with those that hang, the others come behind it.
                for sent_ms in (2000, 3000):
                    tasks = {
                        item.node_id: asyncio.ensure_future(one.publish(item))
                        for item in heartbeats(60, sent_ms)
                    }
                    waiting += [task for node, task in tasks.items() if node in there]
                    outcomes = await asyncio.gather(
                        *(task for node, task in tasks.items() if node not in there)
                    )
                    assert {outcome.kind for outcome in outcomes} == {"recorded"}
                assert not any(task.done() for task in waiting)
            assert {outcome.kind for outcome in await asyncio.gather(*waiting)} == {"recorded"}
            assert one.store.conflicts == 0
            for node in NODES:
                rows = await one.store.history(node)
                assert [row.sent_ms for row in rows] == [1000, 2000, 3000]

    asyncio.run(main())


def test_time_passes_by_a_node_whose_heartbeat_is_under_way(cluster: RedisCluster) -> None:
    async def main() -> None:
        async with Fleet(cluster.url, timeout=PATIENCE) as fleet:
            (one,) = fleet.receivers
            server, there = divided(cluster, one, without_clock(one))
            beats, silent_there = sorted(there)[:2]
            silent = next(node for node in NODES if node not in there)
            for item in heartbeats(60, 1000):
                await one.publish(item)
            await fleet.wait(90)
            for item in heartbeats(60, 2000):
                if item.node_id not in {beats, silent_there, silent}:
                    await one.publish(item)
            await fleet.wait(28)
            # All three have been silent for too long by now, and nobody has looked yet.
            fleet.clock.pass_(4)
            await one.store.follow()
            with stalled(server):
                late = next(item for item in heartbeats(60, 3000) if item.node_id == beats)
                answered = asyncio.ensure_future(one.publish(late))
                await come_true(lambda: bool(one.store._lanes.busy))
                await one.store._leader._sweep(one.store._heard)
                expired = [node for event, node in one.counter.events if event == "expired"]
                assert expired == [silent]
                assert not answered.done()
            assert (await answered).kind == "recorded"
            await fleet.wait(2)
            expired = [node for event, node in one.counter.events if event == "expired"]
            assert sorted(expired) == sorted([silent, silent_there])
            assert (await one.states())[beats] == "up"
            assert one.store.conflicts == 0

    asyncio.run(main())
