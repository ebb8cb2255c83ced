"""The chimera plugin's ways to Redis: real Sentinels with a failover, and a real cluster of three masters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from openclaw_exporter_chimera import Options, Queues
from openclaw_exporter_chimera.links import key_slot as our_key_slot
from support.chimera import depths, partial
from support.ports import free_port
from support.redis_cluster import SHARES, RedisCluster, RedisSentinels
from support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.redis import RedisServer


@pytest.fixture
def sentinels(tmp_path: Path) -> Iterator[RedisSentinels]:
    servers = RedisSentinels(tmp_path)
    try:
        servers.start()
        yield servers
    finally:
        servers.stop()


@pytest.fixture(scope="module")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    cluster = RedisCluster(tmp_path_factory.mktemp("cluster"), node_timeout=15_000)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def cluster(shared_cluster: RedisCluster) -> RedisCluster:
    for node in shared_cluster.nodes:
        with shared_cluster.client(node) as client:
            client.flushall()
    return shared_cluster


def behind(servers: RedisSentinels, **more: object) -> Queues:
    """Return a collector that knows the Sentinel only."""
    away = f"127.0.0.1:{free_port()}"
    table = {"url": servers.sentinel.url, "nodes": (away,), "mode": "sentinel", "service": servers.service}
    return Queues(Options(queues={"worker": ("task_queue",)}, **{**table, **more}))  # type: ignore[arg-type]


def test_the_master_that_sentinels_name_is_followed_through_a_failover(sentinels: RedisSentinels) -> None:
    queues = behind(sentinels)
    with sentinels.client(sentinels.master) as client:
        client.lpush("task_queue", 1, 2)
        assert client.wait(1, 60_000) == 1
    assert depths(queues) == {"worker": 2}
    sentinels.fail_over()
    assert sentinels.promoted()
    with sentinels.client(sentinels.replica) as client:
        wait_until(lambda: client.info("replication")["role"] == "master", what="the promotion")
        client.lpush("task_queue", 3)
    # The old master still runs, and takes itself for one for seconds: what it says does not count.
    assert depths(queues) == {"worker": 3}
    queues.close()


def test_a_killed_master_is_unknown_until_the_sentinel_has_another(sentinels: RedisSentinels) -> None:
    queues = behind(sentinels)
    with sentinels.client(sentinels.master) as client:
        client.lpush("task_queue", 1, 2)
        assert client.wait(1, 60_000) == 1
    assert depths(queues) == {"worker": 2}
    sentinels.master.stop()
    with pytest.raises(ConnectionError, match="cannot be read"):
        queues.collect()

    def again() -> dict[str, int]:
        try:
            return depths(queues)
        except ConnectionError:
            return {}

    assert wait_until(again, what="the promoted replica") == {"worker": 2}
    queues.close()


def test_sentinels_that_are_away_or_do_not_know_the_name_are_said(sentinels: RedisSentinels) -> None:
    unknown = behind(sentinels, service="other")
    with pytest.raises(ConnectionError, match="knows no master 'other'"):
        unknown.collect()
    unknown.close()
    sentinels.sentinel.stop()
    away = behind(sentinels)
    with pytest.raises(ConnectionError, match=r"a Sentinel: .*Connection refused"):
        away.collect()


def test_the_password_is_for_redis_and_not_for_the_sentinel(tmp_path: Path) -> None:
    servers = RedisSentinels(tmp_path, password="right")  # noqa: S106 - the test's own server
    secret = tmp_path / "password"
    secret.write_text("wrong")
    servers.start()
    queues = behind(servers, password_file=secret)
    with pytest.raises(PermissionError, match="refuses the user name or password"):
        queues.collect()
    secret.write_text("right")
    assert depths(queues) == {"worker": 0}
    queues.close()
    servers.stop()


def of(cluster: RedisCluster, **table: object) -> Queues:
    """Return a collector that knows the first node only."""
    return Queues(Options(url=cluster.url, mode="cluster", **table))  # type: ignore[arg-type]


@given(st.lists(st.sampled_from([b"{", b"}", b"a", b"task", b"\xff"]), max_size=8).map(b"".join))
def test_a_key_has_the_slot_that_clients_give_it(key: bytes) -> None:
    assert our_key_slot(key) == key_slot(key)


def test_a_cluster_is_read_on_all_of_its_masters(cluster: RedisCluster) -> None:
    queues = of(
        cluster, queues={"planner": ("planner:queue:*",), "worker": ("task_queue",), "judge": ("review", "s")}
    )
    with cluster.open() as client:
        for number in range(30):
            client.lpush(f"planner:queue:{number}", 1, 2)
        client.zadd("task_queue", {"a": 1})
        client.xgroup_create("s", "g", id="0", mkstream=True)
        client.xadd("s", {"a": 1})
        client.lpush("review", 1)
    assert depths(queues) == {"planner": 60, "worker": 1, "judge": 2}
    with cluster.open() as client:
        client.lpush("planner:queue:new", 1)
        client.delete("review")
    assert depths(queues) == {"planner": 61, "worker": 1, "judge": 1}
    clients = [cluster.client(node) for node in cluster.nodes]
    before = [client.info("stats")["total_reads_processed"] for client in clients]
    depths(queues)
    # One batch for each master, and our own second INFO.
    assert [c.info("stats")["total_reads_processed"] - n for c, n in zip(clients, before, strict=True)] == [
        2
    ] * 3
    for client in clients:
        client.close()
    queues.close()


def home(cluster: RedisCluster, key: str) -> RedisServer:
    """Return the master that a key begins at."""
    slot = key_slot(key.encode())
    return next(node for node, (low, high) in zip(cluster.nodes, SHARES, strict=True) if low <= slot <= high)


def test_a_master_that_is_away_costs_its_own_keys_and_comes_back(cluster: RedisCluster) -> None:
    here, there = "k1", next(f"k{n}" for n in range(2, 99) if home(cluster, f"k{n}") != home(cluster, "k1"))
    queues = of(cluster, queues={"worker": (here,), "judge": (there,), "planner": ("p:*",)})
    assert depths(queues) == {"worker": 0, "judge": 0, "planner": 0}
    home(cluster, there).stop()
    for _ in range(2):
        known, errors = partial(queues)
        assert known == {"worker": 0}
        assert len(errors) == 2
        assert repr(there) in errors[0]
        assert "pattern 'p:*'" in errors[1]
    home(cluster, there).start()
    back = ({"worker": 0, "judge": 0, "planner": 0}, [])
    wait_until(lambda: partial(queues) == back, what="the master")
    queues.close()


def test_a_slot_that_has_moved_is_followed(cluster: RedisCluster) -> None:
    key = "task_queue"
    queues = of(cluster, queues={"worker": (key,)})
    assert depths(queues) == {"worker": 0}
    source = home(cluster, key)
    other = next(node for node in cluster.nodes if node != source)
    cluster.move(key_slot(key.encode()), source=source, target=other)
    with cluster.client(other) as client:
        client.lpush(key, 1)
        assert depths(queues) == {"worker": 1}
        client.delete(key)
    cluster.move(key_slot(key.encode()), source=other, target=source)
    queues.close()


def test_a_key_that_went_ahead_of_its_slot_is_followed(cluster: RedisCluster) -> None:
    key = "task_queue"
    slot, source = key_slot(key.encode()), home(cluster, key)
    target = next(node for node in cluster.nodes if node != source)
    queues = of(cluster, queues={"worker": (key,)})
    with cluster.client(source) as old, cluster.client(target) as new:
        ids = [client.execute_command("CLUSTER", "MYID") for client in (old, new)]
        old.lpush(key, 1, 2)
        assert depths(queues) == {"worker": 2}
        new.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
        old.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
        old.execute_command("MIGRATE", "127.0.0.1", target.port, key, 0, 60_000)
        assert depths(queues) == {"worker": 2}
        new.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[1])
        old.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[1])
        new.delete(key)
    cluster.move(slot, source=target, target=source)
    queues.close()


def test_a_cluster_without_slots_is_unknown_and_not_zero(tmp_path: Path) -> None:
    node = RedisCluster(tmp_path).nodes[0]
    node.start()
    queues = Queues(Options(url=node.url, mode="cluster", queues={"worker": ("q:*",)}))
    with pytest.raises(ConnectionError, match="no master of the cluster has slots"):
        queues.collect()
    queues.close()
    node.stop()


def test_a_server_that_is_no_cluster_is_said(redis_server: RedisServer) -> None:
    queues = Queues(Options(url=redis_server.url, mode="cluster", queues={"worker": ("a",)}))
    with pytest.raises(ConnectionError, match="cluster support disabled"):
        queues.collect()
    queues.close()
