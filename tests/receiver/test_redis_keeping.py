"""What a shared registry keeps in its Redis, for how long, and what a receiver does that is behind."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from receiver.shared import NODE, Fleet, Receiver, heartbeats
from receiver.virtual import node_id

from openclaw_exporter.receiver.store.redis import leader
from openclaw_exporter.receiver.store.redis.connection import AnswerError
from openclaw_exporter.receiver.store.redis.packing import ARRIVAL_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

    import redis

    from openclaw_exporter.receiver.store.redis.calls import Call
    from support.redis import RedisServer

MARK = "hostname-that-nobody-else-has"


def seen(client: redis.Redis) -> bytes:
    """Return the key of the one node's arrivals."""
    (key,) = client.keys("*:seen:*")
    return bytes(key)


def forget_changes(client: redis.Redis) -> None:
    """Trim what every receiver should have read, as half a minute does."""
    for key in client.keys("*:changes"):
        client.xtrim(key, maxlen=0, approximate=False)


def stand_still(receiver: Receiver) -> None:
    """End what reads the changes by itself; from then on the test says when it does."""
    receiver.store._tasks[1].cancel()


def test_arrivals_that_come_in_pairs_live_as_long_and_no_longer(
    server: RedisServer, client: redis.Redis
) -> None:
    async def main() -> None:
        async with Fleet(server.url) as fleet:
            (one,) = fleet.receivers
            await one.beat(1000, interval=40)
            for number in range(2, 122):
                await fleet.wait(40, every=5.0)
                if number == 20:
                    await one.beat(number * 1000 + 1, interval=40)
                    client.expire(seen(client), 1000)
                sent = number * 10_000
                await asyncio.gather(one.beat(sent, interval=40), one.beat(sent - 1, replay=True))
            assert client.ttl(seen(client)) > 1000
            # Of an hour there are 180, and they go some at a time.
            assert len(await one.store.history(NODE)) <= 182
            assert len(b"".join(client.lrange(seen(client), 0, -1))) // ARRIVAL_SIZE < 220

    asyncio.run(main())


def test_a_long_replay_does_not_outlive_its_hour_by_much(server: RedisServer, client: redis.Redis) -> None:
    async def main() -> None:
        async with Fleet(server.url) as fleet:
            (one,) = fleet.receivers
            await one.beat(10_000, interval=900)
            for number in range(100):
                await one.beat(2000 + number, replay=True)
            assert client.llen(seen(client)) >= 100
            for number in range(1, 70):
                await fleet.wait(60 if number > 6 else 800, every=5.0)
                await one.beat((number + 1) * 10_000, interval=900)
            assert client.llen(seen(client)) < 30

    asyncio.run(main())


def test_what_was_trimmed_while_a_receiver_stood_still_is_read_anew(
    server: RedisServer, client: redis.Redis
) -> None:
    async def main() -> None:
        async with Fleet(server.url, 2) as fleet:
            one, two = fleet.receivers
            await one.beat(1000, interval=40)
            await fleet.pulse()
            stand_still(two)
            fleet.receivers.remove(two)
            await fleet.wait(90)
            assert await one.states() == {NODE: "expired"}
            forget_changes(client)
            fleet.receivers.append(two)
            # What reads the changes wakes before the pulse does.
            await two.store.follow()
            await two.store.pulse()
            assert await two.states() == {NODE: "expired"}

    asyncio.run(main())


def test_a_leader_that_has_not_read_of_others_heartbeats_counts_nobody_as_silent(
    server: RedisServer, client: redis.Redis
) -> None:
    async def main() -> None:
        async with Fleet(server.url, 2) as fleet:
            one, two = fleet.receivers
            beats = heartbeats(20, 1000, interval=40)
            for item in beats:
                await two.store.record(item)
            stand_still(one)
            await fleet.wait(65)
            for item in heartbeats(20, 2000, interval=40)[1:]:
                await two.store.record(item)
            for _ in range(17):
                fleet.clock.pass_(1.0)
                await two.store.pulse()
                await two.store.follow()
                # The leader's own reader does not get a turn.
                await one.store.pulse()
            await fleet.pulse()
            assert fleet.leaders() == [one]
            for receiver in fleet.receivers:
                states = await receiver.states()
                assert states.pop(beats[0].node_id) == "expired"
                assert set(states.values()) == {"up"}
            assert one.store.conflicts == 0

    asyncio.run(main())


