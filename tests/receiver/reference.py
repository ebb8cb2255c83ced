"""The contract's rules once more, written to be read, not to be quick: what the registry is held against."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from openclaw_exporter.receiver.liveness import Rules

if TYPE_CHECKING:
    from openclaw_exporter.receiver.liveness import Arrival


@dataclass
class ReferenceNode:
    """What the contract says of one node."""

    state: str
    first_seen: int
    last_seen: int
    heard_at: float
    interruptions: int
    interval: int
    content: bytes
    content_ms: int
    sequence: tuple[int, int] | None
    ended_at: float = 0.0


@dataclass
class Reference:
    """Every node and every key; time is told, and each node is looked at each time."""

    rules: Rules
    listening: float = 0.0
    interruptions: int = 1
    nodes: dict[str, ReferenceNode] = field(default_factory=dict)
    keys: dict[tuple[str, int], bytes] = field(default_factory=dict)
    events: list[tuple[str, str]] = field(default_factory=list)

    def arrive(self, arrival: Arrival, wall_ms: int) -> str:
        key = (arrival.node_id, arrival.sent_ms)
        if key in self.keys:
            return "duplicate" if self.keys[key] == arrival.digest else "key-conflict"
        node = self.nodes.get(arrival.node_id)
        ordered = node is not None and node.sequence is not None and arrival.sequence is not None
        if not arrival.replay and ordered and arrival.sequence[0] < node.sequence[0]:
            return "epoch-conflict"
        self.keys[key] = arrival.digest
        if arrival.replay or (ordered and tuple(arrival.sequence) <= node.sequence):
            return "history"
        self.live(arrival, node, wall_ms)
        return "recorded"

    def live(self, arrival: Arrival, node: ReferenceNode | None, wall_ms: int) -> None:
        interval = arrival.interval
        if interval is None:
            gap = 0 if node is None else self.listening - node.heard_at
            whole = int(gap) + (gap > int(gap))
            interval = max(self.rules.default_interval, min(whole, self.rules.max_interval))
        before = None if node is None else node.state
        newer = node is None or arrival.sequence is not None or arrival.sent_ms > node.content_ms
        leaving = arrival.draining if newer else before in ("draining", "offline")
        self.nodes[arrival.node_id] = ReferenceNode(
            state="draining" if leaving else "up",
            first_seen=wall_ms if node is None else node.first_seen,
            last_seen=wall_ms if node is None else max(node.last_seen, wall_ms),
            heard_at=self.listening,
            interruptions=self.interruptions,
            interval=interval,
            content=arrival.payload if newer else node.content,
            content_ms=arrival.sent_ms if newer else node.content_ms,
            sequence=arrival.sequence or (None if node is None else node.sequence),
        )
        if before is None:
            self.events.append(("registered", arrival.node_id))
        elif leaving and before != "draining":
            self.events.append(("draining", arrival.node_id))
        elif not leaving and before in ("expired", "offline"):
            self.events.append(("returned", arrival.node_id))

    def times(self, node: ReferenceNode) -> int:
        return 2 if node.interruptions == self.interruptions else 3

    def brake_holds(self) -> bool:
        """Whether 55 % or more of at least 10 live nodes would expire within an interval."""
        live = [node for node in self.nodes.values() if node.state in ("up", "late", "suspect")]
        silent = sum(self.listening - node.heard_at > (self.times(node) - 1) * node.interval for node in live)
        return len(live) >= 10 and silent / len(live) >= 0.55

    def look(self) -> None:
        """Let everything happen that is due now."""
        holds = self.brake_holds()
        for name, node in list(self.nodes.items()):
            if node.state in ("expired", "offline"):
                if self.listening >= node.ended_at + self.rules.retention:
                    del self.nodes[name]
                    self.keys = {key: value for key, value in self.keys.items() if key[0] != name}
                    self.events.append(("forgotten", name))
                continue
            silence = self.listening - node.heard_at
            times = self.times(node)
            if silence >= times * node.interval and node.state in ("up", "late") and holds:
                node.state = "suspect"
                self.events.append(("suspect", name))
            elif silence >= (times + 4 * (node.state == "suspect")) * node.interval:
                node.state = "offline" if node.state == "draining" else "expired"
                node.ended_at = self.listening
                self.events.append((node.state, name))
            elif silence >= 1.5 * node.interval and node.state == "up":
                node.state = "late"
