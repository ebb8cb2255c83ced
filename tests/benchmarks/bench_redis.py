"""What a heartbeat costs a Redis, and the receiver that keeps its registry there.

    python tests/benchmarks/bench_redis.py [NODES …]

A Redis with an append-only file (fsync every second) is started on loopback and filled with 10 000 and
100 000 nodes. Then they beat as fast as it is taken, in waves of 512, and a second receiver follows. Printed
are medians of five rounds: CPU of Redis for a heartbeat (INFO cpu, the follower included), of the receiver's
process that stores it, of the one that follows; and memory of Redis for a node with its first heartbeat, and
for one with its arrivals of an hour. Before each size the same server is sent what a registry without order,
idempotency, events or followers would send: `SET node heartbeat EX 180`, sixteen in a pipeline.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from interpreter import announce  # noqa: E402
from receiver.virtual import arrival, node_id  # noqa: E402

from openclaw_exporter.receiver.clock import SystemClock  # noqa: E402
from openclaw_exporter.receiver.discovery.events import Hub  # noqa: E402
from openclaw_exporter.receiver.liveness import Rules  # noqa: E402
from openclaw_exporter.receiver.store.redis.address import Target, parse  # noqa: E402
from openclaw_exporter.receiver.store.redis.link import Link  # noqa: E402
from openclaw_exporter.receiver.store.redis.scripts import ALL  # noqa: E402
from openclaw_exporter.receiver.store.redis.store import RedisStore  # noqa: E402
from openclaw_exporter.wire.headers import Sequence  # noqa: E402
from openclaw_exporter.wire.heartbeat import build, digest, encode  # noqa: E402
from openclaw_exporter.wire.timestamps import format_ms  # noqa: E402
from support.redis import RedisServer  # noqa: E402

if TYPE_CHECKING:
    from openclaw_exporter.receiver.liveness import Arrival, Event, NodeState

ROUNDS = 5
WAVE = 512
BEATS = 20_000
PARTITIONS = 16
PIPELINE = 16
GOAL = 15 / 9
"""Of CPU of Redis, by that of the plain command."""


class Nobody:
    """An observer that wants nothing."""

    wants_updates = False

    def happened(self, event: Event, state: NodeState) -> None: ...
    def heard(self, gap: float | None, skew_ms: int) -> None: ...
    def updated(self, state: NodeState) -> None: ...
    def timed(self, operation: str, seconds: float) -> None: ...


def new_store(url: str) -> RedisStore:
    target = Target(hosts=parse(url).hosts, timeout=30.0, partitions=PARTITIONS)
    link = Link(target, ALL)
    return RedisStore(link, PARTITIONS, Rules(), SystemClock(), Nobody(), Hub(1000), max_waiting=100_000)


def beat(number: int, round_: int) -> Arrival:
    """Return a heartbeat as an agent sends it: 330 bytes."""
    node, sent_ms = node_id(number), 1_750_000_000_000 + round_ * 60_000
    payload = encode(
        build(
            node_id=node,
            hostname=f"worker-{number}.prod.example",
            version="2.4.1",
            capacity={"workers": 8, "available_slots": 3, "gpus": 1, "memory": 64},
            queue_depth={"planner": 12, "worker": 340, "judge": 7},
            last_heartbeat=format_ms(sent_ms),
            tags=("region:us-east-1", "env:prod", "gpu:true", "swarm:blue"),
        )
    )
    return arrival(
        node,
        sent_ms,
        payload=payload,
        digest=digest(payload),
        slots=3,
        tags=("region:us-east-1", "env:prod", "gpu:true", "swarm:blue"),
        version="2.4.1",
        interval=60,
        sequence=Sequence(1, round_),
    )


async def publish(store: RedisStore, beats: list[Arrival]) -> None:
    for start in range(0, len(beats), WAVE):
        outcomes = await asyncio.gather(*(store.record(item) for item in beats[start : start + WAVE]))
        assert all(outcome.kind == "recorded" for outcome in outcomes)


async def ticking(store: RedisStore) -> None:
    while True:
        await asyncio.sleep(0.25)
        store.tick()


def follower(url: str, pipe: Any) -> None:
    """Follow until the other end of the pipe says so; answers with its CPU seconds whenever it is asked."""

    async def main() -> None:
        store = new_store(url)
        await store.open()
        task = asyncio.create_task(ticking(store))
        loop = asyncio.get_running_loop()
        pipe.send(0.0)
        while await loop.run_in_executor(None, pipe.recv):
            pipe.send(time.process_time())
        task.cancel()
        await store.close()

    asyncio.run(main())


def asked(pipe: Any) -> float:
    pipe.send(True)
    return float(pipe.recv())


def cpu_of(client: redis.Redis) -> float:
    info: Any = client.info("cpu")
    return float(info["used_cpu_user"] + info["used_cpu_sys"])


def memory_of(client: redis.Redis) -> int:
    info: Any = client.info("memory")
    return int(info["used_memory"])


def size_of(client: redis.Redis, key: str) -> int:
    size: Any = client.memory_usage(key, samples=0)
    return int(size or 0)


async def hour_of(client: redis.Redis, store: RedisStore) -> int:
    """Return how many bytes the older arrivals of a node take that beats for an hour: all but six at most."""
    node = 10_000_000
    for round_ in range(60):
        await store.record(beat(node, round_))
    (key,) = client.scan_iter(match=f"*:seen:{node_id(node)}", count=100_000)
    return size_of(client, key.decode())


def plain(client: redis.Redis) -> float:
    """Return what the plain command costs Redis, microseconds."""
    beats = [beat(number, 0) for number in range(BEATS)]
    figures = []
    for _ in range(ROUNDS):
        before = cpu_of(client)
        for start in range(0, BEATS, PIPELINE):
            pipeline = client.pipeline(transaction=False)
            for item in beats[start : start + PIPELINE]:
                pipeline.set(item.node_id, item.payload, ex=180)
            pipeline.execute()
        figures.append((cpu_of(client) - before) / BEATS * 1e6)
    return statistics.median(figures)


async def measure(server: RedisServer, nodes: int) -> None:
    client = redis.Redis(port=server.port)
    plain_us = plain(client)
    client.flushall()
    empty = memory_of(client)
    store = new_store(server.url)
    await store.open()
    task = asyncio.create_task(ticking(store))
    for start in range(1, nodes + 1, 10_000):
        await publish(store, [beat(number, 0) for number in range(start, min(start + 10_000, nodes + 1))])
    await asyncio.sleep(3)
    changes = sum(size_of(client, f"openclaw:{{{one}}}:changes") for one in range(PARTITIONS))
    first = memory_of(client) - empty - changes
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    other = spawn.Process(target=follower, args=(server.url, there), daemon=True)
    other.start()
    here.recv()
    figures: list[tuple[float, float, float]] = []
    sent = 0
    for _ in range(ROUNDS):
        beats = [beat(1 + number % nodes, 1 + number // nodes) for number in range(sent, sent + BEATS)]
        sent += BEATS
        before = cpu_of(client), time.process_time(), asked(here)
        await publish(store, beats)
        await asyncio.sleep(0.5)
        after = cpu_of(client), time.process_time(), asked(here)
        spent = [(b - a) / BEATS * 1e6 for a, b in zip(before, after, strict=True)]
        figures.append((spent[0], spent[1], spent[2]))
    redis_us, own_us, other_us = (statistics.median(column) for column in zip(*figures, strict=True))
    print(
        f"{nodes:>9,} nodes: Redis {redis_us:.1f} µs a heartbeat = {redis_us / plain_us:.2f} x SET EX "
        f"({plain_us:.1f}; goal {GOAL:.2f}), receiver {own_us:.1f}, "
        f"follower {other_us:.1f}; {first / nodes:,.0f} bytes a node in Redis with its first heartbeat; "
        f"{await hour_of(client, store):,} bytes more with the sixty of an hour"
    )
    here.send(False)
    other.join(30)
    task.cancel()
    await store.close()
    client.close()


def main() -> None:
    sizes = [int(text.replace("_", "")) for text in sys.argv[1:]] or [10_000, 100_000]
    with tempfile.TemporaryDirectory() as directory:
        server = RedisServer(Path(directory), "--appendonly", "yes")
        server.start()
        try:
            print(f"Redis with an append-only file, {os.cpu_count()} cores, medians of {ROUNDS}")
            for nodes in sizes:
                asyncio.run(measure(server, nodes))
        finally:
            server.stop()


if __name__ == "__main__":
    announce()
    main()
