"""Who a Redis lets in, and what a link does while servers fail, change places and come back."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import re
from typing import TYPE_CHECKING, Any

import pytest
import redis
from receiver.linking import SCRIPTS, add, host_of, linked, target, until, until_answered, until_away

from openclaw_exporter.errors import StateError
from openclaw_exporter.receiver.store.redis import line
from openclaw_exporter.receiver.store.redis.address import Host, Target
from openclaw_exporter.receiver.store.redis.link import AnswerError, Call, Link, ShardAwayError
from openclaw_exporter.receiver.store.redis.topology import key_slot
from support.redis import RedisServer
from support.redis_cluster import RedisCluster, RedisSentinels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.pki import Pki
    from support.redis import Engine

ENGINES = ("redis", "valkey")
PASSWORD = "sesame"  # noqa: S105 - of servers that live as long as their test


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """Start a server with further arguments."""
    with contextlib.ExitStack() as ending:

        def begin(*arguments: str, engine: Engine = "redis") -> RedisServer:
            server = RedisServer(tmp_path, *arguments, engine=engine)
            server.start()
            ending.callback(server.stop)
            return server

        yield begin


@pytest.fixture(params=ENGINES)
def sentinels(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[RedisSentinels]:
    started = RedisSentinels(tmp_path, password=PASSWORD, engine=request.param)
    started.start()
    yield started
    started.stop()


@pytest.fixture(params=ENGINES)
def pairs(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[RedisCluster]:
    """Three masters, each with a replica."""
    started = RedisCluster(tmp_path, replicas=1, node_timeout=3000, engine=request.param)
    started.start()
    yield started
    started.stop()


def give(server: RedisServer, user: str, *rights: str) -> None:
    """Give a user rights, with the password that all have here."""
    with redis.Redis(port=server.port) as client:
        client.execute_command("ACL", "SETUSER", user, "on", f">{PASSWORD}", *rights)


def refusal(*servers: RedisServer, **changes: Any) -> str:
    """Return why a link cannot be opened."""
    with pytest.raises(StateError) as raised:
        asyncio.run(Link(target(*servers, **changes), SCRIPTS).open())
    assert "sesame" not in str(raised.value)
    return str(raised.value)


def test_a_password_is_asked_for(start: Callable[..., RedisServer], tmp_path: Path) -> None:
    server = start("--requirepass", "sesame")
    file = tmp_path / "secret"
    assert "name its file in receiver.store.password_file" in refusal(server)
    assert f"receiver.store.password_file: {file} cannot be read" in refusal(server, password_file=file)
    file.write_text("wrong\n")
    assert "user or password is wrong; see receiver.store.password_file" in refusal(
        server, password_file=file
    )
    file.write_text("sesame\n")

    async def main() -> None:
        async with linked(server, password_file=file) as link:
            assert await link.run([add(link, 1)]) == [1]

    asyncio.run(main())


def test_a_password_that_was_changed_is_read_again(
    start: Callable[..., RedisServer], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = start()
    give(server, "fleet", "~openclaw:*", "+@all")
    file = tmp_path / "secret"
    file.write_text("sesame")

    async def main() -> None:
        async with linked(server, username="fleet", password_file=file) as link:
            assert await link.run([add(link, 1)]) == [1]
            with redis.Redis(port=server.port) as client:
                client.execute_command("ACL", "SETUSER", "fleet", "resetpass", ">open sesame")
                client.client_kill_filter(_type="normal", skipme=True)
            away = await until_away(link, 1)
            assert "password_file" in str(away)
            assert not away.ambiguous
            file.write_text("open sesame")
            await until(link, 1)
            assert await link.run([add(link, 1)]) == [2]

    with caplog.at_level(logging.INFO):
        asyncio.run(main())
    assert "sesame" not in caplog.text
    assert caplog.text.count("user or password is wrong") == 1
    assert "can be used again" in caplog.text


def test_a_right_that_is_missing_is_named(start: Callable[..., RedisServer], tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("sesame")
    server = start()
    give(server, "reads", "~openclaw:*", "+@read", "+info", "+script|load", "+evalsha")
    give(server, "others", "+@all")
    said = refusal(server, username="reads", password_file=file)
    assert "docs/operations.md" in said
    assert "docs/operations.md" in refusal(server, username="others", password_file=file)


def test_a_right_that_was_taken_is_a_shard_that_is_away(
    start: Callable[..., RedisServer], tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    file.write_text("sesame")
    server = start()
    give(server, "fleet", "~openclaw:*", "+@all")

    async def main() -> None:
        async with linked(server, username="fleet", password_file=file) as link:
            with redis.Redis(port=server.port) as client:
                client.execute_command("ACL", "SETUSER", "fleet", "-get")
                (answer,) = await link.run([Call(1, ("GET", link.key(1, "counter")))])
                assert isinstance(answer, ShardAwayError)
                assert link.away("clock")
                client.execute_command("ACL", "SETUSER", "fleet", "+get")
            await until(link, 1)
            assert await link.run([Call(1, ("GET", link.key(1, "counter")))]) == [None]

    asyncio.run(main())


def test_a_server_that_throws_keys_away_is_refused(
    start: Callable[..., RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    server = start("--maxmemory-policy", "volatile-lru")

    async def main() -> None:
        async with linked(server) as link:
            assert await link.run([add(link, 1)]) == [1]

    asyncio.run(main())
    assert "maxmemory-policy volatile-lru" in caplog.text
    assert "keeps no append-only file" in caplog.text
    with redis.Redis(port=server.port) as client:
        client.config_set("maxmemory", "100mb")
    assert "set maxmemory-policy noeviction" in refusal(server)


def test_a_server_that_keeps_what_it_is_given_is_not_spoken_of(
    start: Callable[..., RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    server = start("--appendonly", "yes")

    async def main() -> None:
        async with linked(server) as link:
            assert await link.run([add(link, 1)]) == [1]

    asyncio.run(main())
    assert not [record.message for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_server_that_may_not_be_asked_is_used_all_the_same(
    start: Callable[..., RedisServer], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "secret"
    file.write_text(PASSWORD)
    server = start()
    give(server, "blind", "~openclaw:*", "+@all", "-info")

    async def main() -> None:
        async with linked(server, username="blind", password_file=file) as link:
            assert await link.run([add(link, 1)], durable=True) == [1]

    asyncio.run(main())
    assert "whether it keeps what it is given is not known" in caplog.text


def test_a_server_without_memory_is_away_until_it_has_some(start: Callable[..., RedisServer]) -> None:
    server = start()

    async def main() -> None:
        async with linked(server) as link:
            with redis.Redis(port=server.port) as client:
                client.config_set("maxmemory", "1")
                away = await until_away(link, 1)
                assert "OOM" in str(away)
                assert not away.ambiguous
                assert await link.probe() == frozenset()
                client.config_set("maxmemory", "0")
            await until(link, 1)
            assert await link.run([add(link, 1)]) == [1]

    asyncio.run(main())


def test_a_server_that_is_too_old_is_refused(
    start: Callable[..., RedisServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "LEAST_VERSION", (99, 0))
    assert re.search(r"is redis \d+\.\d+\.\d+, 99\.0 is needed", refusal(start()))


def test_a_replica_is_refused(start: Callable[..., RedisServer]) -> None:
    master = start()
    replica = start("--replicaof", "127.0.0.1", str(master.port))
    assert "is a replica, which takes no writes" in refusal(replica)

    async def main() -> None:
        async with linked(replica, master) as link:
            assert link.shard(1) == host_of(master)

    asyncio.run(main())


def test_a_database_that_is_not_there_is_named(start: Callable[..., RedisServer]) -> None:
    server = start()
    assert "database 99" in refusal(server, database=99)

    async def main() -> None:
        async with linked(server, database=3, prefix="blue") as link:
            assert await link.run([add(link, 1)]) == [1]
        with redis.Redis(port=server.port, db=3) as client:
            assert client.get("blue:{1}:counter") == b"1"

    asyncio.run(main())


def test_both_ends_show_certificates(start: Callable[..., RedisServer], pki: Pki, tmp_path: Path) -> None:
    server_files, client_files = pki.server(name="redis"), pki.proxy("receiver")
    server = start(
        *("--tls-cert-file", str(server_files.certificate), "--tls-key-file", str(server_files.key)),
        *("--tls-ca-cert-file", str(pki.ca), "--tls-port", "0"),
    )
    with redis.Redis(port=server.port) as client:
        port = server.port
        client.config_set("port", 0, "tls-port", port)
    shown = {"tls": True, "ca": pki.ca, "certificate": client_files.certificate, "key": client_files.key}
    assert "write rediss://" in refusal(server)
    assert "certificate" in refusal(server, tls=True, ca=pki.ca).lower()
    assert "see receiver.store.ca" in refusal(server, tls=True)
    assert f"receiver.store.ca: {tmp_path / 'none'} cannot be read" in refusal(
        server, **shown | {"ca": tmp_path / "none"}
    )
    assert str(client_files.certificate) in refusal(server, **shown | {"key": client_files.certificate})
    assert "write redis://" in refusal(start(), tls=True, ca=pki.ca)

    async def main() -> None:
        async with linked(server, **shown) as link:
            assert await link.run([add(link, 1)]) == [1]

    asyncio.run(main())


def test_a_connection_that_others_can_read_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    elsewhere = Target(hosts=(Host("192.0.2.1", 6379),), timeout=0.1)
    for given, warned in ((elsewhere, True), (dataclasses.replace(elsewhere, tls=True), False)):
        caplog.clear()
        with pytest.raises(StateError):
            asyncio.run(Link(given, SCRIPTS).open())
        assert ("without TLS" in caplog.text) is warned


def test_sentinels_that_do_not_help_are_named(sentinels: RedisSentinels, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("sesame")
    sentinel = sentinels.sentinel
    assert "redis+sentinel://" in refusal(sentinel)
    assert "knows no master 'other'" in refusal(sentinel, service="other", password_file=file)
    assert "name its file" in refusal(sentinel, service="chimera")


def test_the_master_that_sentinels_promote_is_followed(sentinels: RedisSentinels, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("sesame")

    async def main() -> None:
        async with linked(sentinels.sentinel, service="chimera", password_file=file) as link:
            assert link.mode == "sentinel"
            assert link.shard(1) == host_of(sentinels.master)
            assert await until_answered(link, add(link, 1)) == [1]
            before = link.generation(1)
            sentinels.master.stop()
            await until_away(link, 1)
            await until(link, 1)
            assert link.shard(1) == host_of(sentinels.replica)
            assert link.generation(1) > before
            assert await until_answered(link, add(link, 1)) == [2]

    asyncio.run(main())


def test_a_planned_change_of_the_master_is_followed(sentinels: RedisSentinels, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("sesame")

    async def main() -> None:
        async with linked(sentinels.sentinel, service="chimera", password_file=file) as link:
            assert await until_answered(link, add(link, 1)) == [1]
            await asyncio.to_thread(sentinels.fail_over)
            async with asyncio.timeout(60):
                while link.shard(1) != host_of(sentinels.replica):
                    await until_answered(link, Call(1, ("GET", link.key(1, "counter"))))
                    await link.probe()
            assert await until_answered(link, add(link, 1)) == [2]

    asyncio.run(main())


def test_what_was_confirmed_outlives_the_masters(pairs: RedisCluster) -> None:
    async def main() -> None:
        masters = pairs.nodes[:3]
        async with linked(*masters) as link:
            calls = [add(link, partition) for partition in link.partitions]
            assert await until_answered(link, *calls) == [1] * len(calls)
            hosts = {partition: link.shard(partition) for partition in link.partitions}
            gone = masters[0]
            gone.stop()
            moved = [partition for partition, host in hosts.items() if host == host_of(gone)]
            await until_away(link, moved[0])
            for partition in link.partitions:
                await until(link, partition)
            assert all(link.shard(partition) != host_of(gone) for partition in link.partitions)
            assert all(link.generation(partition) > 1 for partition in moved)
            keys = [Call(partition, ("GET", link.key(partition, "counter"))) for partition in link.partitions]
            assert await until_answered(link, *keys) == [b"1"] * len(calls)
            # The old master comes back as a replica, and is waited for again.
            gone.start()
            async with asyncio.timeout(60):
                while True:
                    if all(answer == 1 for answer in await link.run(waits(link, moved))):
                        break
                    await link.probe()
            await until_answered(link, *calls)

    asyncio.run(main())


def waits(link: Link, partitions: list[Any]) -> list[Call]:
    """Return calls that tell how many replicas a partition's server has."""
    return [Call(partition, ("WAIT", 1, 100)) for partition in partitions]


