"""What is answered has a copy: replicas that are being filled, or fail meanwhile, and what is none."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

import pytest
import redis
from receiver.linking import add, linked, until, until_answered
from receiver.shared import Fleet, heartbeats
from receiver.test_redis_fail_over import NODES, beat

from openclaw_exporter.receiver.store.redis.link import ShardAwayError
from support.redis import RedisServer
from support.wait import come_true

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.redis import Engine
    from support.redis_cluster import RedisCluster

AT_ONCE = "--repl-diskless-sync-delay", "0"
SLOWLY = 100_000
"""Microseconds that a snapshot takes for each key: seconds for few of them."""


@pytest.fixture
def server(tmp_path: Path, engine: Engine) -> Iterator[RedisServer]:
    """One with some keys, whose snapshots take five seconds."""
    started = RedisServer(tmp_path, *AT_ONCE, engine=engine)
    started.start()
    with redis.Redis(port=started.port) as client:
        client.mset({f"key{number}": "" for number in range(50)})
        client.config_set("rdb-key-save-delay", SLOWLY)
    yield started
    started.stop()


def info(server: RedisServer, name: str) -> Any:
    """Return what a server's INFO says of something."""
    with redis.Redis(port=server.port) as client:
        return client.info().get(name, {})


def is_filling(server: RedisServer) -> bool:
    """Whether a server fills a replica now: one or, since Redis 8, two streams at once."""
    return info(server, "slave0").get("state") in ("wait_bgsave", "send_bulk_and_stream")


def test_a_replica_that_is_being_filled_is_waited_for(
    server: RedisServer, tmp_path: Path, engine: Engine
) -> None:
    (tmp_path / "replica").mkdir()
    replica = RedisServer(
        tmp_path / "replica", "--replicaof", "127.0.0.1", str(server.port), *AT_ONCE, engine=engine
    )

    async def main() -> None:
        async with linked(server, timeout=1.0) as link:
            assert await link.run([add(link, 3)], durable=True) == [1]
            replica.start()
            await come_true(lambda: is_filling(server))
            (answer,) = await link.run([add(link, 3)], durable=True)
            assert isinstance(answer, ShardAwayError)
            assert answer.ambiguous
            # It can be used as soon as that has everything.
            await until(link, 3)
            await until_answered(link, add(link, 3))
            assert info(server, "slave0")["state"] == "online"

    try:
        asyncio.run(main())
    finally:
        replica.stop()


def test_what_draws_a_copy_once_is_no_replica(server: RedisServer) -> None:
    async def main() -> None:
        async with linked(server, timeout=1.0) as link:
            assert await link.run([add(link, 3)], durable=True) == [1]
            with socket.create_connection(("127.0.0.1", server.port)) as copying:
                copying.sendall(b"SYNC\r\n")
                await come_true(lambda: info(server, "connected_slaves") == 1)
                assert await link.run([add(link, 3)], durable=True) == [2]

    asyncio.run(main())


def test_a_replica_that_is_called_failed_meanwhile_has_confirmed_nothing(cluster: RedisCluster) -> None:
    async def main() -> None:
        async with linked(*cluster.nodes[:3], timeout=30.0) as link:
            assert await until_answered(link, add(link, 1)) == [1]
            for replica in cluster.nodes[3:]:
                replica.freeze()
            asked = asyncio.create_task(link.run([add(link, 1)], durable=True))
            line = link._owners.owner[1]
            assert line is not None
            # Both need a few seconds; the order does not matter to what is right.
            while line.needed and not asked.done():
                await link._owners.relearn()
                await asyncio.sleep(0.1)
            (answer,) = await asked
            assert isinstance(answer, ShardAwayError)
            assert answer.ambiguous
            for replica in cluster.nodes[3:]:
                replica.thaw()
            await until(link, 1)

    asyncio.run(main())


def test_what_is_answered_while_a_replica_is_filled_outlives_its_primary(cluster: RedisCluster) -> None:
    """A replica can be promoted as soon as it has the snapshot; what came meanwhile follows behind that."""
    returning, primary = cluster.nodes[0], cluster.nodes[3]

    async def main() -> None:
        async with Fleet(cluster.url, timeout=2.0) as fleet:
            (one,) = fleet.receivers
            await beat(fleet, 1)
            returning.stop()
            await beat(fleet, 2)
            with redis.Redis(port=primary.port) as client:
                client.config_set("rdb-key-save-delay", SLOWLY)
            await asyncio.to_thread(returning.start)
            with redis.Redis(port=returning.port) as client:
                client.config_set("key-load-delay", SLOWLY // 3)
                client.config_set("loading-process-events-interval-bytes", 1024)
            await come_true(lambda: is_filling(primary))
            published = heartbeats(NODES, 3000, interval=40)
            outcomes = await asyncio.gather(*map(one.publish, published), return_exceptions=True)
            answered = [
                item.node_id
                for item, outcome in zip(published, outcomes, strict=True)
                if not isinstance(outcome, BaseException)
            ]
            # Those on the other primaries at least.
            assert answered
            await come_true(
                lambda: info(returning, "loading") == 1 or info(returning, "master_link_status") == "up"
            )
            primary.stop()
            await beat(fleet, 4)
            assert info(returning, "role") == "master"
            for node in answered:
                assert 3000 in [row.sent_ms for row in await one.store.history(node)]

    asyncio.run(main())
