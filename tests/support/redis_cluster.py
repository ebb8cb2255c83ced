"""Many Redis processes: a cluster of three masters, and a master with a replica under Sentinels."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import redis

from support.ports import free_port
from support.redis import RedisServer
from support.wait import wait_until

if TYPE_CHECKING:
    from pathlib import Path

SHARES = ((0, 5460), (5461, 10922), (10923, 16383))
"""The slots that each master begins with."""


class RedisCluster:
    """Three masters without replicas; each has a third of the slots."""

    def __init__(self, directory: Path) -> None:
        self.nodes = [_Node(directory / f"node{number}") for number in range(len(SHARES))]

    @property
    def url(self) -> str:
        """The first node's URL."""
        return self.nodes[0].url

    def start(self) -> None:
        """Start the nodes, give them their slots, and wait until all of them say that all is well."""
        for node in self.nodes:
            node.start()
        first, *others = (self.client(node) for node in self.nodes)
        for client, node, (low, high) in zip((first, *others), self.nodes, SHARES, strict=True):
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", low, high)
            first.execute_command("CLUSTER", "MEET", "127.0.0.1", node.port, node.bus)
        for client in (first, *others):
            wait_until(lambda client=client: _is_well(client), what="the cluster")
            client.close()

    def stop(self) -> None:
        """Kill the nodes."""
        for node in self.nodes:
            node.stop()

    def client(self, node: RedisServer) -> redis.Redis:
        """Return a client of one node, for commands about the cluster."""
        return redis.Redis(port=node.port)

    def open(self) -> redis.RedisCluster:
        """Return a client that finds each key's node."""
        return redis.RedisCluster(host="127.0.0.1", port=self.nodes[0].port)

    def move(self, slot: int, *, source: RedisServer, target: RedisServer) -> None:
        """Move an empty slot, as a resharding does."""
        with self.client(source) as old, self.client(target) as new:
            names = [client.execute_command("CLUSTER", "MYID") for client in (old, new)]
            new.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", names[0])
            old.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", names[1])
            for client in (new, old):
                client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", names[1])


class RedisSentinels:
    """A master, its replica, and one Sentinel that watches both as `chimera`."""

    service = "chimera"

    def __init__(self, directory: Path, *, password: str = "") -> None:
        for name in ("one", "two", "sentinel"):
            (directory / name).mkdir()
        secret = ("--requirepass", password, "--masterauth", password) if password else ()
        at_once = ("--repl-diskless-sync-delay", "0")
        self.master = RedisServer(directory / "one", *at_once, *secret)
        self.replica = RedisServer(
            directory / "two", *at_once, *secret, "--replicaof", "127.0.0.1", str(self.master.port)
        )
        self._password = password
        self.sentinel = _Sentinel(
            directory / "sentinel" / "sentinel.conf",
            f"""
sentinel monitor {self.service} 127.0.0.1 {self.master.port} 1
sentinel down-after-milliseconds {self.service} 500
sentinel failover-timeout {self.service} 2000
"""
            + (f"sentinel auth-pass {self.service} {password}\n" if password else ""),
        )

    def start(self) -> None:
        """Start all three, and wait until the Sentinel knows the replica as one that it can promote."""
        self.master.start()
        self.replica.start()
        with self.client(self.replica) as client:
            wait_until(lambda: client.info("replication")["master_link_status"] == "up", what="the replica")
        self.sentinel.start()
        wait_until(lambda: self._state().get("num-slaves") == 1, what="the Sentinel's replica")

    def stop(self) -> None:
        """Kill all three."""
        for server in (self.sentinel, self.replica, self.master):
            server.stop()

    def client(self, server: RedisServer) -> redis.Redis:
        """Return a client of one of the two."""
        return redis.Redis(port=server.port, password=self._password or None, decode_responses=True)

    def fail_over(self) -> None:
        """Let the Sentinel promote the other one, while both run."""
        before = self._state()["port"]
        wait_until(self._begins_to_fail_over, what="a replica that the Sentinel thinks well of")
        wait_until(lambda: self._state()["port"] != before, what="the failover")

    def promoted(self) -> bool:
        """Whether the replica is the master now."""
        return bool(self._state()["port"] == self.replica.port)

    def _begins_to_fail_over(self) -> bool:
        with redis.Redis(port=self.sentinel.port) as client:
            try:
                client.execute_command("SENTINEL", "FAILOVER", self.service)
            except redis.ResponseError:
                return False
        return True

    def _state(self) -> dict[str, Any]:
        with redis.Redis(port=self.sentinel.port, decode_responses=True) as client:
            state: dict[str, Any] = client.sentinel_master(self.service)
        return state


class _Sentinel(RedisServer):
    """A redis-server that runs as a Sentinel; it keeps what it knows in its configuration file."""

    def __init__(self, config: Path, text: str) -> None:
        super().__init__(config.parent)
        self._config = config
        self._config.write_text(f"port {self.port}\nbind 127.0.0.1\ndir {config.parent}\n{text}")

    def start(self) -> None:
        """Start the Sentinel and wait until it listens."""
        self._process = subprocess.Popen(
            (self._program, str(self._config), "--sentinel"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(self._listens, what="the Sentinel")


class _Node(RedisServer):
    """A node of a cluster; its bus has a port of its own, because the usual one may be beyond 65535."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.bus = free_port()
        cluster = ("--cluster-enabled", "yes", "--cluster-require-full-coverage", "no")
        bus = ("--cluster-port", str(self.bus), "--cluster-node-timeout", "1000")
        super().__init__(directory, *cluster, *bus)


def _is_well(client: redis.Redis) -> bool:
    said: bytes = client.execute_command("CLUSTER", "INFO")
    return b"cluster_state:ok" in said and b"cluster_known_nodes:%d\r" % len(SHARES) in said
