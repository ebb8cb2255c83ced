"""What it costs to ask a large registry: milliseconds of CPU for a page, and how long it holds the loop.

    python tests/benchmarks/bench_discovery.py [NODES]

A registry of a million nodes by default, in memory, as the embedded store has it. Each figure is the median
of five; the peer in the same run is a filter over all nodes, which is what an index saves.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import time
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

sys.path.insert(0, str(Path(__file__).parents[1]))

from interpreter import announce
from receiver.virtual import RULES, VirtualClock

from openclaw_exporter.receiver.discovery.capacity import CapacityDesk
from openclaw_exporter.receiver.discovery.index import Index
from openclaw_exporter.receiver.listening import ListeningClock
from openclaw_exporter.receiver.liveness import NodeState
from openclaw_exporter.receiver.query import Query, scan, select
from openclaw_exporter.receiver.registry import Registry
from openclaw_exporter.wire.heartbeat import build, encode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

ROUNDS = 5


def states(count: int) -> list[NodeState]:
    """Return a fleet: five regions, forty swarms, every hundredth node late, every thousandth expired."""
    dice = random.Random(5)
    tag_sets = [
        (f"region:r{region}", f"swarm:s{swarm}", f"gpu:{gpu}")
        for region in range(5)
        for swarm in range(40)
        for gpu in ("true", "false")
    ]
    fleet = []
    for number in range(count):
        slots = dice.randrange(33)
        tags = tag_sets[dice.randrange(len(tag_sets))]
        heartbeat = build(
            node_id=str(UUID(int=dice.getrandbits(128), version=4)),
            hostname=f"n{number}.prod.example",
            version="1.2.0",
            capacity={"workers": 32, "available_slots": slots},
            queue_depth={"planner": dice.randrange(100), "worker": dice.randrange(1000)},
            last_heartbeat="2026-02-06T12:34:56Z",
            tags=tags,
        )
        state = "expired" if number % 1000 == 0 else "late" if number % 100 == 0 else "up"
        fleet.append(
            NodeState(
                node_id=heartbeat.node_id,
                payload=encode(heartbeat),
                tags=tags,
                version="1.2.0",
                slots=slots,
                sent_ms=1,
                newest_ms=1,
                epoch=-1,
                number=-1,
                first_seen_ms=1,
                last_seen_ms=1,
                heard_at=0.0,
                interruption=1,
                interval=60,
                answered=60,
                skew_ms=0,
                state=state,
            )
        )
    return fleet


async def measure(ask: Callable[[], Awaitable[object]]) -> tuple[float, float]:
    """Return the median CPU time, and the longest time for which the loop was held, of CPU; milliseconds."""
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        last = time.process_time()
        while True:
            await asyncio.sleep(0)
            now = time.process_time()
            longest = max(longest, now - last)
            last = now

    await ask()
    watching = asyncio.create_task(watch())
    await asyncio.sleep(0)
    figures = []
    for _ in range(ROUNDS):
        started = time.process_time()
        await ask()
        figures.append(time.process_time() - started)
        await asyncio.sleep(0)
    watching.cancel()
    return 1000 * statistics.median(figures), 1000 * longest


async def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    fleet = states(count)
    listening = ListeningClock(VirtualClock(), interruption=1)
    started = time.process_time()
    registry = Registry(RULES, listening, fleet)
    print(f"{count} nodes; registry and index made in {time.process_time() - started:.1f} s of CPU")
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    index = Index(registry.nodes)
    print(f"index: {(tracemalloc.get_traced_memory()[0] - before) / count:.0f} bytes a node")
    tracemalloc.stop()
    del index
    middle = fleet[0].node_id
    questions = {
        "first page": Query(),
        "a page in the middle": Query(after=middle),
        "1 000 in the middle": Query(after=middle, limit=1000),
        "state=expired": Query(states=frozenset({"expired"})),
        "state=up, two tags": Query(states=frozenset({"up"}), tags=frozenset({"swarm:s7", "gpu:true"})),
        "two tags that never meet": Query(tags=frozenset({"swarm:s7", "swarm:s8"})),
        "min_available_slots=32, late": Query(states=frozenset({"late"}), min_slots=32),
        "the best 100": Query(best=True),
        "the best 100 of a swarm": Query(best=True, tags=frozenset({"swarm:s7"})),
    }
    print(f"{'question':32}{'CPU ms':>10}{'loop held ms':>15}")
    for name, query in questions.items():
        cpu, held = await measure(lambda query=query: select(registry, query))  # type: ignore[misc]
        print(f"{name:32}{cpu:10.2f}{held:15.2f}")

    async def look_at_all() -> int:
        query = questions["state=expired"]
        found = 0
        async for page in scan(registry, query):
            found += len(page)
        return found

    cpu, held = await measure(look_at_all)
    print(f"{'state=expired, without index':32}{cpu:10.2f}{held:15.2f}")

    async def sum_up() -> object:
        return await CapacityDesk(lambda query: scan(registry, query)).read(frozenset())

    cpu, held = await measure(sum_up)
    print(f"{'capacity, counted anew':32}{cpu:10.2f}{held:15.2f}")


if __name__ == "__main__":
    announce()
    asyncio.run(main())
