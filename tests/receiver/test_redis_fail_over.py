"""Receivers on a Redis Cluster whose primaries die: what was answered stays, and nobody expires for it."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

from receiver.shared import Fleet, heartbeats
from receiver.virtual import node_id

from openclaw_exporter.errors import StoreUnavailableError

if TYPE_CHECKING:
    from support.redis_cluster import RedisCluster

NODES = 60


async def beat(fleet: Fleet, round_: int) -> None:
    """Let every node beat until it is answered."""
    waiting = heartbeats(NODES, round_ * 1000, interval=40)
    async with asyncio.timeout(120):
        while waiting:
            outcomes = await asyncio.gather(
                *(
                    fleet.receivers[place % len(fleet.receivers)].publish(item)
                    for place, item in enumerate(waiting)
                ),
                return_exceptions=True,
            )
            for outcome in outcomes:
                if isinstance(outcome, BaseException):
                    assert isinstance(outcome, StoreUnavailableError)
                else:
                    assert outcome.kind in ("recorded", "duplicate")
            refused = [isinstance(outcome, BaseException) for outcome in outcomes]
            waiting = [item for item, one in zip(waiting, refused, strict=True) if one]
            if waiting:
                await asyncio.sleep(0.2)
                await fleet.pulse()


async def until_whole(fleet: Fleet) -> None:
    """Wait until every receiver reaches every partition and has told all events."""
    async with asyncio.timeout(120):
        while any(one.store.partitions_away for one in fleet.receivers) or any(
            one.hub.end < NODES for one in fleet.receivers
        ):
            await asyncio.sleep(0.2)
            await fleet.pulse()


def test_primaries_die_one_after_the_other(cluster: RedisCluster) -> None:
    async def main() -> None:
        async with Fleet(cluster.url, 3) as fleet:
            await beat(fleet, 1)
            await fleet.pulse()
            for round_, node in enumerate(cluster.nodes[:3], start=2):
                node.stop()
                await beat(fleet, round_)
                await fleet.wait(4)
                for receiver in fleet.receivers:
                    states = await receiver.states()
                    assert (len(states), set(states.values())) == (NODES, {"up"})
                node.start()
                await until_whole(fleet)
            assert Counter(event for event, _ in fleet.counted()) == {"registered": NODES}
            for receiver in fleet.receivers:
                assert await receiver.told() == ["registered"] * NODES
            rows = await fleet.receivers[0].store.history(node_id(7))
            assert [row.sent_ms for row in rows] == [1000, 2000, 3000, 4000]

    asyncio.run(main())
