"""The contract's rules once more, written to be read, not to be quick: what the registry is held against.

It shares no code with the registry, and looks at every node and every key each time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

LIVE = ("up", "late", "suspect")
LAPSED = ("expired", "offline")
KEY_LIFE = 3600.0


class Terms(Protocol):
    """What a configuration says: seconds, and heartbeats a second (0: intervals are not scaled)."""

    @property
    def default_interval(self) -> int: ...
    @property
    def max_interval(self) -> int: ...
    @property
    def retention(self) -> float: ...
    @property
    def target_rate(self) -> float: ...


class Heartbeat(Protocol):
    """What arrives."""

    @property
    def node_id(self) -> str: ...
    @property
    def payload(self) -> bytes: ...
    @property
    def digest(self) -> bytes: ...
    @property
    def sent_ms(self) -> int: ...
    @property
    def sequence(self) -> tuple[int, int] | None: ...
    @property
    def interval(self) -> int | None: ...
    @property
    def replay(self) -> bool: ...
    @property
    def draining(self) -> bool: ...


class When(NamedTuple):
    """A moment: listening time, how often listening was interrupted until then, and the wall clock."""

    seconds: float
    interruptions: int
    wall_ms: int


class Reply(NamedTuple):
    """What to answer: the result, when the node expires (Unix milliseconds), the interval, and the epoch."""

    kind: str
    expires_ms: int
    interval: int
    epoch: int | None


class Key(NamedTuple):
    """A stored idempotency key: of which content, since when, and what its heartbeat was."""

    digest: bytes
    heard_at: float
    result: str


@dataclass
class ReferenceNode:
    """What the contract says of one node."""

    state: str
    first_seen: int
    last_seen: int
    heard_at: float
    interruptions: int
    interval: int
    answered: int
    skew_ms: int
    content: bytes
    content_ms: int
    sequence: tuple[int, int] | None
    ended_at: float = 0.0
    ended_ms: int = 0


@dataclass
class Reference:
    """Every node and every key; time is told by whoever holds it."""

    rules: Terms
    listening: float = 0.0
    interruptions: int = 1
    nodes: dict[str, ReferenceNode] = field(default_factory=dict)
    keys: dict[str, dict[int, Key]] = field(default_factory=dict)
    events: list[tuple[str, str]] = field(default_factory=list)

    def of_node(self, node_id: str) -> Reference:
        """Return a copy of what is known of one node, to try something with."""
        nodes = {node_id: replace(self.nodes[node_id])} if node_id in self.nodes else {}
        keys = {node_id: dict(self.keys.get(node_id, {}))}
        return Reference(self.rules, self.listening, self.interruptions, nodes, keys)

    def now(self, wall_ms: int) -> When:
        return When(self.listening, self.interruptions, wall_ms)

    def key(self, node_id: str, sent_ms: int) -> Key | None:
        """Return what is stored under a key, which is known for an hour and not longer."""
        key = self.keys.get(node_id, {}).get(sent_ms)
        return key if key is not None and self.listening - key.heard_at <= KEY_LIFE else None

    def history(self, node_id: str) -> dict[int, Key]:
        """Return what arrived within the last hour."""
        known = self.keys.get(node_id, {})
        return {sent_ms: key for sent_ms in known if (key := self.key(node_id, sent_ms)) is not None}

    def intervals(self, arrival: Heartbeat) -> range:
        """Return which intervals may be answered to a live heartbeat, before its batch changes anything."""
        configured = arrival.interval or self.rules.default_interval
        if not self.rules.target_rate:
            return range(configured, configured + 1)
        live = sum(node.state in LIVE for node in self.nodes.values())
        scaled = min(math.ceil(live / self.rules.target_rate), self.rules.max_interval)
        if scaled <= configured:
            return range(configured, configured + 1)
        return range(scaled, min(math.ceil(1.1 * scaled), self.rules.max_interval) + 1)

    def arrive(self, arrival: Heartbeat, when: When, answered: int | None = None) -> Reply:
        """Take in a heartbeat; a live one's answered interval may be told, else it is the configured one."""
        key = self.key(arrival.node_id, arrival.sent_ms)
        node = self.nodes.get(arrival.node_id)
        ordered = node is not None and node.sequence is not None and arrival.sequence is not None
        if key is not None:
            kind = "duplicate" if key.digest == arrival.digest else "key-conflict"
        elif not arrival.replay and ordered and arrival.sequence[0] < node.sequence[0]:
            kind = "epoch-conflict"
        elif arrival.replay or (ordered and tuple(arrival.sequence) <= node.sequence):
            kind = "history"
        else:
            kind = "recorded"
            node = self.live(arrival, node, when, answered or arrival.interval or self.rules.default_interval)
        if kind in ("recorded", "history"):
            stored = Key(arrival.digest, when.seconds, kind)
            self.keys.setdefault(arrival.node_id, {})[arrival.sent_ms] = stored
        if node is None:
            return Reply(kind, when.wall_ms, arrival.interval or self.rules.default_interval, None)
        epoch = None if node.sequence is None else node.sequence[0]
        return Reply(kind, self.expires_ms(node, when), node.answered, epoch)

    def live(
        self, arrival: Heartbeat, node: ReferenceNode | None, when: When, answered: int
    ) -> ReferenceNode:
        """Let a node live on, or begin to."""
        interval = answered
        if arrival.interval is None and node is not None:
            gap = math.ceil(when.seconds - node.heard_at)
            interval = max(answered, min(gap, self.rules.max_interval))
        before = None if node is None else node.state
        newer = node is None or arrival.sequence is not None or arrival.sent_ms > node.content_ms
        leaving = arrival.draining if newer else before in ("draining", "offline")
        heard = ReferenceNode(
            state="draining" if leaving else "up",
            first_seen=when.wall_ms if node is None else node.first_seen,
            last_seen=when.wall_ms if node is None else max(node.last_seen, when.wall_ms),
            heard_at=when.seconds,
            interruptions=when.interruptions,
            interval=interval,
            answered=answered,
            skew_ms=arrival.sent_ms - when.wall_ms,
            content=arrival.payload if newer else node.content,
            content_ms=arrival.sent_ms if newer else node.content_ms,
            sequence=arrival.sequence or (None if node is None else node.sequence),
        )
        self.nodes[arrival.node_id] = heard
        if before is None:
            self.events.append(("registered", arrival.node_id))
        elif leaving and before != "draining":
            self.events.append(("draining", arrival.node_id))
        elif not leaving and before in LAPSED:
            self.events.append(("returned", arrival.node_id))
        return heard

    def times(self, node: ReferenceNode, interruptions: int) -> int:
        return 2 if node.interruptions == interruptions else 3

    def expires_ms(self, node: ReferenceNode, when: When) -> int:
        if node.state in LAPSED:
            return node.ended_ms
        times = self.times(node, when.interruptions) + 4 * (node.state == "suspect")
        left = node.heard_at + times * node.interval - when.seconds
        return when.wall_ms + round(1000 * max(0.0, left))

    def brake_holds(self) -> bool:
        """Whether 55 % or more of at least 10 live nodes would expire within an interval."""
        live = [node for node in self.nodes.values() if node.state in LIVE]
        silent = sum(
            self.listening - node.heard_at > (self.times(node, self.interruptions) - 1) * node.interval
            for node in live
        )
        return len(live) >= 10 and silent / len(live) >= 0.55

    def look(self, wall_ms: int = 0) -> None:
        """Let everything happen that is due now."""
        holds = self.brake_holds()
        for name, node in list(self.nodes.items()):
            if node.state in LAPSED:
                if self.listening >= node.ended_at + self.rules.retention:
                    self.forget(name)
                continue
            silence = self.listening - node.heard_at
            times = self.times(node, self.interruptions)
            if silence >= times * node.interval and node.state in ("up", "late") and holds:
                node.state = "suspect"
                self.events.append(("suspect", name))
            elif silence >= (times + 4 * (node.state == "suspect")) * node.interval:
                node.state = "offline" if node.state == "draining" else "expired"
                node.ended_at, node.ended_ms = self.listening, wall_ms
                self.events.append((node.state, name))
            elif silence >= 1.5 * node.interval and node.state == "up":
                node.state = "late"
                self.events.append(("late", name))

    def forget(self, name: str) -> None:
        """Delete everything of a node."""
        del self.nodes[name]
        self.keys.pop(name, None)
        self.events.append(("forgotten", name))

    def lose_lateness(self, names: Iterable[str]) -> None:
        """Take back that nodes are late: a store may tell that from the time, and not keep it."""
        for name in names:
            assert self.nodes[name].state == "late", f"{name} was {self.nodes[name].state}"
            self.nodes[name].state = "up"

    def drop_old_keys(self) -> None:
        """Forget what is not known any more, so that an hour's keys is all there is."""
        for node_id in list(self.keys):
            self.keys[node_id] = self.history(node_id)
            if not self.keys[node_id]:
                del self.keys[node_id]
