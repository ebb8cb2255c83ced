"""A Redis that does not let a receiver do everything, and one that holds what no receiver has written."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import pytest
import redis
from receiver.shared import NODE, Fleet, Receiver
from receiver.virtual import VirtualClock, node_id

from openclaw_exporter.errors import StateError, StoreUnavailableError
from openclaw_exporter.receiver.store.redis.rights import READS
from openclaw_exporter.receiver.store.redis.scripts import ALL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.redis import RedisServer

CALLED = sorted(
    {name.lower() for text in ALL.values() for name in re.findall(r"redis\.call\('(\w+)'", text)}
    | {name.lower() for name, *_ in READS}
    | {"xread"}
)


@pytest.fixture
def client(server: RedisServer) -> Iterator[redis.Redis]:
    """A client of an empty Redis in which everybody may do everything."""
    with redis.Redis(port=server.port) as client:
        client.flushall()
        yield client
        client.execute_command("ACL", "SETUSER", "default", "+@all")


@pytest.mark.parametrize("command", CALLED)
def test_each_right_that_is_missing_is_named_at_the_start(
    server: RedisServer, client: redis.Redis, command: str
) -> None:
    client.execute_command("ACL", "SETUSER", "default", f"-{command}")
    with pytest.raises(StateError) as raised:
        asyncio.run(Receiver(server.url, VirtualClock()).open())
    assert command in str(raised.value).lower()
    assert "docs/operations.md" in str(raised.value)


def test_nothing_is_left_of_trying(server: RedisServer, client: redis.Redis) -> None:
    async def main() -> None:
        async with Fleet(server.url):
            assert client.keys("*:rights") == []

    asyncio.run(main())


@pytest.mark.parametrize("blob", [b"x", b"x" * 8 + b"\0", b"x" * 40])
def test_what_cannot_be_read_is_left_out_and_named(
    server: RedisServer, client: redis.Redis, blob: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with Fleet(server.url) as fleet:
            (one,) = fleet.receivers
            broken = node_id(2)
            key = one.store._names.nodes[one.store._names.partition(broken)]
            name = bytes.fromhex(broken.replace("-", ""))
            await one.beat(1000)
            client.hset(key, name, blob)
            client.hset(key.replace(":nodes", ":recent"), name, blob[:8])
            client.xadd(key.replace(":nodes", ":changes"), {"changed": name + b"x" * 8})
            await fleet.wait(2)
            # It is not overwritten by one that does not know what it is.
            with pytest.raises(StoreUnavailableError):
                await one.beat(1000, broken)
            assert (await one.beat(2000)).kind == "recorded"
            two = await fleet.join()
            for receiver in fleet.receivers:
                assert await receiver.states() == {NODE: "up"}
            client.hdel(key, name)
            assert (await two.beat(1000, broken)).kind == "recorded"

    asyncio.run(main())
    said = [record.message for record in caplog.records if "cannot be read" in record.message]
    # Each receiver says it once.
    assert len(said) == 2
    assert all(node_id(2) in text for text in said)
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("lost", ["nodes", "recent"])
def test_a_node_of_which_somebody_has_removed_a_half_beats_on(
    server: RedisServer, client: redis.Redis, lost: str
) -> None:
    async def main() -> None:
        async with Fleet(server.url) as fleet:
            (one,) = fleet.receivers
            await one.beat(1000)
            assert client.delete(one.link.key(one.store._names.partition(NODE), lost)) == 1
            assert (await one.beat(2000)).kind == "recorded"
            assert (await one.beat(3000)).kind == "recorded"
            two = await fleet.join()
            for receiver in fleet.receivers:
                assert await receiver.states() == {NODE: "up"}
            assert (await two.beat(3000)).kind == "duplicate"

    asyncio.run(main())
