"""The rights that docs/operations.md gives the receiver's user: all that a registry needs, and no more."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis
from receiver.linking import linked
from receiver.shared import Fleet, heartbeats
from receiver.virtual import node_id

from openclaw_exporter.receiver.store.redis.topology import key_slot
from support.redis import RedisServer
from support.redis_cluster import RedisCluster, RedisSentinels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from support.redis import Engine

DOCS = Path(__file__).parents[2] / "docs" / "operations.md"
CLUSTER_ONLY = {"+cluster|slots", "+cluster|info", "+asking"}
NOT_IN_A_CLUSTER = {"+select"}


def rule(place: int) -> list[str]:
    """Return a user of the page as ACL SETUSER takes it: its name first, then its rules."""
    found = re.findall(r"^user (openclaw on .*(?:\n  .*)*)", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    return found[place].split()


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "secret"
    file.write_text("PASSWORD\n")
    return file


async def pass_time(fleet: Fleet, seconds: int) -> None:
    """Let listening time pass; more than 5 s at once would be none."""
    for _ in range(seconds * 10 // 49):
        fleet.clock.pass_(4.9)
        for receiver in fleet.receivers:
            await receiver.store.pulse()


async def live_a_registrys_life(fleet: Fleet) -> None:
    """Register, beat, repeat, read, drain, expire, return and forget."""
    one, two = fleet.receivers
    for item in heartbeats(12, 1000, interval=60):
        await one.publish(item)
    await fleet.pulse()
    assert (await two.beat(1000, node_id(3))).kind == "duplicate"
    assert len(await two.store.history(node_id(3))) == 1
    # One lives until its first arrivals are too old to be kept, and the others are forgotten long before.
    for number in range(48):
        await two.beat(2000 + number, interval=60)
        await pass_time(fleet, 98)
    await fleet.pulse()
    assert {*await one.states()} == {node_id(1)}
    assert {"registered", "late", "expired", "forgotten"} <= {*await one.told()}
    await pass_time(fleet, 900)
    await fleet.pulse()
    assert not await one.states()
    await one.beat(9_000_000)
    joined = await fleet.join()
    assert len(await joined.states()) == 1


def check(servers: Sequence[RedisServer], rights: set[str], unused: set[str]) -> None:
    """Nothing was refused, and no right is more than is needed."""
    used: set[str] = set()
    for server in servers:
        with redis.Redis(port=server.port, decode_responses=True) as client:
            assert client.execute_command("ACL", "LOG") == []
            used |= {name.removeprefix("cmdstat_") for name in client.info("commandstats")}
    assert {f"+{name}" for name in used} >= rights - unused


@pytest.mark.parametrize("engine", ["redis", "valkey"])
def test_one_server(tmp_path: Path, secret: Path, engine: Engine) -> None:
    server = RedisServer(tmp_path, engine=engine)
    server.start()
    try:
        user, *rules = rule(0)
        with redis.Redis(port=server.port) as client:
            client.execute_command("ACL", "SETUSER", user, *rules)

        async def main() -> None:
            url = f"redis://{user}@127.0.0.1:{server.port}/1"
            async with Fleet(url, 2, secret=secret) as fleet:
                await live_a_registrys_life(fleet)

        asyncio.run(main())
        rights = {word for word in rules if word.startswith("+")}
        # It waits for replicas only where there are some.
        check([server], rights, {*CLUSTER_ONLY, "+wait"})
    finally:
        server.stop()


@pytest.mark.parametrize("engine", ["redis", "valkey"])
def test_a_cluster(tmp_path: Path, secret: Path, engine: Engine) -> None:
    cluster = RedisCluster(tmp_path, replicas=1, node_timeout=15_000, engine=engine)
    cluster.start()
    try:
        user, *rules = rule(0)
        for node in cluster.nodes:
            with cluster.client(node) as client:
                client.execute_command("ACL", "SETUSER", user, *rules)

        async def main() -> None:
            url = f"redis://{user}@127.0.0.1:{cluster.nodes[0].port}"
            async with Fleet(url, 2, secret=secret) as fleet:
                await live_a_registrys_life(fleet)
                link = fleet.receivers[0].link
                source = next(node for node in cluster.nodes if (link.shard(5) or (0, 0))[1] == node.port)
                target = cluster.nodes[(cluster.nodes.index(source) + 1) % 3]
                with cluster.moving(key_slot("5"), source=source, target=target) as move:
                    beats = [fleet.receivers[0].store.record(item) for item in heartbeats(50, 9_100_000)]
                    await asyncio.gather(*beats, return_exceptions=True)
                    await asyncio.to_thread(move)
                await fleet.pulse()

        asyncio.run(main())
        check(cluster.nodes, {word for word in rules if word.startswith("+")}, NOT_IN_A_CLUSTER)
    finally:
        cluster.stop()


def test_sentinels(tmp_path: Path, secret: Path) -> None:
    sentinels = RedisSentinels(tmp_path)
    sentinels.start()
    try:
        user, *rules = rule(1)
        with redis.Redis(port=sentinels.sentinel.port) as client:
            client.execute_command("ACL", "SETUSER", "default", "off")
            client.execute_command("ACL", "SETUSER", user, *rules)

        async def main() -> None:
            names = {"sentinel_username": user, "sentinel_password_file": secret}
            async with linked(sentinels.sentinel, service="chimera", **names) as link:
                assert link.mode == "sentinel"

        asyncio.run(main())
    finally:
        sentinels.stop()
