"""Storing a plan: each node for itself, and only where it still is what the plan took it for."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from openclaw_exporter.receiver.liveness import KEY_LIFE_SECONDS
from openclaw_exporter.receiver.registry import Stored
from openclaw_exporter.receiver.store.batching import tell_heard
from openclaw_exporter.receiver.store.redis.calls import Call, ShardAwayError
from openclaw_exporter.receiver.store.redis.packing import (
    NO_ARRIVAL,
    last_revision,
    next_revision,
    node_bytes,
    pack_arrivals,
    pack_event,
    pack_revision,
    pack_state,
    read_arrival,
    revision_of,
    split_arrivals,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from openclaw_exporter.receiver.liveness import Arrival, NodeState
    from openclaw_exporter.receiver.registry import Key, KeyRow, Plan
    from openclaw_exporter.receiver.store import Observer
    from openclaw_exporter.receiver.store.redis.link import Link
    from openclaw_exporter.receiver.store.redis.mirror import Mirror
    from openclaw_exporter.receiver.store.redis.packing import Names

_NONE: Final[Mapping[str, bytes]] = {}
_NODES: Final = 200
"""Nodes that one call may change; about 2 ms of Redis' time."""

_RECENT: Final = 6
"""Arrivals of a node that stand beside its revision, where storing one more costs no command of its own."""

_READ: Final = 50
"""Nodes whose arrivals one call reads."""


class Found(NamedTuple):
    """What was looked up.

    Attributes:
        stored: For `Registry.plan`.
        newest: The record of the newest arrival of each node that was looked at.
        lost: Nodes that could not be looked at.
    """

    stored: Stored
    newest: dict[str, bytes]
    lost: set[str]


class Verdict(NamedTuple):
    """What has become of a plan.

    Attributes:
        differ: Nodes that had changed meanwhile; the mirror knows them as they are now.
        lost: Nodes that may be stored or not.
    """

    differ: set[str]
    lost: set[str]


class _Item(NamedTuple):
    """One node of a commit.

    Attributes:
        node_id: The node.
        expected: The revision that is expected; 0: it is not known.
        state: Its new state; None: none, or it is forgotten.
        revision: Its new revision; 0: it has none.
        rows: Its new arrivals.
        is_full: Whether those that stand beside its revision go to the older ones, if there are new ones.
    """

    node_id: str
    expected: int
    state: NodeState | None
    revision: int
    rows: list[KeyRow]
    is_full: bool


