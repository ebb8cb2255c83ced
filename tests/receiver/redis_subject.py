"""The Redis store as the model test drives it: a real Redis in virtual time, one receiver or several."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

from receiver.subjects import Told, known, submit
from receiver.virtual import VirtualClock

from openclaw_exporter.receiver.store.redis.address import Target, parse
from openclaw_exporter.receiver.store.redis.link import Link, ShardAwayError
from openclaw_exporter.receiver.store.redis.scripts import ALL
from openclaw_exporter.receiver.store.redis.store import RedisStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openclaw_exporter.receiver.listening import Moment
    from openclaw_exporter.receiver.liveness import Arrival, Event, NodeState, Outcome, Rules
    from openclaw_exporter.receiver.registry import KeyRow
    from openclaw_exporter.receiver.store.redis.link import Call, Partition
    from openclaw_exporter.receiver.store.redis.packing import Told as Entry

PARTITIONS = 2


class FaultyLink(Link):
    """A way to Redis that breaks when it is told to."""

    is_away = False
    breaks_after_a_commit = False

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.parts_away: set[Partition] = set()
        self._returns: Counter[Partition] = Counter()

    async def run(self, calls: Sequence[Call], *, durable: bool = False) -> list[Any]:
        if self.is_away:
            return [ShardAwayError("out of reach", ambiguous=False)] * len(calls)
        if self.parts_away:
            there = [call for call in calls if call.partition not in self.parts_away]
            answered = iter(await super().run(there, durable=durable) if there else ())
            lost = ShardAwayError("out of reach", ambiguous=False)
            return [lost if call.partition in self.parts_away else next(answered) for call in calls]
        answers = await super().run(calls, durable=durable)
        if durable and self.breaks_after_a_commit:
            self.is_away = True
            return [ShardAwayError("lost on the way back", ambiguous=True)] * len(calls)
        return answers

    async def probe(self) -> frozenset[Partition]:
        return frozenset() if self.is_away else await super().probe()

    def away(self, partition: Partition) -> bool:
        return self.is_away or partition in self.parts_away or super().away(partition)

    def mend(self) -> None:
        """Let everything through again; as a new connection says, something may have been missed."""
        self._returns.update(self.partitions if self.is_away else self.parts_away)
        self.parts_away.clear()
        self.is_away = self.breaks_after_a_commit = False

    def generation(self, partition: Partition) -> int:
        return super().generation(partition) + self._returns[partition]


class MemoryLog:
    """One receiver's reading of the numbered log of events, which has to be what all the others read."""

    size = 100_000

    def __init__(self, entries: dict[int, tuple[str, str]]) -> None:
        self.run = ""
        self.end = 0
        self._entries = entries

    def restart(self, run: str, begin: int) -> None:
        self.run, self.end = run, begin

    def take(self, number: int, told: Entry) -> None:
        if number <= self.end:
            return
        assert number == self.end + 1, f"event {number} came behind {self.end}"
        self.end = number
        entry = told.event, told.state.node_id
        assert self._entries.setdefault(number, entry) == entry, f"event {number} is another one elsewhere"


class _Receiver:
    """One receiver's store; None while it is killed."""

    def __init__(self) -> None:
        self.link: FaultyLink | None = None
        self.store: RedisStore | None = None
        self.log: MemoryLog | None = None


