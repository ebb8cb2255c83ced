"""Many Redis processes: a cluster of three masters, and a master with a replica under Sentinels."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import redis

from support.ports import free_port
from support.redis import RedisServer
from support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from support.redis import Engine

SHARES = ((0, 5460), (5461, 10922), (10923, 16383))
"""The slots that each master begins with."""


class RedisCluster:
    """Three masters; each has a third of the slots.

    Args:
        directory: For the nodes' files.
        replicas: How many replicas each master has; they are the nodes behind the first three.
        node_timeout: Milliseconds after which the nodes think of one that does not answer as failed.
        arguments: Further arguments of every node.
        engine: What the nodes are.
    """

    def __init__(
        self,
        directory: Path,
        *,
        replicas: int = 0,
        node_timeout: int = 1000,
        arguments: Sequence[str] = (),
        engine: Engine = "redis",
    ) -> None:
        self.nodes = [
            _Node(directory / f"node{number}", node_timeout, *arguments, engine=engine)
            for number in range(len(SHARES) * (1 + replicas))
        ]

    @property
    def url(self) -> str:
        """The first node's URL."""
        return self.nodes[0].url

    def start(self) -> None:
        """Start the nodes, give them their slots, and wait until all of them say that all is well."""
        for node in self.nodes:
            node.start()
        clients = [self.client(node) for node in self.nodes]
        for epoch, client in enumerate(clients, 1):
            # Else two may believe for good that the other one has a slot that was moved soon afterwards.
            with suppress(redis.ResponseError):  # it has one of its own already
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", epoch)
        for client, (low, high) in zip(clients[: len(SHARES)], SHARES, strict=True):
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", low, high)
        for node in self.nodes:
            clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", node.port, node.bus)
        for client in clients:
            wait_until(lambda client=client: _is_well(client, len(clients)), what="the cluster")
        names = [client.execute_command("CLUSTER", "MYID") for client in clients]
        for number, client in enumerate(clients[len(SHARES) :]):
            client.execute_command("CLUSTER", "REPLICATE", names[number % len(SHARES)])
        for client in clients[len(SHARES) :]:
            wait_until(lambda client=client: _follows(client), what="the replica")
        servers = len(clients) // len(SHARES)
        for client in clients:
            wait_until(lambda client=client: _tells(client, servers), what="what all nodes know")
        for client in clients:
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
        with self.moving(slot, source=source, target=target) as move:
            move()

    @contextmanager
    def moving(self, slot: int, *, source: RedisServer, target: RedisServer) -> Iterator[Callable[[], None]]:
        """Have a slot on its way, as a resharding does; what is yielded moves its keys and ends it."""
        with self.client(source) as old, self.client(target) as new:
            names = [client.execute_command("CLUSTER", "MYID") for client in (old, new)]
            new.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", names[0])
            old.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", names[1])

            def move() -> None:
                while keys := old.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
                    old.execute_command(
                        "MIGRATE", "127.0.0.1", target.port, "", 0, 60_000, "REPLACE", "KEYS", *keys
                    )
                for client in (new, old):
                    client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", names[1])

            yield move


class RedisSentinels:
    """A master, its replica, and one Sentinel that watches both as `chimera`."""

    service = "chimera"

    def __init__(self, directory: Path, *, password: str = "", engine: Engine = "redis") -> None:
        for name in ("one", "two", "sentinel"):
            (directory / name).mkdir()
        secret = ("--requirepass", password, "--masterauth", password) if password else ()
        at_once = ("--repl-diskless-sync-delay", "0")
        self.master = RedisServer(directory / "one", *at_once, *secret, engine=engine)
        self.replica = RedisServer(
            directory / "two",
            *at_once,
            *secret,
            *("--replicaof", "127.0.0.1", str(self.master.port)),
            engine=engine,
        )
        self._password = password
        self.sentinel = _Sentinel(
            directory / "sentinel" / "sentinel.conf",
            f"""
sentinel monitor {self.service} 127.0.0.1 {self.master.port} 1
sentinel down-after-milliseconds {self.service} 5000
sentinel failover-timeout {self.service} 60000
"""
            + (f"sentinel auth-pass {self.service} {password}\n" if password else ""),
            engine,
        )

    def start(self) -> None:
        """Start all three, and wait until the Sentinel knows the replica as one that it can promote."""
        self.master.start()
        self.replica.start()
        with self.client(self.replica) as client:
            wait_until(lambda: client.info("replication")["master_link_status"] == "up", what="the replica")
        with self.client(self.master) as client:
            wait_until(lambda: client.info("replication")["slave0"]["state"] == "online", what="the replica")
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

    def __init__(self, config: Path, text: str, engine: Engine) -> None:
        super().__init__(config.parent, engine=engine)
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

    def __init__(self, directory: Path, node_timeout: int, *arguments: str, engine: Engine) -> None:
        directory.mkdir()
        self.bus = free_port()
        cluster = ("--cluster-enabled", "yes", "--cluster-require-full-coverage", "no")
        bus = ("--cluster-port", str(self.bus), "--cluster-node-timeout", str(node_timeout))
        at_once = ("--repl-diskless-sync-delay", "0")
        super().__init__(directory, *cluster, *bus, *at_once, *arguments, engine=engine)


def _is_well(client: redis.Redis, nodes: int) -> bool:
    said: bytes = client.execute_command("CLUSTER", "INFO")
    lines = said.split(b"\r\n")
    return {b"cluster_state:ok", b"cluster_slots_assigned:16384", b"cluster_known_nodes:%d" % nodes} <= {
        *lines
    }


def _follows(client: redis.Redis) -> bool:
    """Whether a replica has all that its master had."""
    return bool(client.info("replication").get("master_link_status") == "up")


def _tells(client: redis.Redis, servers: int) -> bool:
    """Whether a node names so many servers for each range of slots."""
    ranges: list[list[Any]] = client.execute_command("CLUSTER", "SLOTS")
    return all(len(said) == 2 + servers for said in ranges)
