"""Receivers that share one Redis, in virtual time: what the store's own clock says is the test's too."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

from receiver.virtual import RULES, VirtualClock, arrival, node_id

from openclaw_exporter.receiver.discovery.events import Filter, Hub
from openclaw_exporter.receiver.query import Query
from openclaw_exporter.receiver.store.redis.address import Target, parse
from openclaw_exporter.receiver.store.redis.link import Link
from openclaw_exporter.receiver.store.redis.scripts import ALL
from openclaw_exporter.receiver.store.redis.store import RedisStore
from openclaw_exporter.wire.heartbeat import build, digest, encode
from openclaw_exporter.wire.timestamps import format_ms

if TYPE_CHECKING:
    from pathlib import Path

    from openclaw_exporter.receiver.liveness import Arrival, Event, NodeState, Outcome

NODE = node_id(1)
ALL_EVENTS = frozenset(
    ("registered", "late", "suspect", "expired", "returned", "draining", "offline", "forgotten")
)


class Counter:
    """Notes what a store tells its observer."""

    wants_updates = True

    def __init__(self) -> None:
        self.events: list[tuple[Event, str]] = []
        self.lives: list[float | None] = []
        self.skews: list[int] = []
        self.updates: list[str] = []
        self.operations: set[str] = set()

    def happened(self, event: Event, state: NodeState) -> None:
        self.events.append((event, state.node_id))

    def heard(self, gap: float | None, skew_ms: int) -> None:
        self.lives.append(gap)
        self.skews.append(skew_ms)

    def updated(self, state: NodeState) -> None:
        self.updates.append(state.node_id)

    def timed(self, operation: str, seconds: float) -> None:
        assert seconds >= 0
        self.operations.add(operation)


class Receiver:
    """One receiver's store."""

    def __init__(
        self,
        url: str,
        clock: VirtualClock,
        *,
        kept: int = 1000,
        timeout: float = 20.0,
        partitions: int = 16,
        secret: Path | None = None,
        **options: Any,
    ) -> None:
        self.clock = clock
        self.counter = Counter()
        self.hub = Hub(kept)
        parts = parse(url)
        target = Target(
            hosts=parts.hosts,
            database=parts.database,
            username=parts.username,
            password_file=secret,
            timeout=timeout,
            partitions=partitions,
        )
        self.link = Link(target, ALL)
        self.store = RedisStore(
            self.link, partitions, RULES, clock, self.counter, self.hub, now=clock.wall_ms, **options
        )

    async def open(self) -> Self:
        await self.store.open()
        return self

    async def kill(self) -> None:
        """End without a last word, as kill -9 does."""
        for task in (*self.store._tasks, self.store._task):
            task.cancel()
        await asyncio.gather(*self.store._tasks, self.store._task, return_exceptions=True)
        await self.link.close()

    async def beat(self, sent_ms: int, node: str = NODE, **changes: Any) -> Outcome:
        return await self.publish(heartbeat(sent_ms, node, **changes))

    async def publish(self, item: Arrival) -> Outcome:
        return await self.store.record(item)

    async def states(self) -> dict[str, str]:
        """Return what each node is, as this receiver tells its readers."""
        return {state.node_id: state.state async for some in self.store.scan(Query()) for state in some}

    async def told(self, since: str = "") -> list[str]:
        """Return the events behind an id, with their nodes."""
        subscription = self.hub.subscribe(Filter(ALL_EVENTS), since or f"{self.hub.run}-0")
        text = await subscription.read(10_000, 0.0) or b""
        subscription.close()
        return [line[7:].decode() for line in text.split(b"\n") if line.startswith(b"event: ")]


class Fleet:
    """Some receivers of one Redis."""

    def __init__(self, url: str, count: int = 1, **options: Any) -> None:
        self._url = url
        self._count = count
        self._options = options
        self.clock = VirtualClock()
        self.receivers: list[Receiver] = []

    async def __aenter__(self) -> Self:
        for _ in range(self._count):
            await self.join()
        return self

    async def __aexit__(self, *_: object) -> None:
        for receiver in self.receivers:
            await receiver.store.close()

    async def join(self) -> Receiver:
        receiver = await Receiver(self._url, self.clock, **self._options).open()
        self.receivers.append(receiver)
        return receiver

    async def kill(self, receiver: Receiver) -> None:
        self.receivers.remove(receiver)
        await receiver.kill()

    async def pulse(self) -> None:
        """Let every receiver do what is due, and read what the others did."""
        for _ in range(2):
            for receiver in self.receivers:
                await receiver.store.pulse()
            for receiver in self.receivers:
                await receiver.store.follow()

    async def wait(self, seconds: float, *, every: float = 1.0) -> None:
        for _ in range(round(seconds / every)):
            self.clock.pass_(every)
            await self.pulse()

    def counted(self) -> list[tuple[Event, str]]:
        """Return what all receivers have counted, together."""
        return [event for receiver in self.receivers for event in receiver.counter.events]

    def leaders(self) -> list[Receiver]:
        return [receiver for receiver in self.receivers if receiver.store._leader.leads]


def heartbeat(sent_ms: int, node: str = NODE, *, version: str = "1", **changes: Any) -> Arrival:
    """Return an arrival whose payload can be read back; another version is another content."""
    tags = changes.get("tags", ())
    built = build(
        node_id=node,
        hostname="a.test",
        version=version,
        capacity={"workers": 4, "available_slots": 2},
        queue_depth={"planner": 1},
        last_heartbeat=format_ms(sent_ms),
        tags=tags,
    )
    payload = encode(built)
    return arrival(node, sent_ms, payload=payload, digest=digest(payload), slots=2, **changes)


def heartbeats(count: int, sent_ms: int, **changes: Any) -> list[Arrival]:
    return [heartbeat(sent_ms, node_id(number), **changes) for number in range(1, count + 1)]