class Commits:
    """See the module.

    Args:
        link: The way to Redis.
        names: The keys.
        mirror: What plans are made against.
        observer: Who wants to know what happens.

    Attributes:
        conflicts: How many nodes had changed when they were to be stored.
    """

    def __init__(self, link: Link, names: Names, mirror: Mirror, observer: Observer) -> None:
        self._link = link
        self._names = names
        self._mirror = mirror
        self._observer = observer
        self.conflicts = 0

    async def lookup(self, arrivals: Sequence[Arrival]) -> Found:
        """Read the stored arrivals of nodes of which some may be duplicates.

        Meanwhile the mirror may learn of what other receivers have stored; then those nodes are read as well.
        """
        needs = self._mirror.registry.needs_lookup
        sent: defaultdict[str, set[int]] = defaultdict(set)
        for arrival in arrivals:
            sent[arrival.node_id].add(arrival.sent_ms)
        digests: dict[Key, bytes] = {}
        newest: dict[str, int] = {}
        records: dict[str, bytes] = {}
        lost: set[str] = set()

        def wants(arrival: Arrival) -> bool:
            return needs(arrival) or self._is_refused(arrival)

        while wanted := {one.node_id for one in arrivals if wants(one)} - records.keys() - lost:
            for node_id, found in zip(wanted, await self.arrivals(wanted), strict=True):
                if not isinstance(found, list):
                    lost.add(node_id)
                    continue
                records[node_id] = found[-1] if found else NO_ARRIVAL
                rows = self.kept(node_id, found)
                newest[node_id] = max((row.sent_ms for row in rows), default=0)
                known = ((row.sent_ms, row.digest) for row in rows if row.sent_ms in sent[node_id])
                digests.update(((node_id, sent_ms), digest) for sent_ms, digest in known)
        return Found(Stored(digests, newest), records, lost)

    def _is_refused(self, arrival: Arrival) -> bool:
        """Whether an arrival is of an epoch that is over: no commit would tell that its key is stored."""
        state = self._mirror.registry.nodes.get(arrival.node_id)
        return (
            state is not None
            and arrival.sequence is not None
            and not arrival.replay
            and arrival.sequence.epoch < state.epoch
        )

    async def arrivals(self, nodes: Collection[str]) -> list[Any]:
        """Return the records of each node's arrivals, oldest first, or an error."""
        names, script = self._names, self._link.script("arrivals")
        groups: defaultdict[int, list[str]] = defaultdict(list)
        for node_id in nodes:
            groups[names.partition(node_id)].append(node_id)
        calls, whose = [], []
        for partition, group in groups.items():
            for start in range(0, len(group), _READ):
                some = group[start : start + _READ]
                keys = [names.recent[partition], *(names.seen(partition, one) for one in some)]
                calls.append(Call(partition, ("EVALSHA", script, len(keys), *keys, *map(node_bytes, some))))
                whose.append(some)
        found: dict[str, Any] = {}
        for some, answer in zip(whose, await self.timed("lookup", calls), strict=True):
            if isinstance(answer, list):
                found.update(zip(some, map(_records, answer), strict=True))
            else:
                found.update(dict.fromkeys(some, answer))
        return [found[node_id] for node_id in nodes]

    def kept(self, node_id: str, records: Sequence[bytes]) -> list[KeyRow]:
        """Return those of a node's arrivals that are not too old to count."""
        since = self._mirror.registry.listening.read().seconds - KEY_LIFE_SECONDS
        rows = (read_arrival(node_id, record) for record in records)
        return [row for row in rows if row.heard_at >= since]

    async def store(
        self, plan: Plan, newest: Mapping[str, bytes] = _NONE, duplicates: Iterable[str] = ()
    ) -> Verdict:
        """Store a plan, take what is stored into the mirror, and tell the observer.

        Args:
            plan: The plan; what differs or is lost is withdrawn from it.
            newest: As `lookup` found it.
            duplicates: Nodes that are to be told that what they sent is stored already: it must still be, and
                the replicas must have it too by then.
        """
        items = self._items(plan, newest)
        calls, whose = self._calls(plan, items, newest)
        stores = {row.node_id for row in plan.keys.values()}
        for node_id in (one for one in duplicates if one not in stores):
            calls.append(self._confirming(node_id, newest[node_id]))
            whose.append([_Item(node_id, 0, None, 0, [], is_full=False)])
        self._announce(plan, items)
        differ: set[str] = set()
        lost: set[str] = set()
        if calls:
            for group, answer in zip(whose, await self.timed("commit", calls, durable=True), strict=True):
                self._judge(group, answer, differ, lost)
        if differ or lost:
            plan.withdraw(differ | lost)
        at = self._mirror.registry.listening.read()
        for node_id, state, revision in ((item.node_id, item.state, item.revision) for item in items):
            if revision and node_id not in differ and node_id not in lost:
                self._mirror.settle(node_id, revision, is_stored=True)
                self._mirror.store(node_id, state, revision, at)
        tell_heard(self._observer, plan)
        return Verdict(differ, lost)

    async def timed(self, operation: str, calls: Sequence[Call], *, durable: bool = False) -> list[Any]:
        """Run calls, and say how long they took."""
        started = time.perf_counter()
        try:
            return await self._link.run(calls, durable=durable)
        finally:
            self._observer.timed(operation, time.perf_counter() - started)

    def _items(self, plan: Plan, newest: Mapping[str, bytes]) -> list[_Item]:
        known = self._mirror.registry.nodes
        rows: defaultdict[str, list[KeyRow]] = defaultdict(list)
        for row in plan.keys.values():
            rows[row.node_id].append(row)
        items = []
        seconds = plan.moment.seconds
        for node_id, state in plan.states.items():
            before = known.get(node_id)
            expected = 0 if before is None else before.stored
            if state is None:
                items.append(_Item(node_id, expected, None, last_revision(expected), [], is_full=True))
                continue
            state.stored = next_revision(expected, seconds)
            new = rows.pop(node_id, [])
            there = 0 if before is None else max(before.trail, 0)
            is_full = there + len(new) > _RECENT or node_id in newest
            state.trail = len(new) if is_full and new else there + len(new)
            items.append(_Item(node_id, expected, state, state.stored, new, is_full))
        for node_id, others in rows.items():
            before = known.get(node_id)
            items.append(
                _Item(node_id, 0 if before is None else before.stored, None, 0, others, is_full=True)
            )
        return items

    def _calls(
        self, plan: Plan, items: list[_Item], newest: Mapping[str, bytes]
    ) -> tuple[list[Call], list[list[_Item]]]:
        partition_of = self._names.partition
        by_partition: defaultdict[int, list[_Item]] = defaultdict(list)
        for item in items:
            by_partition[partition_of(item.node_id)].append(item)
        events: defaultdict[str, list[bytes]] = defaultdict(list)
        for event, state in plan.events:
            events[state.node_id].append(pack_event(event, state, plan.moment))
        heard = {state.node_id for state in plan.updated}
        heard -= events.keys()
        calls: list[Call] = []
        whose: list[list[_Item]] = []
        before = max(0, round((plan.moment.seconds - KEY_LIFE_SECONDS) * 1000))
        for partition, group in by_partition.items():
            for start in range(0, len(group), _NODES):
                some = group[start : start + _NODES]
                calls.append(self._call(partition, some, newest, events, heard, before))
                whose.append(some)
        return calls, whose

    def _call(
        self,
        partition: int,
        items: list[_Item],
        newest: Mapping[str, bytes],
        events: dict[str, list[bytes]],
        heard: set[str],
        before: int,
    ) -> Call:
        names = self._names
        keys: list[str] = [names.nodes[partition], names.changes[partition], names.outbox[partition]]
        keys.append(names.recent[partition])
        words: list[bytes | int] = [len(items), before]
        lists: list[bytes | int] = []
        told: list[bytes | int] = []
        for index, item in enumerate(items, start=1):
            node_id, expected, state, revision, rows, is_full = item
            blob = b""
            if state is not None:
                blob = pack_state(state, is_heard=node_id in heard)
            elif revision:
                blob = pack_revision(revision)
            words += (node_bytes(node_id), pack_revision(expected), blob, pack_arrivals(rows))
            if is_full:
                keys.append(names.seen(partition, node_id))
                lists += (index, newest.get(node_id, b"") if rows else b"")
            for event in events.get(node_id, ()):
                told += (index, event)
        script = self._link.script("commit")
        return Call(partition, ("EVALSHA", script, len(keys), *keys, *words, *lists, *told))

    def _confirming(self, node_id: str, newest: bytes) -> Call:
        names, partition = self._names, self._names.partition(node_id)
        keys = names.recent[partition], names.seen(partition, node_id), names.mark[partition]
        script = self._link.script("confirm")
        return Call(partition, ("EVALSHA", script, len(keys), *keys, node_bytes(node_id), newest))

    def _announce(self, plan: Plan, items: list[_Item]) -> None:
        """Say what is sent, so that it is counted once even where the answer does not come."""
        if not plan.events:
            return
        events: defaultdict[str, list[Any]] = defaultdict(list)
        for event, state in plan.events:
            events[state.node_id].append((event, state))
        for item in items:
            if item.node_id in events:
                self._mirror.send(item.node_id, item.revision, events[item.node_id])

    def _judge(self, items: list[_Item], answer: Any, differ: set[str], lost: set[str]) -> None:
        """Read what has become of some nodes."""
        if isinstance(answer, Exception):
            for item in items:
                lost.add(item.node_id)
                if isinstance(answer, ShardAwayError) and not answer.ambiguous:
                    self._mirror.settle(item.node_id, item.revision, is_stored=False)
            return
        if not isinstance(answer, list):
            if not answer:
                # Its arrivals were read of a server that is not the primary any more, or there are new ones.
                differ.add(items[0].node_id)
            return
        at = self._mirror.registry.listening.read()
        for index, blob in zip(answer[::2], answer[1::2], strict=True):
            item = items[index - 1]
            if item.revision and revision_of(blob) == item.revision:
                # The call was executed twice.
                continue
            self.conflicts += 1
            differ.add(item.node_id)
            self._mirror.settle(item.node_id, item.revision, is_stored=False)
            self._mirror.correct(item.node_id, blob, item.expected, at)


def _records(found: tuple[bytes, list[bytes]]) -> list[bytes]:
    """Return the records of a node's arrivals, oldest first."""
    recent, older = found
    return split_arrivals(b"".join((*older, recent)))
