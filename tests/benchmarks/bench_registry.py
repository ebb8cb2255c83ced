"""What the registry itself costs by the number of nodes that it knows: memory, restart, mass expiry, disk.

    python tests/benchmarks/bench_registry.py [NODES …]

For each size, in a process of its own and on a real file: heartbeats of nodes drawn at random go through the
embedded store (CPU a heartbeat, the commit included); then resident memory and bytes on the disk by node;
the time that a restart takes, to a store that answers and has expired nobody; and the longest that the event
loop is held up (its own CPU) while all nodes expire at once. Goals: at most 1.5 KiB a node, a restart within
20 s and 100 ms of hold-up at a million nodes, and the same CPU at every size within 20 %.
"""

from __future__ import annotations

import asyncio
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

sys.path.insert(0, str(Path(__file__).parent.parent))

import psutil
import uvloop
from interpreter import announce
from opentelemetry.metrics import NoOpMeterProvider

from openclaw_exporter.receiver.clock import SystemClock
from openclaw_exporter.receiver.discovery.events import Hub
from openclaw_exporter.receiver.discovery.observers import Observers
from openclaw_exporter.receiver.liveness import Arrival, Rules
from openclaw_exporter.receiver.metrics import ReceiverMetrics
from openclaw_exporter.receiver.query import Query
from openclaw_exporter.receiver.store.embedded import EmbeddedStore
from openclaw_exporter.receiver.store.sqlite import Database
from openclaw_exporter.wire.headers import Sequence
from openclaw_exporter.wire.heartbeat import decode, digest, encode
from openclaw_exporter.wire.timestamps import format_ms

if TYPE_CHECKING:
    from collections.abc import Iterable

SIZES = (10_000, 100_000)
IN_FLIGHT = 128
INTERVAL = 600
"""Long enough that nobody expires while a crowded machine registers a million."""

ROUNDS = 5
ROUND_BEATS = 20_000
MIB = 2**20


class Skipping(SystemClock):
    """This machine's clocks, with time that is left out."""

    def __init__(self) -> None:
        self.skipped = 0.0

    def elapsed(self) -> float:
        """Seconds, those left out included."""
        return super().elapsed() + self.skipped


class Lag(NamedTuple):
    """How the loop was held up.

    Attributes:
        longest: At worst, seconds.
        seconds: How long it all took.
    """

    longest: float
    seconds: float


def beat(node: int, number: int, first_ms: int) -> Arrival:
    """Return a node's next heartbeat as the intake lets it in."""
    node_id = str(UUID(int=node * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128))
    text = (
        f'{{"capacity":{{"available_slots":5,"workers":24}},"hostname":"chimera-{node % 997:03}.prod",'
        f'"last_heartbeat":"{format_ms(first_ms + number)}","node_id":"{node_id}","queue_depth":'
        f'{{"planner":3,"worker":120}},"tags":["region:us-east-{node % 4}","gpu:true","env:prod",'
        f'"swarm:blue"],"uptime_seconds":{86400 + number},"version":"1.2.{node % 3}"}}'
    )
    heartbeat = decode(text.encode())
    payload = encode(heartbeat)
    return Arrival(
        node_id=node_id,
        payload=payload,
        digest=digest(payload),
        tags=tuple(map(sys.intern, heartbeat.tags)),
        version=sys.intern(heartbeat.version),
        slots=5,
        sent_ms=first_ms + number,
        sequence=Sequence(first_ms, number),
        interval=INTERVAL,
    )


