"""The way to a Redis or a Redis Cluster: batches of calls, and what becomes of them when servers go."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import redis
from receiver.linking import SCRIPTS, add, host_of, linked, target, until, until_answered

from openclaw_exporter.errors import StateError
from openclaw_exporter.receiver.store.redis.link import AnswerError, Call, Link, ShardAwayError
from openclaw_exporter.receiver.store.redis.topology import key_slot
from support.redis import RedisServer
from support.redis_cluster import RedisCluster
from support.wait import come_true

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.redis import Engine


@pytest.fixture
def server(tmp_path: Path, engine: Engine) -> Iterator[RedisServer]:
    started = RedisServer(tmp_path, engine=engine)
    started.start()
    yield started
    started.stop()


@pytest.fixture
def cluster(tmp_path: Path, engine: Engine) -> Iterator[RedisCluster]:
    started = RedisCluster(tmp_path, node_timeout=15_000, engine=engine)
    started.start()
    yield started
    started.stop()


def test_calls_are_answered_in_their_order(server: RedisServer) -> None:
    async def main() -> None:
        async with linked(server) as link:
            assert link.mode == "standalone"
            answers = await link.run(
                [
                    add(link, 1, 5),
                    Call(1, ("GET", link.key(1, "counter"))),
                    Call("clock", ("GET", link.key("clock", "nothing"))),
                    Call(1, ("LRANGE", link.key(1, "counter"), 0, -1)),
                    add(link, 1),
                ],
                durable=True,
            )
            assert answers[:3] == [5, b"5", None]
            assert isinstance(answers[3], AnswerError)
            assert answers[3].code == "WRONGTYPE"
            assert answers[4] == 6
            assert await link.run([]) == []

    asyncio.run(main())


def test_many_batches_are_under_way_at_once(server: RedisServer) -> None:
    async def main() -> None:
        async with linked(server) as link:
            batches = [link.run([add(link, number % 8) for number in range(20)]) for _ in range(50)]
            await asyncio.gather(*batches)
            keys = [Call(number, ("GET", link.key(number, "counter"))) for number in range(8)]
            assert sum(int(answer) for answer in await link.run(keys)) == 1000

    asyncio.run(main())


def test_scripts_that_were_flushed_are_loaded_again(server: RedisServer) -> None:
    async def main() -> None:
        async with linked(server) as link:
            await link.run([Call(0, ("SCRIPT", "FLUSH"))])
            calls = [add(link, 0), Call(0, ("GET", link.key(0, "counter"))), add(link, 1), add(link, 0)]
            answers = await link.run(calls, durable=True)
            assert [answers[0], answers[2], answers[3]] == [1, 1, 2]

    asyncio.run(main())


def test_a_redis_that_was_restarted_is_found_again(server: RedisServer) -> None:
    async def main() -> None:
        async with linked(server) as link:
            before = link.generation(3)
            server.stop()
            (answer,) = await link.run([add(link, 3)])
            assert isinstance(answer, ShardAwayError)
            (answer,) = await link.run([add(link, 3)])
            assert isinstance(answer, ShardAwayError)
            assert not answer.ambiguous
            assert link.away(3)
            assert await link.probe() == frozenset()
            server.start()
            await until(link, 3)
            assert link.generation(3) > before
            assert await link.run([add(link, 3)]) == [1]

    asyncio.run(main())


def test_a_connection_that_was_closed_is_opened_again(server: RedisServer) -> None:
    async def main() -> None:
        async with linked(server) as link:
            before = link.generation("events")
            (number,) = await link.run([Call(0, ("CLIENT", "ID"))])
            kill = Call(0, ("CLIENT", "KILL", "ID", number, "SKIPME", "no"))
            for answer in await link.run([kill, add(link, 0)]):
                assert isinstance(answer, ShardAwayError)
                assert answer.ambiguous
            assert await until_answered(link, add(link, 0)) == [1]
            assert link.generation("events") > before

    asyncio.run(main())


def test_a_redis_that_hangs_is_away_until_it_answers(server: RedisServer) -> None:
    async def main() -> None:
        async with linked(server, timeout=2.0) as link:
            server.freeze()
            (answer,) = await link.run([add(link, 3)])
            assert isinstance(answer, ShardAwayError)
            assert answer.ambiguous
            assert link.away(3)
            (answer,) = await link.run([add(link, 3)])
            assert isinstance(answer, ShardAwayError)
            assert not answer.ambiguous
            assert await link.probe() == frozenset()
            server.thaw()
            await until(link, 3)

    asyncio.run(main())


def test_a_replica_that_comes_is_waited_for_from_the_first_write_on(
    server: RedisServer, tmp_path: Path, engine: Engine
) -> None:
    (tmp_path / "replica").mkdir()
    at = "--replicaof", "127.0.0.1", str(server.port)
    replica = RedisServer(tmp_path / "replica", *at, "--repl-diskless-sync-delay", "0", engine=engine)

    async def main() -> None:
        async with linked(server, timeout=4.0) as link:
            assert await link.run([add(link, 3)], durable=True) == [1]
            replica.start()
            with redis.Redis(port=server.port) as client:
                await come_true(lambda: bool(client.execute_command("ROLE")[2]))
            replica.freeze()
            # Nobody has told the link of it yet; the write that only the master has is not called done.
            (answer,) = await link.run([add(link, 3)], durable=True)
            assert isinstance(answer, ShardAwayError)
            assert answer.ambiguous
            replica.thaw()
            await until_answered(link, add(link, 3))

    try:
        asyncio.run(main())
    finally:
        replica.stop()


def test_nobody_there_is_said(server: RedisServer) -> None:
    server.stop()
    with pytest.raises(StateError, match=f"127.0.0.1:{server.port}"):
        asyncio.run(Link(target(server), SCRIPTS).open())


def test_a_cluster_is_found_out_from_one_node(cluster: RedisCluster) -> None:
    async def main() -> None:
        async with linked(cluster.nodes[1], partitions=16) as link:
            assert link.mode == "cluster"
            assert len({link.shard(partition) for partition in link.partitions}) == 3
            answers = await link.run([add(link, partition) for partition in link.partitions], durable=True)
            assert answers == [1] * 18

    asyncio.run(main())


def test_a_slot_is_followed_to_its_new_server(cluster: RedisCluster) -> None:
    async def main() -> None:
        async with linked(cluster.nodes[0]) as link:
            source, other = _owner(cluster, link, 2), _other(cluster, link, 2)
            before = link.generation(2)
            cluster.move(key_slot("2"), source=source, target=other)
            assert await link.run([add(link, 2), add(link, 2), add(link, 5)]) == [1, 2, 1]
            assert link.shard(2) == host_of(other)
            assert link.generation(2) > before

    asyncio.run(main())


def test_a_slot_on_its_way_is_followed_by_each_call(cluster: RedisCluster) -> None:
    async def main() -> None:
        async with linked(cluster.nodes[0]) as link:
            source, other = _owner(cluster, link, 2), _other(cluster, link, 2)
            assert await link.run([add(link, 2)]) == [1]
            with cluster.moving(key_slot("2"), source=source, target=other) as move:
                stays = Call(2, ("GET", link.key(2, "counter")))
                goes = Call(2, ("SET", link.key(2, "new"), "there"))
                assert await link.run([stays, goes], durable=True) == [b"1", b"OK"]
                half = Call(2, ("MGET", link.key(2, "counter"), link.key(2, "new")))
                waits = asyncio.create_task(link.run([half]))
                await asyncio.sleep(0.1)
                move()
            assert await waits == [[b"1", b"there"]]

    asyncio.run(main())


def test_one_master_away_leaves_the_others(cluster: RedisCluster) -> None:
    async def main() -> None:
        async with linked(*cluster.nodes[:2], partitions=16) as link:
            gone = _owner(cluster, link, 3)
            gone.stop()
            calls = [add(link, partition) for partition in link.partitions]
            while not link.away(3):
                await link.run(calls)
            answers = await link.run([add(link, partition) for partition in link.partitions])
            for partition, answer in zip(link.partitions, answers, strict=True):
                assert isinstance(answer, ShardAwayError) == link.away(partition)
                assert link.away(partition) == (link.shard(partition) in {None, host_of(gone)})
            gone.start()
            for partition in link.partitions:
                await until(link, partition)
            answers = await until_answered(link, *calls)

    asyncio.run(main())


def _owner(cluster: RedisCluster, link: Link, partition: int | str) -> RedisServer:
    host = link.shard(partition)
    return next(node for node in cluster.nodes if host == host_of(node))


def _other(cluster: RedisCluster, link: Link, partition: int | str) -> RedisServer:
    host = link.shard(partition)
    return next(node for node in cluster.nodes if host != host_of(node))
