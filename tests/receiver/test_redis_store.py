"""Receivers on one real Redis, in virtual time: what is stored, told, counted and never done twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import pytest
import redis
from receiver.shared import NODE, Fleet, Receiver, heartbeats
from receiver.virtual import VirtualClock, node_id

from openclaw_exporter.errors import StateError
from openclaw_exporter.wire.headers import Sequence

if TYPE_CHECKING:
    from collections.abc import Sequence as Sequence_
    from typing import Any

    from openclaw_exporter.receiver.store.redis.calls import Call
    from support.redis import RedisServer


@pytest.fixture
def url(server: RedisServer) -> str:
    """An empty Redis."""
    with redis.Redis(port=server.port) as client:
        client.flushall()
    return server.url


def test_a_heartbeat_goes_in_and_comes_out(url: str) -> None:
    async def main() -> None:
        async with Fleet(url) as fleet:
            (one,) = fleet.receivers
            first = await one.beat(1000, interval=40, sequence=Sequence(5, 3), tags=("region:eu",))
            assert (first.kind, first.interval, first.epoch) == ("recorded", 40, 5)
            assert (
                await one.beat(1000, interval=40, sequence=Sequence(5, 3), tags=("region:eu",))
            ).kind == "duplicate"
            assert (await one.beat(1000, version="2")).kind == "key-conflict"
            assert (await one.beat(900, replay=True)).kind == "history"
            assert (await one.beat(900, replay=True)).kind == "duplicate"
            assert (await one.beat(2000, sequence=Sequence(4, 9))).kind == "epoch-conflict"
            await fleet.wait(30)
            assert (await one.beat(2000, sequence=Sequence(5, 4))).kind == "recorded"
            assert one.counter.events == [("registered", NODE)]
            assert one.counter.lives == [None, 30.0]
            assert one.counter.updates == [NODE]
            rows = await one.store.history(NODE)
            assert [(row.sent_ms, row.result) for row in rows] == [
                (1000, "recorded"),
                (900, "history"),
                (2000, "recorded"),
            ]
            assert {"commit", "lookup"} <= one.counter.operations

    asyncio.run(main())


def test_time_alone_ends_a_node(url: str) -> None:
    async def main() -> None:
        async with Fleet(url) as fleet:
            (one,) = fleet.receivers
            await one.beat(1000, interval=40)
            await fleet.wait(59)
            assert await one.states() == {NODE: "up"}
            await fleet.wait(2)
            assert await one.states() == {NODE: "late"}
            await fleet.wait(20)
            assert await one.states() == {NODE: "expired"}
            await fleet.wait(601, every=5.0)
            assert await one.states() == {}
            events = ["registered", "late", "expired", "forgotten"]
            assert one.counter.events == [(event, NODE) for event in events]
            assert await one.told() == events
            assert await one.store.history(NODE) == []
            assert (await one.beat(1000)).kind == "recorded"
            assert one.counter.events[-1] == ("registered", NODE)

    asyncio.run(main())


def test_every_receiver_knows_all_nodes_and_one_counts_them(url: str) -> None:
    async def main() -> None:
        async with Fleet(url, 3) as fleet:
            await asyncio.gather(
                *(
                    receiver.store.record(item)
                    for place, receiver in enumerate(fleet.receivers)
                    for item in heartbeats(60, 1000)[place::3]
                )
            )
            await fleet.pulse()
            for receiver in fleet.receivers:
                assert len(await receiver.states()) == 60
                assert await receiver.told() == ["registered"] * 60
            assert sum(receiver.store.census() is not None for receiver in fleet.receivers) == 1
            assert len({receiver.hub.run for receiver in fleet.receivers}) == 1
            assert Counter(event for event, _ in fleet.counted()) == {"registered": 60}

    asyncio.run(main())


def test_one_key_at_two_receivers_is_stored_once(url: str) -> None:
    async def main() -> None:
        async with Fleet(url, 3) as fleet:
            for sent, replay in ((1000, False), (500, True), (2000, False), (700, True)):
                outcomes = await asyncio.gather(
                    *(one.beat(sent, replay=replay) for one in fleet.receivers for _ in range(3))
                )
                kinds = Counter(outcome.kind for outcome in outcomes)
                assert kinds == {"history" if replay else "recorded": 1, "duplicate": 8}
            assert len(await fleet.receivers[0].store.history(NODE)) == 4
            # Of a node that nobody knows as well.
            outcomes = await asyncio.gather(
                *(one.beat(500, node_id(2), replay=True) for one in fleet.receivers for _ in range(3))
            )
            assert Counter(outcome.kind for outcome in outcomes) == {"history": 1, "duplicate": 8}
            assert fleet.counted() == [("registered", NODE)]

    asyncio.run(main())


def test_a_node_may_beat_at_any_receiver(url: str) -> None:
    async def main() -> None:
        async with Fleet(url, 2) as fleet:
            for number in range(1, 20):
                await fleet.receivers[number % 2].beat(
                    number * 1000, sequence=Sequence(1, number), interval=40
                )
                await fleet.wait(40, every=4.0)
            for receiver in fleet.receivers:
                assert await receiver.states() == {NODE: "up"}
            assert fleet.counted() == [("registered", NODE)]

    asyncio.run(main())


def test_the_leaders_death_delays_and_repeats_nothing(url: str) -> None:
    async def main() -> None:
        async with Fleet(url, 3) as fleet:
            for item in heartbeats(5, 1000, interval=40):
                await fleet.receivers[0].store.record(item)
            await fleet.wait(61)
            for _ in range(2):
                (leader,) = fleet.leaders()
                await fleet.kill(leader)
                await fleet.wait(5)
                assert len(fleet.leaders()) == 1
            await fleet.wait(20)
            for receiver in fleet.receivers:
                assert set((await receiver.states()).values()) == {"expired"}
                told = Counter(await receiver.told())
                assert told == {"registered": 5, "late": 5, "expired": 5}

    asyncio.run(main())


def test_a_new_receiver_knows_everything_and_resumes_anywhere(url: str) -> None:
    async def main() -> None:
        async with Fleet(url, 1) as fleet:
            (one,) = fleet.receivers
            for item in heartbeats(40, 1000, interval=40):
                await one.store.record(item)
            await fleet.pulse()
            place = f"{one.hub.run}-{one.hub.end}"
            await fleet.wait(61)
            two = await fleet.join()
            assert await two.states() == await one.states()
            assert await two.told(place) == await one.told(place) == ["late"] * 40

    asyncio.run(main())


def test_a_restart_goes_on_from_what_is_stored(url: str) -> None:
    async def main() -> None:
        async with Fleet(url) as fleet:
            await fleet.receivers[0].beat(1000, interval=40)
            await fleet.wait(30)
            await fleet.kill(fleet.receivers[0])
            fleet.clock.pass_(3600)
            one = await fleet.join()
            await fleet.wait(89)
            # Down for an hour, it heard nothing: three intervals, of time in which somebody listened.
            assert await one.states() == {NODE: "late"}
            await fleet.wait(2)
            assert await one.states() == {NODE: "expired"}

    asyncio.run(main())


def test_a_dead_fleet_is_held_back_by_one_brake(url: str) -> None:
    async def main() -> None:
        async with Fleet(url, 3) as fleet:
            for place, item in enumerate(heartbeats(20, 1000, interval=40)):
                await fleet.receivers[place % 3].store.record(item)
            await fleet.wait(82)
            for receiver in fleet.receivers:
                assert set((await receiver.states()).values()) == {"suspect"}
            assert sum(receiver.store.held().suspects for receiver in fleet.receivers) == 20
            await fleet.wait(160)
            counted = Counter(event for event, _ in fleet.counted())
            assert counted == {"registered": 20, "late": 20, "suspect": 20, "expired": 20}

    asyncio.run(main())


def test_another_number_of_partitions_is_refused(url: str) -> None:
    async def main() -> None:
        async with Fleet(url):
            other = Receiver(url, VirtualClock(), partitions=8)
            with pytest.raises(StateError, match="made with 16; set it to that"):
                await other.open()

    asyncio.run(main())


def test_what_only_a_primary_had_that_was_replaced_is_no_duplicate(url: str) -> None:
    """Its replica is asked to confirm what the primary has told, and never had it."""

    async def main() -> None:
        async with Fleet(url) as fleet:
            (one,) = fleet.receivers
            await one.beat(1000)
            with redis.Redis.from_url(url) as client:
                had = {key: client.dump(key) for key in client.scan_iter()}
            await one.beat(2000)
            run = one.link.run

            async def meanwhile(calls: Sequence_[Call], *, durable: bool = False) -> list[Any]:
                answers = await run(calls, durable=durable)
                if calls[0].command[1] == one.link.script("arrivals"):
                    one.link.run = run  # type: ignore[method-assign]
                    with redis.Redis.from_url(url) as client:
                        client.flushall()
                        for key, blob in had.items():
                            client.restore(key, 0, blob)
                return answers

            one.link.run = meanwhile  # type: ignore[method-assign]
            assert (await one.beat(2000)).kind == "recorded"
            assert [row.sent_ms for row in await one.store.history(NODE)] == [1000, 2000]

    asyncio.run(main())


def test_what_another_receiver_stores_during_a_look_up_is_looked_up_as_well(url: str) -> None:
    async def main() -> None:
        async with Fleet(url, 2) as fleet:
            one, two = fleet.receivers
            await one.beat(1000, sequence=Sequence(1, 1))
            await two.store.follow()
            run = two.link.run

            async def meanwhile(calls: Sequence_[Call], *, durable: bool = False) -> list[Any]:
                answers = await run(calls, durable=durable)
                if calls[0].command[1] == two.link.script("arrivals"):
                    two.link.run = run  # type: ignore[method-assign]
                    # The batch is still to be planned, and the changes tell of what came here too.
                    assert (await one.beat(2000, sequence=Sequence(1, 2))).kind == "recorded"
                    assert (await one.beat(1500, replay=True)).kind == "history"
                    await two.store.follow()
                return answers

            two.link.run = meanwhile  # type: ignore[method-assign]
            outcomes = await asyncio.gather(
                two.beat(900, node_id(2), replay=True),
                two.beat(2000, sequence=Sequence(1, 2)),
                two.beat(1500, replay=True),
            )
            assert [outcome.kind for outcome in outcomes] == ["history", "duplicate", "duplicate"]
            assert len(await one.store.history(NODE)) == 3

    asyncio.run(main())
