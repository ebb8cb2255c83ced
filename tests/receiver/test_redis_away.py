"""A Redis that goes and comes back: nothing is recorded meanwhile, nobody expires for it, nothing is lost."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import redis
from receiver.shared import NODE, Fleet, heartbeats
from receiver.virtual import node_id

from openclaw_exporter.errors import StoreUnavailableError
from support.redis import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that keeps what it has."""
    server = RedisServer(tmp_path, "--appendonly", "yes")
    server.start()
    yield server
    server.stop()


async def until_back(fleet: Fleet) -> None:
    while not all(receiver.store.available for receiver in fleet.receivers):
        await asyncio.sleep(0.05)
        await fleet.pulse()


def test_ten_minutes_without_redis_end_nobody(server: RedisServer) -> None:
    async def main() -> None:
        async with Fleet(server.url, 2) as fleet:
            one, two = fleet.receivers
            for item in heartbeats(12, 1000, interval=40):
                await one.store.record(item)
            await fleet.wait(30)
            before = one.store.moment()
            server.stop()
            with pytest.raises(StoreUnavailableError):
                await one.beat(2000)
            assert not one.store.available
            # From then on nobody waits for anything.
            with pytest.raises(StoreUnavailableError):
                one.store.submit(heartbeats(1, 2000)[0], lambda _: None)
            await fleet.wait(600, every=10.0)
            assert not two.store.available
            with pytest.raises(StoreUnavailableError):
                await two.store.history(NODE)
            assert len(await one.states()) == 12
            server.start()
            await until_back(fleet)
            await fleet.pulse()
            for receiver in fleet.receivers:
                after = receiver.store.moment()
                assert after.seconds - before.seconds <= 5
                assert after.interruption == before.interruption + 1
                assert set((await receiver.states()).values()) == {"up"}
            assert (await one.beat(2000, interval=40)).kind == "recorded"
            # Those that are not heard have three intervals now, of which thirty seconds are gone.
            await fleet.wait(79)
            assert set((await two.states()).values()) == {"late"}
            await fleet.wait(20)
            assert set((await two.states()).values()) == {"suspect"}

    asyncio.run(main())


def test_what_was_stored_and_not_heard_of_is_a_duplicate(server: RedisServer) -> None:
    async def main() -> None:
        async with Fleet(server.url, timeout=5.0) as fleet:
            (one,) = fleet.receivers
            await one.beat(1000)
            server.freeze()
            waiting = asyncio.ensure_future(one.beat(2000, draining=True))
            with pytest.raises(StoreUnavailableError):
                await waiting
            assert one.counter.events == [("registered", NODE)]
            server.thaw()
            await until_back(fleet)
            await fleet.pulse()
            # It had reached Redis, and was stored when that went on: counted once, by who sent it.
            assert await one.states() == {NODE: "draining"}
            assert one.counter.events == [("registered", NODE), ("draining", NODE)]
            assert await one.told() == ["registered", "draining"]
            assert (await one.beat(2000, draining=True)).kind == "duplicate"

    asyncio.run(main())


def test_a_redis_that_lost_everything_begins_anew(server: RedisServer) -> None:
    async def main() -> None:
        async with Fleet(server.url, 2) as fleet:
            one, two = fleet.receivers
            await one.beat(1000)
            await fleet.pulse()
            run = one.hub.run
            with redis.Redis(port=server.port) as client:
                client.flushall()
            await fleet.wait(3)
            assert one.hub.run == two.hub.run != run
            assert await two.states() == {}
            assert (await two.beat(1000, node_id(1))).kind == "recorded"
            await fleet.pulse()
            assert await one.states() == {NODE: "up"}

    asyncio.run(main())