def test_replicas_that_hang_leave_nothing_half_confirmed(pairs: RedisCluster) -> None:
    async def main() -> None:
        async with linked(*pairs.nodes[:3], timeout=4.0) as link:
            assert await until_answered(link, add(link, 1)) == [1]
            for replica in pairs.nodes[3:]:
                replica.freeze()
            (answer,) = await link.run([add(link, 1)], durable=True)
            assert isinstance(answer, ShardAwayError)
            assert answer.ambiguous
            assert link.away(1)
            for replica in pairs.nodes[3:]:
                replica.thaw()
            await until(link, 1)
            (count,) = await until_answered(link, Call(1, ("GET", link.key(1, "counter"))))
            assert int(count) >= 2

    asyncio.run(main())


@pytest.mark.parametrize("engine", ENGINES)
def test_nothing_is_lost_or_done_twice_while_slots_move(tmp_path: Path, engine: Engine) -> None:
    cluster = RedisCluster(tmp_path, node_timeout=15_000, engine=engine)
    cluster.start()
    try:
        asyncio.run(_calls_while_slots_move(cluster))
    finally:
        cluster.stop()


async def _calls_while_slots_move(cluster: RedisCluster) -> None:
    async with linked(cluster.nodes[0], timeout=20.0) as link:
        confirmed = dict.fromkeys(link.partitions, 0)
        moving = True

        async def work() -> None:
            while moving:
                calls = [add(link, partition) for partition in link.partitions]
                for call, answer in zip(calls, await link.run(calls, durable=True), strict=True):
                    assert not isinstance(answer, AnswerError)
                    if isinstance(answer, ShardAwayError):
                        assert not answer.ambiguous
                        continue
                    confirmed[call.partition] += 1

        workers = [asyncio.create_task(work()) for _ in range(3)]
        for number in range(12):
            partition = number % 4
            owner = link.shard(partition)
            source = next(node for node in cluster.nodes if host_of(node) == owner)
            other = cluster.nodes[(cluster.nodes.index(source) + 1) % 3]
            await asyncio.to_thread(cluster.move, key_slot(str(partition)), source=source, target=other)
            async with asyncio.timeout(60):
                while link.shard(partition) != host_of(other):  # noqa: ASYNC110 - what is waited for is no event
                    await asyncio.sleep(0.01)
        moving = False
        await asyncio.gather(*workers)
        keys = [Call(partition, ("GET", link.key(partition, "counter"))) for partition in link.partitions]
        stored = await until_answered(link, *keys)
        assert dict(zip(link.partitions, map(int, stored), strict=True)) == confirmed


@pytest.mark.parametrize("engine", ENGINES)
def test_what_was_confirmed_outlives_kills_of_a_server_with_a_log(
    start: Callable[..., RedisServer], engine: Engine
) -> None:
    server = start("--appendonly", "yes", "--appendfsync", "always", engine=engine)

    async def main() -> None:
        async with linked(server) as link:
            confirmed = doubtful = 0
            for _ in range(5):
                calls = asyncio.create_task(link.run([add(link, 1)] * 2000))
                await asyncio.sleep(0.005)
                server.stop()
                for answer in await calls:
                    confirmed += isinstance(answer, int)
                    doubtful += isinstance(answer, ShardAwayError) and answer.ambiguous
                server.start()
                (count,) = await until_answered(link, Call(1, ("GET", link.key(1, "counter"))))
                assert confirmed <= int(count or 0) <= confirmed + doubtful

    asyncio.run(main())
