"""What a receiver believes of a shared registry, and what it does where that has gone another way."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from receiver.shared import NODE, Fleet, heartbeats
from receiver.virtual import node_id

from openclaw_exporter.receiver.store.redis.packing import (
    ARRIVAL_SIZE,
    is_newer,
    last_revision,
    next_revision,
    node_bytes,
    node_name,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import redis
    from receiver.shared import Receiver

    from openclaw_exporter.receiver.store.redis.calls import Call
    from support.redis import RedisServer


def key(receiver: Receiver, node: str, name: str) -> str:
    return receiver.link.key(receiver.store._names.partition(node), name)


def test_a_revision_follows_all_before_it() -> None:
    first = next_revision(0, 10.0)
    assert is_newer(next_revision(first, 10.0), first)
    assert is_newer(next_revision(first, 0.0), first)
    gone = last_revision(first)
    assert is_newer(gone, first)
    # A node of the same name that comes later, of which nobody knows that it was there before.
    assert is_newer(next_revision(0, 10.1), gone)
    assert next_revision(0, 10.0) != next_revision(0, 10.0)
    assert node_name(node_bytes(NODE)) == NODE


def test_who_sheds_stops_no_clock_and_does_not_lead_while_another_hears(
    server: RedisServer, client: Any
) -> None:
    del client

    async def main() -> None:
        async with Fleet(server.url, 2) as fleet:
            await fleet.pulse()
            (leader,) = fleet.leaders()
            (other,) = (one for one in fleet.receivers if one is not leader)
            before = other.store.moment()
            for _ in range(8):
                leader.store.shed()
                await fleet.wait(1)
            assert fleet.leaders() == [other]
            after = other.store.moment()
            assert (after.seconds - before.seconds, after.interruption) == (8, before.interruption)
            assert leader.store.moment().seconds == after.seconds
            # Where nobody hears it stands still, and an interruption is counted when somebody does again.
            for _ in range(8):
                leader.store.shed()
                other.store.shed()
                await fleet.wait(1)
            assert other.store.moment().seconds - after.seconds <= 1
            for _ in range(3):
                fleet.clock.pass_(1)
                for one in fleet.receivers:
                    one.store.tick()
                await fleet.pulse()
            assert other.store.moment().interruption == after.interruption + 1

    asyncio.run(main())


def test_changes_that_were_missed_are_read_from_what_is_stored(server: RedisServer, client: Any) -> None:
    async def main() -> None:
        async with Fleet(server.url, 2) as fleet:
            one, two = fleet.receivers
            await one.beat(1000)
            await fleet.pulse()
            for item in heartbeats(30, 2000):
                await one.publish(item)
            for name in client.scan_iter(match="*:changes"):
                client.delete(name)
            fleet.clock.pass_(21)
            await fleet.pulse()
            assert len(await two.states()) == 30

    asyncio.run(main())


def test_a_fail_over_that_lost_the_last_write_is_believed(server: RedisServer, client: Any) -> None:
    async def main() -> None:
        async with Fleet(server.url, 2) as fleet:
            one, two = fleet.receivers
            await one.beat(1000)
            kinds = ("nodes", "recent")
            before = {kind: client.hget(key(one, NODE, kind), node_bytes(NODE)) for kind in kinds}
            await one.beat(2000, draining=True)
            await one.beat(1500, node_id(2))
            await fleet.pulse()
            assert await two.states() == {NODE: "draining", node_id(2): "up"}
            # As a replica would be that had missed the last of it.
            for kind, value in before.items():
                client.hset(key(one, NODE, kind), node_bytes(NODE), value)
                client.hdel(key(one, node_id(2), kind), node_bytes(node_id(2)))
            client.client_kill_filter(_type="normal")
            while len(await one.states()) + len(await two.states()) != 2:
                await asyncio.sleep(0.05)
                await fleet.pulse()
            for receiver in fleet.receivers:
                assert await receiver.states() == {NODE: "up"}
            assert (await two.beat(3000)).kind == "recorded"

    asyncio.run(main())


def test_a_commit_that_was_executed_twice_counts_once(server: RedisServer, client: Any) -> None:
    del client

    async def main() -> None:
        async with Fleet(server.url) as fleet:
            (one,) = fleet.receivers
            run = one.link.run

            async def twice(calls: Sequence[Call], *, durable: bool = False) -> list[Any]:
                commit = one.link.script("commit")
                if calls[0].command[1] == commit:
                    await run(calls, durable=durable)
                return await run(calls, durable=durable)

            one.link.run = twice  # type: ignore[method-assign]
            assert (await one.beat(1000)).kind == "recorded"
            one.link.run = run  # type: ignore[method-assign]
            await fleet.pulse()
            assert one.counter.events == [("registered", NODE)]
            assert await one.told() == ["registered"]
            assert len(await one.store.history(NODE)) == 1
            assert one.store.conflicts == 0

    asyncio.run(main())


def test_arrivals_are_kept_for_an_hour_and_their_list_does_not_grow(server: RedisServer, client: Any) -> None:
    async def main() -> None:
        async with Fleet(server.url) as fleet:
            (one,) = fleet.receivers
            for number in range(1, 66):
                await one.beat(number * 1000, interval=120)
                await fleet.wait(115, every=4.8)
            seen = key(one, NODE, f"seen:{NODE}")
            # They stand there six at a time, and the oldest go with every fourth of those.
            records = len(b"".join(client.lrange(seen, 0, -1))) // ARRIVAL_SIZE
            assert 31 - 6 <= records <= 31 + 4 * 6
            assert client.ttl(seen) > 3600
            assert len(await one.store.history(NODE)) == 31
            assert (await one.beat(65_000, interval=120)).kind == "duplicate"
            assert (await one.beat(1000, interval=120)).kind == "recorded"

    asyncio.run(main())


def test_readers_who_want_updates_get_them_from_every_receiver(server: RedisServer, client: Any) -> None:
    del client

    async def main() -> None:
        async with Fleet(server.url, 2) as fleet:
            one, two = fleet.receivers
            await one.beat(1000)
            await fleet.pulse()
            await one.beat(2000)
            await fleet.pulse()
            await two.beat(3000)
            await fleet.pulse()
            assert one.counter.updates == two.counter.updates == [NODE, NODE]
            # What a reader is told comes from the log alone, and so do those who count.
            assert fleet.counted() == [("registered", NODE)]

    asyncio.run(main())


def test_a_log_longer_than_a_receiver_keeps_has_a_gap_for_those_who_come_back(
    server: RedisServer, client: Any
) -> None:
    del client

    async def main() -> None:
        async with Fleet(server.url, 1, kept=100) as fleet:
            (one,) = fleet.receivers
            await fleet.pulse()
            begin = f"{one.hub.run}-0"
            await asyncio.gather(*(one.publish(item) for item in heartbeats(450, 1000)))
            await fleet.pulse()
            two = await fleet.join()
            assert two.hub.end == one.hub.end == 450
            for receiver in fleet.receivers:
                told = await receiver.told(begin)
                assert told == ["gap"] + ["registered"] * 100

    asyncio.run(main())


@pytest.mark.parametrize("asked", ["XREAD", "HSCAN"])
def test_an_interruption_during_a_look_at_the_changes_is_not_forgotten(
    server: RedisServer, client: redis.Redis, asked: str
) -> None:
    async def main() -> None:
        async with Fleet(server.url, 2) as fleet:
            one, two = fleet.receivers
            two.store._tasks[1].cancel()
            for item in heartbeats(12, 1000, interval=40):
                await one.publish(item)
            run = two.link.run

            async def interrupt(calls: Sequence[Call], *, durable: bool = False) -> list[Any]:
                answers = await run(calls, durable=durable)
                if calls[0].command[0] == asked:
                    two.store._shared.learn(two.store.moment().interruption + 1)
                    assert two.store._registry.held.suspects == 0
                return answers

            two.link.run = interrupt  # type: ignore[method-assign]
            if asked == "HSCAN":
                two.store._feed.forget()
                await two.store.pulse()
            else:
                await two.store.follow()
            two.link.run = run  # type: ignore[method-assign]
            assert len(await two.states()) == 12
            # The brake counts by interruptions, and has to know the last one at any time.
            assert two.store._registry._brake._interruption == two.store.moment().interruption > 0

    asyncio.run(main())