class SharedRedis:
    """Receivers of one Redis. A `Subject`.

    Args:
        url: An empty Redis.
        rules: The configuration.
        receivers: How many there are.
    """

    is_shared = True

    def __init__(self, url: str, rules: Rules, receivers: int) -> None:
        self.clock = VirtualClock()
        self.receivers = receivers
        self.told: list[tuple[Event, str]] = []
        self._url = url
        self._rules = rules
        self._all = [_Receiver() for _ in range(receivers)]
        self._log: dict[int, tuple[str, str]] = {}
        self._read = 0
        self._submitted = 0
        self._is_settled = self._is_led = False

    async def open(self) -> None:
        for receiver in range(self.receivers):
            await self.start(receiver)

    async def close(self) -> None:
        for one in self._all:
            if one.store is not None:
                await one.store.close()

    async def start(self, receiver: int) -> None:
        one = self._all[receiver]
        target = Target(hosts=parse(self._url).hosts, timeout=30.0, partitions=PARTITIONS)
        one.link, one.log = FaultyLink(target, ALL), MemoryLog(self._log)
        one.store = RedisStore(
            one.link,
            PARTITIONS,
            self._rules,
            self.clock,
            Told(self.told),
            one.log,
            # The server's clock is not the receivers', which are set now and then.
            now=lambda: 1_750_000_000_000 + round(1000 * self.clock.now),
        )
        await one.store.open()

    async def kill(self, receiver: int) -> None:
        one = self._all[receiver]
        assert one.store is not None
        assert one.link is not None
        tasks = [*one.store._tasks, one.store._task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await one.link.close()
        one.store = one.link = one.log = None

    async def submit(self, receiver: int, arrivals: Sequence[Arrival], after: float) -> list[Outcome | None]:
        store = self._all[receiver].store
        assert store is not None
        self._is_settled = False
        self._submitted += 1
        # What a receiver has not heard of yet must not matter; but it counts only whom it knows.
        if self._rules.target_rate or self._submitted % 2:
            await store.follow()
        outcomes = submit(store, self.clock, arrivals, after)
        while len(outcomes) < len(arrivals):  # noqa: ASYNC110 - the store's worker has work to do
            await asyncio.sleep(0)
        if any(one.link.is_away for one in self._all if one.link):
            self.take_away(after_a_commit=False)
        return [outcomes[number] for number in range(len(arrivals))]

    async def tick(self, *, without: int | None = None) -> bool:
        stores = [
            one.store for number, one in enumerate(self._all) if one.store is not None and number != without
        ]
        await asyncio.gather(*(store.follow() for store in stores))
        for store in stores:
            store._end_shedding()
            await store.pulse()
        await asyncio.gather(*(store.follow() for store in stores))
        self._is_settled = without is None
        self._is_led = any(store._leader.leads for store in stores)
        return self._is_led

    async def align(self) -> None:
        await self.tick()

    def shed(self, receiver: int) -> None:
        store = self._all[receiver].store
        assert store is not None
        store.shed()

    def take_away(self, *, after_a_commit: bool) -> None:
        for one in self._all:
            if one.link is not None:
                one.link.is_away = not after_a_commit
                one.link.breaks_after_a_commit = after_a_commit

    def take_part_away(self, part: int) -> None:
        for one in self._all:
            if one.link is not None:
                one.link.parts_away.add(part)

    def part_of(self, node_id: str) -> int:
        return next(one.store for one in self._all if one.store)._names.partition(node_id)

    def bring_back(self) -> None:
        for one in self._all:
            if one.link is not None:
                one.link.mend()

    def available(self) -> bool:
        return all(one.store.available and one.store.listening.hears for one in self._all if one.store)

    def is_stored(self, fate: str) -> bool:
        return fate != "not stored"

    def moment(self) -> Moment:
        return max((one.store.moment() for one in self._all if one.store), key=lambda moment: moment.seconds)

    async def states(self) -> list[dict[str, NodeState]]:
        if not self._is_settled:
            return []
        return [await known(one.store) for one in self._all if one.store]

    async def known(self, receiver: int) -> dict[str, NodeState]:
        store = self._all[receiver].store
        assert store is not None
        return await known(store)

    def logged(self) -> list[tuple[str, str]] | None:
        if not (self._is_settled and self._is_led):
            return None
        end = len(self._log)
        assert {one.log.end for one in self._all if one.log} == {end}, "not everybody reads the whole log"
        entries = [self._log[number] for number in range(self._read + 1, end + 1)]
        self._read = end
        return entries

    async def history(self, node_id: str) -> list[KeyRow]:
        store = next(one.store for one in self._all if one.store)
        return await store.history(node_id)