class Bench:
    """One store of one size."""

    def __init__(self, path: Path, nodes: int) -> None:
        self.path = path
        self.nodes = nodes
        self.clock = Skipping()
        self.first_ms = self.clock.wall_ms()
        self.number = 0
        self.store = self.make()

    def make(self) -> EmbeddedStore:
        """Return a store over the file."""
        metrics = ReceiverMetrics(NoOpMeterProvider().get_meter("bench"), "sqlite")
        observers = Observers(metrics, Hub(4096))
        rules = Rules(default_interval=INTERVAL, max_interval=INTERVAL, retention=86_400.0)
        return EmbeddedStore(Database(self.path), rules, self.clock, observers)

    async def publish(self, arrivals: Iterable[Arrival]) -> None:
        """Record arrivals, so many at once."""
        batch: list[asyncio.Future[object]] = []
        for arrival in arrivals:
            batch.append(self.store.record(arrival))  # type: ignore[arg-type] # only awaited
            if len(batch) == IN_FLIGHT:
                await asyncio.gather(*batch)
                batch.clear()
                self.store.tick()
        await asyncio.gather(*batch)

    async def register(self) -> None:
        """Let every node beat once."""
        await self.publish(beat(node, 0, self.first_ms) for node in range(self.nodes))

    async def cost(self) -> float:
        """Return CPU microseconds a heartbeat, the medians of some rounds."""
        rounds = []
        for _ in range(ROUNDS):
            drawn = []
            for _ in range(ROUND_BEATS):
                self.number += 1
                drawn.append(beat(random.randrange(self.nodes), self.number, self.first_ms))
            started = time.process_time()
            await self.publish(drawn)
            rounds.append((time.process_time() - started) / ROUND_BEATS * 1e6)
        return statistics.median(rounds)

    async def restart(self) -> tuple[float, float]:
        """Kill the store and start it again; return seconds and CPU seconds until it answers."""
        self.store._available = False
        await self.store.close()
        started, cpu = time.monotonic(), time.process_time()
        self.store = self.make()
        await self.store.open()
        page = await self.store.page(Query(limit=1))
        took = time.monotonic() - started, time.process_time() - cpu
        states = {state.state for state in self.store._registry.nodes.values()}
        assert states == {"up"}, states
        assert len(self.store._registry.nodes) == self.nodes
        assert page.nodes
        return took

    async def expire(self) -> Lag:
        """Let all nodes fall silent; return how the loop was held up until the last has expired."""
        ended = asyncio.Event()
        lags = [0.0]

        async def watch() -> None:
            while not ended.is_set():
                # The thread's own CPU: what other programs do on this machine is not the loop's fault.
                before = time.thread_time()
                await asyncio.sleep(0.001)
                lags.append(time.thread_time() - before)

        watching = asyncio.create_task(watch())
        started = time.monotonic()
        # Past lateness, the deadline and all that the brake may hold, in steps that are no stall.
        for _ in range(8 * INTERVAL // 4):
            while self.store._busy_since is not None:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.005)
            self.clock.skipped += 4
            self.store.tick()
            await asyncio.sleep(0.01)
        # Counted in slices, so that the counting holds nothing up.
        waiting = list(self.store._registry.nodes)
        while waiting:
            self.store.tick()
            some, waiting = waiting[-1000:], waiting[:-1000]
            waiting += [name for name in some if self.store._registry.nodes[name].state != "expired"]
            await asyncio.sleep(0 if len(some) > len(waiting) else 0.01)
        ended.set()
        await watching
        return Lag(max(lags), time.monotonic() - started)


async def measure(path: Path, nodes: int) -> None:
    """Print the line of one size."""
    process = psutil.Process()
    bench = Bench(path, nodes)
    await bench.store.open()
    empty = process.memory_info().rss
    await bench.register()
    cost = await bench.cost()
    await bench.restart()
    # Twice: the first one leaves the memory of the store before it.
    seconds, cpu = await bench.restart()
    disk = sum(file.stat().st_size for file in path.parent.iterdir())
    resident = process.memory_info().rss - empty
    lag = await bench.expire()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        f"{nodes:>9,} {cost:8.1f} µs {resident / nodes / 1024:10.2f} KiB {peak / MIB:8.0f} MiB "
        f"{disk / nodes / 1024:8.2f} KiB {seconds:8.1f} s {cpu:6.1f} s "
        f"{lag.longest * 1000:8.0f} ms {lag.seconds:8.1f} s",
        flush=True,
    )
    await bench.store.close()


def main() -> None:
    """Measure each size in a process of its own."""
    if len(sys.argv) == 3 and sys.argv[1] == "--one":
        with tempfile.TemporaryDirectory() as directory:
            uvloop.run(measure(Path(directory) / "registry.sqlite", int(sys.argv[2])))
        return
    announce()
    print(
        "    nodes  CPU a beat  memory a node     peak  disk a node  restart  its CPU  held up  all expired"
    )
    for nodes in [int(size) for size in sys.argv[1:]] or SIZES:
        subprocess.run([sys.executable, __file__, "--one", str(nodes)], check=True)


if __name__ == "__main__":
    main()
