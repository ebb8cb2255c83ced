"""The way to a Redis or a Redis Cluster: batches of calls, and what becomes of them when servers go."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest
import redis

from openclaw_exporter.errors import StateError
from openclaw_exporter.receiver.store.redis.address import Host, Target
from openclaw_exporter.receiver.store.redis.link import AnswerError, Call, Link, ShardAwayError
from openclaw_exporter.receiver.store.redis.topology import key_slot
from support.redis import RedisServer
from support.redis_cluster import RedisCluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SCRIPTS = {"add": "return redis.call('INCRBY', KEYS[1], ARGV[1])"}


def target(*servers: RedisServer, **kwargs: Any) -> Target:
    """Return how servers are spoken to: with little patience for those that hang."""
    hosts = tuple(Host("127.0.0.1", server.port) for server in servers)
    return Target(hosts=hosts, **{"timeout": 1.0, "partitions": 8} | kwargs)


class linked:  # noqa: N801 - reads like the function that it is
    """An open link."""

    def __init__(self, *servers: RedisServer, **kwargs: Any) -> None:
        self._target = target(*servers, **kwargs)

    async def __aenter__(self) -> Link:
        self.link = Link(self._target, SCRIPTS)
        await self.link.open()
        return self.link

    async def __aexit__(self, *_: object) -> None:
        await self.link.close()


def add(link: Link, partition: int | str, number: int = 1) -> Call:
    """Return a call of a script that adds to a partition's counter."""
    return Call(partition, ("EVALSHA", link.script("add"), 1, link.key(partition, "counter"), number))


async def until(link: Link, partition: int | str) -> None:
    """Probe until a partition can be used again."""
    async with asyncio.timeout(60):
        while link.away(partition):
            await link.probe()
            await asyncio.sleep(0.05)


async def come_true(condition: Callable[[], bool]) -> None:
    """Wait for what other tasks do."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what is waited for is no event
            await asyncio.sleep(0.02)


async def until_answered(link: Link, *calls: Call) -> list[Any]:
    """Repeat calls, as a publisher would, until all of them are answered at once."""
    last: list[Any] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(60):
            while True:
                last = await link.run(calls, durable=True)
                if not any(isinstance(answer, ShardAwayError) for answer in last):
                    return last
                await link.probe()
                await asyncio.sleep(0.05)
    pytest.fail(f"not answered: {last}")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    started = RedisServer(tmp_path)
    started.start()
    yield started
    started.stop()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RedisCluster]:
    started = RedisCluster(tmp_path, node_timeout=15_000)
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
        async with linked(server, timeout=0.3) as link:
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
    server: RedisServer, tmp_path: Path
) -> None:
    (tmp_path / "replica").mkdir()
    at = "--replicaof", "127.0.0.1", str(server.port)
    replica = RedisServer(tmp_path / "replica", *at, "--repl-diskless-sync-delay", "0")

    async def main() -> None:
        async with linked(server, timeout=0.5) as link:
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
            assert link.shard(2) == Host("127.0.0.1", other.port)
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
                assert link.away(partition) == (link.shard(partition) in {None, Host("127.0.0.1", gone.port)})
            gone.start()
            for partition in link.partitions:
                await until(link, partition)
            answers = await until_answered(link, *calls)

    asyncio.run(main())


def test_streams_are_followed_wherever_they_go(cluster: RedisCluster) -> None:
    async def main() -> None:
        taken: dict[tuple[int | str, str], list[bytes]] = {}

        def take(partition: int | str, key: str, entries: list[tuple[bytes, list[bytes]]]) -> None:
            taken.setdefault((partition, key), []).extend(fields[1] for _, fields in entries)

        async def seen(number: int) -> None:
            expected = [str(count).encode() for count in range(number)]
            await come_true(
                lambda: all(taken.get((p, link.key(p, "changes"))) == expected for p in link.partitions)
            )

        async def write(number: int) -> None:
            calls = [Call(p, ("XADD", link.key(p, "changes"), "*", "n", number)) for p in link.partitions]
            await until_answered(link, *calls)

        async with linked(cluster.nodes[0]) as link:
            await write(0)
            tail = link.tail(take)
            for partition in link.partitions:
                tail.follow(partition, link.key(partition, "changes"), b"0-0")
            await seen(1)
            await write(1)
            await seen(2)
            source, other = _owner(cluster, link, 2), _other(cluster, link, 2)
            with cluster.moving(key_slot("2"), source=source, target=other) as move:
                move()
            await write(2)
            await seen(3)
            before = link.generation(2)
            for node in cluster.nodes:
                with cluster.client(node) as client:
                    client.client_kill_filter(_type="normal", skipme=True)
            await write(3)
            await seen(4)
            assert link.generation(2) > before
            taken.clear()
            tail.follow(2, link.key(2, "changes"), b"0-0")
            await come_true(lambda: taken == {(2, link.key(2, "changes")): [b"0", b"1", b"2", b"3"]})

    asyncio.run(main())


def _owner(cluster: RedisCluster, link: Link, partition: int | str) -> RedisServer:
    host = link.shard(partition)
    return next(node for node in cluster.nodes if host == Host("127.0.0.1", node.port))


def _other(cluster: RedisCluster, link: Link, partition: int | str) -> RedisServer:
    host = link.shard(partition)
    return next(node for node in cluster.nodes if host != Host("127.0.0.1", node.port))