def deafen(receiver: Receiver) -> Any:
    """Let every look at the changes fail; return what ends it."""
    run = receiver.link.run

    async def refuse(calls: Sequence[Call], *, durable: bool = False) -> list[Any]:
        answers = await run(calls, durable=durable)
        return [
            AnswerError("ERR no") if call.command[0] == "XREAD" else answer
            for call, answer in zip(calls, answers, strict=True)
        ]

    receiver.link.run = refuse  # type: ignore[method-assign]
    return lambda: setattr(receiver.link, "run", run)


def test_a_leader_that_cannot_read_of_others_heartbeats_judges_nobody(
    server: RedisServer, client: redis.Redis
) -> None:
    async def main() -> None:
        async with Fleet(server.url, 2) as fleet:
            one, two = fleet.receivers
            await two.beat(1000, interval=40)
            await fleet.pulse()
            hear = deafen(one)
            await fleet.wait(100)
            assert fleet.leaders() == [one]
            assert fleet.counted() == [("registered", NODE)]
            assert one.store.conflicts == 0
            hear()
            await fleet.wait(2)
            assert await two.states() == {NODE: "expired"}

    asyncio.run(main())


def test_a_forgotten_node_leaves_nothing(
    server: RedisServer, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It is of Redis' own time, which the test has no say in.
    monkeypatch.setattr(leader, "_CHANGES_LIFE_MS", 0)

    async def main() -> None:
        async with Fleet(server.url, 2) as fleet:
            one, two = fleet.receivers
            for sent in (1000, 2000, 3000):
                await two.beat(sent, interval=40, tags=(f"name:{MARK}",))
            assert everything(client).count(MARK) > 1
            await fleet.wait(90 + 601, every=5.0)
            assert await one.states() == {}
            assert (await two.told())[-1] == "forgotten"
            await fleet.wait(3700, every=5.0)
            assert MARK not in everything(client)
            assert client.keys("*:seen:*") == []
            # Numbers are not used again, and who comes back has missed nothing, at a new receiver neither.
            place = f"{two.hub.run}-{two.hub.end}"
            three = await fleet.join()
            assert await three.told(place) == []
            await two.beat(4000)
            await fleet.pulse()
            for receiver in (two, three):
                assert await receiver.told(place) == ["registered"]

    asyncio.run(main())


def everything(client: redis.Redis) -> str:
    """Return all values there are."""
    texts = []
    for key in client.keys("*"):
        kind = client.type(key)
        if kind == b"stream":
            texts.append(repr(client.xrange(key)))
        elif kind == b"hash":
            texts.append(repr(client.hgetall(key)))
        elif kind == b"list":
            texts.append(repr(client.lrange(key, 0, -1)))
        else:
            texts.append(repr(client.get(key)))
    return "".join(texts)


def test_events_that_were_moved_do_not_stay_behind(server: RedisServer, client: redis.Redis) -> None:
    async def main() -> None:
        async with Fleet(server.url, 2) as fleet:
            one, two = fleet.receivers
            # A leader that dies when it has moved events, and not removed them yet.
            run = one.link.run

            async def die(calls: Sequence[Call], *, durable: bool = False) -> list[Any]:
                if calls and calls[0].command[0] in ("XDEL", "XTRIM"):
                    raise asyncio.CancelledError
                return await run(calls, durable=durable)

            one.link.run = die  # type: ignore[method-assign]
            for number in range(5):
                await two.beat(1000, node_id(number))
            with pytest.raises(asyncio.CancelledError):
                await one.store.pulse()
            assert sum(client.xlen(key) for key in client.keys("*:outbox")) == 5
            await fleet.kill(one)
            await fleet.wait(10)
            assert fleet.leaders() == [two]
            assert await two.told() == ["registered"] * 5
            assert sum(client.xlen(key) for key in client.keys("*:outbox")) == 0

    asyncio.run(main())


def test_numbers_of_events_that_a_fail_over_has_lost_are_not_given_again(
    server: RedisServer, client: redis.Redis
) -> None:
    async def main() -> None:
        async with Fleet(server.url, 2) as fleet:
            one = fleet.receivers[0]
            await one.beat(1000)
            await fleet.wait(1)
            keys = client.keys("openclaw:{events}:*")
            before = {key: client.dump(key) for key in keys}
            await one.beat(1000, node_id(2))
            await fleet.wait(1)
            place = f"{one.hub.run}-{one.hub.end}"
            for key, value in before.items():
                client.restore(key, 0, value, replace=True)
            # As a server does that was another one.
            client.client_kill_filter(_type="normal", skipme=True)
            await fleet.wait(5)
            await one.beat(1000, node_id(3))
            await fleet.wait(2)
            for receiver in fleet.receivers:
                assert receiver.hub.end == 3
                assert await receiver.told(place) == ["registered"]
            assert (await fleet.join()).hub.end == 3

    asyncio.run(main())
