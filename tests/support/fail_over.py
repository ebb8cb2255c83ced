"""Primaries of a Redis Cluster that die, and replicas that take their place."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import redis

from support.redis_cluster import SHARES
from support.wait import wait_until

if TYPE_CHECKING:
    from support.redis import RedisServer
    from support.redis_cluster import RedisCluster


class Kill(NamedTuple):
    """A primary's end.

    Attributes:
        at: When, Unix seconds.
        primary: Its port.
        replica: The port of the one that took over.
    """

    at: float
    primary: int
    replica: int


class FailOver:
    """Kills primaries of a cluster of which each has one replica.

    Args:
        cluster: Started.

    Attributes:
        kills: What was killed so far.
    """

    def __init__(self, cluster: RedisCluster) -> None:
        self.kills: list[Kill] = []
        self._cluster = cluster
        count = len(SHARES)
        self._shards = list(zip(cluster.nodes[:count], cluster.nodes[count:], strict=True))

    def kill(self, shard: int) -> float:
        """Kill a shard's primary; return when its replica had taken over, by `time.monotonic`.

        The killed one comes back as a replica: without that the next primary would have none.
        """
        pair = self._shards[shard]
        primary, replica = wait_until(lambda: _in_order(pair), what="a replica that has everything")
        self.kills.append(Kill(time.time(), primary.port, replica.port))
        primary.stop()
        wait_until(lambda: (_ask(replica, "ROLE") or [None])[0] == b"master", what="the fail-over")
        wait_until(lambda: _is_well(replica), what="the cluster's health")
        moment = time.monotonic()
        primary.start()
        return moment

    def settle(self) -> None:
        """Wait until every primary has its replica again."""
        for pair in self._shards:
            wait_until(lambda pair=pair: _in_order(pair), what="a replica that has everything")

    def stop(self) -> None:
        """Kill all of them at once."""
        self._cluster.stop()

    def start(self) -> None:
        """Start all of them again, with what they have on their disks."""
        for node in self._cluster.nodes:
            node.start()
        for node in self._cluster.nodes:
            wait_until(lambda node=node: _is_well(node), what="the cluster's health")


def _in_order(pair: tuple[RedisServer, RedisServer]) -> tuple[RedisServer, RedisServer] | None:
    """Return a primary and its replica, where that has all that the primary has.

    Nodes that get no time from a crowded machine may have changed places by themselves.
    """
    for primary, replica in (pair, pair[::-1]):
        leads, follows = _ask(primary, "ROLE"), _ask(replica, "ROLE")
        if (
            leads
            and follows
            and (leads[0], follows[0], follows[3:4]) == (b"master", b"slave", [b"connected"])
            and leads[2]
        ):
            return primary, replica
    return None


def _is_well(node: RedisServer) -> bool:
    return b"cluster_state:ok" in (_ask(node, "CLUSTER", "INFO") or b"")


def _ask(node: RedisServer, *command: str) -> Any:
    """Return a node's answer; None where it gives none now."""
    with contextlib.suppress(redis.RedisError), redis.Redis(port=node.port, socket_timeout=5) as client:
        return client.execute_command(*command)
    return None
