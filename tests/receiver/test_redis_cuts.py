"""Connections to Redis are cut at any moment, also when a script has run: all is done, and done once."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import redis
from receiver.shared import Receiver
from receiver.virtual import VirtualClock, node_id

from openclaw_exporter.errors import StoreUnavailableError
from openclaw_exporter.receiver.store.redis.packing import read_event
from openclaw_exporter.wire.headers import Sequence
from support.proxy import DelayProxy
from support.redis import RedisServer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

NODES = [node_id(number) for number in range(40)]
BEATS = 10
_UP = {"draining", "late", "suspect", "expired"}
FOLLOWS = {
    "": {"registered"},
    "registered": _UP,
    "returned": _UP,
    "draining": _UP | {"offline"},
    "late": _UP,
    "suspect": _UP,
    "expired": {"returned", "draining"},
    "offline": {"returned", "draining"},
}
"""What may happen to a node after what, as it lives here. That it goes on after all is no event."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.stop()


class Stage:
    """Three receivers of one Redis, each by a network of its own that fails again and again."""

    def __init__(self, server: RedisServer, seed: int) -> None:
        self.random = random.Random(seed)
        self.server = server
        self.clock = VirtualClock()
        self.step = 0.05
        self.proxies = [DelayProxy(server.port, delay=0.002) for _ in range(3)]
        self.receivers: list[Receiver] = []
        self.kinds: Counter[str] = Counter()
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        for proxy in self.proxies:
            url = f"redis://127.0.0.1:{proxy.port}/0"
            self.receivers.append(await Receiver(url, self.clock).open())
        self._tasks = [asyncio.create_task(work) for work in (self._live(), self._cut())]

    async def calm(self) -> None:
        """Let the network be well from now on."""
        self._tasks[1].cancel()
        with suppress(asyncio.CancelledError):
            await self._tasks[1]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for receiver in self.receivers:
            await receiver.store.close()
        for proxy in self.proxies:
            proxy.close()

    async def beat_on(self, node: str) -> None:
        """Let a node beat until each heartbeat is stored, at one receiver or at several at once."""
        for number in range(1, BEATS + 1):
            await self._publish(node, number)

    async def until(self, happened: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(120):
            while not await happened():  # noqa: ASYNC110 - it is far away
                await asyncio.sleep(0.1)

    async def _publish(self, node: str, number: int) -> None:
        is_replay = number % 4 == 0
        sequence = None if is_replay else Sequence(1, number)
        while True:
            chosen = self.random.sample(self.receivers, self.random.choice((1, 1, 2, 3)))
            answers = await asyncio.gather(
                *(
                    one.beat(
                        number * 1000 - 3500 * is_replay,
                        node,
                        sequence=sequence,
                        replay=is_replay,
                        draining=number % 5 == 0,
                        interval=40,
                    )
                    for one in chosen
                ),
                return_exceptions=True,
            )
            outcomes = [one for one in answers if not isinstance(one, StoreUnavailableError)]
            kinds = [one.kind for one in outcomes if not isinstance(one, BaseException)]
            assert len(kinds) == len(outcomes), outcomes
            self.kinds.update(kinds)
            if kinds:
                return
            await asyncio.sleep(0.05)

    async def _live(self) -> None:
        while True:
            await asyncio.sleep(0.05)
            self.clock.pass_(self.step)
            for receiver in self.receivers:
                receiver.store.tick()

    async def _cut(self) -> None:
        while True:
            await asyncio.sleep(self.random.uniform(0.05, 0.3))
            await asyncio.to_thread(self.random.choice(self.proxies).cut)


@pytest.mark.parametrize("seed", [1, 2])
def test_cut_connections_repeat_and_lose_nothing(server: RedisServer, seed: int) -> None:
    async def main() -> None:
        stage = Stage(server, seed)
        await stage.open()
        try:
            await asyncio.gather(*map(stage.beat_on, NODES))
            # Now nobody beats any more, and the leader's connections go on being cut.
            stage.step = 1.0
            await stage.until(lambda: ended(stage.receivers[0]))
            stage.step = 0.0
            await stage.calm()
            await stage.until(lambda: agreed(stage))
            first = stage.receivers[0].store
            for node in NODES:
                rows = Counter(row.sent_ms for row in await first.history(node))
                assert len(rows) == BEATS
                assert set(rows.values()) == {1}
        finally:
            await stage.close()
        # Of each key one answer at most says that it was new; the one that said so may not have come.
        assert stage.kinds["recorded"] + stage.kinds["history"] <= len(NODES) * BEATS
        lives = defaultdict(list)
        for event, node in logged(server):
            assert event in FOLLOWS[lives[node][-1] if lives[node] else ""], (lives[node], event)
            lives[node].append(event)
        assert sorted(lives) == sorted(NODES)

    asyncio.run(main())


async def ended(receiver: Receiver) -> bool:
    """Whether all nodes have come to their end, as a receiver knows."""
    states = (await receiver.states()).values()
    return set(states) <= {"expired", "offline"}


async def agreed(stage: Stage) -> bool:
    """Whether all receivers know and tell the same, and have counted, together, each event once."""
    log = Counter(event for event, _ in logged(stage.server))
    counted = Counter(event for one in stage.receivers for event, _ in one.counter.events)
    told = [Counter(await one.told()) for one in stage.receivers]
    states = [await one.states() for one in stage.receivers]
    return all(one == log for one in (counted, *told)) and all(one == states[0] for one in states)


def logged(server: RedisServer) -> list[tuple[str, str]]:
    """Return the log that all receivers share."""
    with redis.Redis(port=server.port) as client:
        entries = client.xrange("openclaw:{events}:log")
    told = [read_event(fields[b"event"]) for _, fields in entries]
    return [(one.event, one.state.node_id) for one in told]
