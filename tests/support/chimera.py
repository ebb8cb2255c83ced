"""The chimera plugin's collector on a test's own Redis."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import redis

from openclaw_exporter.plugin import Capacity, QueueDepth
from openclaw_exporter.plugin.guard import Guard
from openclaw_exporter.plugin.options import read_table
from openclaw_exporter_chimera import Options, Queues

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.redis import RedisServer


class Bench:
    """A Redis server, a client that plays Chimera, and collectors that are closed afterwards."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.client = redis.Redis(port=server.port)
        self._collectors: list[Queues] = []

    def queues(self, *, url: str = "", **table: Any) -> Queues:
        """Return the collector `queues` of this table."""
        options = read_table(Options, {"url": url or self.server.url, **table}, key="plugins.chimera")
        self._collectors.append(Queues(options))
        return self._collectors[-1]

    def close(self) -> None:
        """Close the client and the collectors."""
        self.client.close()
        for collector in self._collectors:
            collector.close()

    def commands(self, act: Callable[[], object]) -> dict[str, int]:
        """Return how often each command ran while something was done, as the server counted."""
        self.client.config_resetstat()
        act()
        stats: dict[str, Any] = self.client.info("commandstats")
        ours = {name.removeprefix("cmdstat_"): int(stat["calls"]) for name, stat in stats.items()}
        return {name: calls for name, calls in ours.items() if name not in {"config|resetstat", "info"}}

    def round_trips(self, act: Callable[[], object]) -> int:
        """Return how many batches a server read while something was done."""
        before = self._reads()
        act()
        return self._reads() - before - 1  # the second INFO is a read of its own

    def _reads(self) -> int:
        return int(self.client.info("stats")["total_reads_processed"])


def observed(queues: Queues) -> list[Any]:
    """Collect through the host's edge, which must refuse nothing, and return the observations."""
    checked = Guard().check(queues.collect())
    assert checked.rejected == ()
    return list(checked.observations)


def depths(queues: Queues) -> dict[str, int]:
    """Collect and return the depth of each topic."""
    return {o.topic: o.depth for o in observed(queues) if isinstance(o, QueueDepth)}


def ages(queues: Queues) -> dict[str, float | None]:
    """Collect and return the age of each topic's oldest message."""
    return {o.topic: o.oldest_age for o in observed(queues) if isinstance(o, QueueDepth)}


def capacity(queues: Queues) -> dict[str, float]:
    """Collect and return the capacities."""
    return {o.resource: o.amount for o in observed(queues) if isinstance(o, Capacity)}


def partial(queues: Queues) -> tuple[dict[str, int], list[str]]:
    """Collect and return the known depths and the errors."""
    found = queues.collect()
    known = {o.topic: o.depth for o in found if isinstance(o, QueueDepth)}
    return known, [str(o) for o in found if isinstance(o, Exception)]


def elsewhere(server: RedisServer, code: str) -> None:
    """Run code with a client `r` in another process."""
    program = f"import redis\nr = redis.Redis(port={server.port})\n{code}\nr.close()\n"
    subprocess.run((sys.executable, "-c", program), check=True)
