"""What a registry says: nodes, their history and what they have together, as typed values."""

from __future__ import annotations

import datetime as dt
from typing import Literal

import msgspec

State = Literal["up", "late", "suspect", "expired", "draining", "offline"]
"""How a node stands with the registry; live are `up`, `late` and `suspect`."""


class Reported(msgspec.Struct, frozen=True, kw_only=True):
    """The last live heartbeat of a node.

    Attributes:
        hostname: Its host name.
        version: The version of the service that it runs.
        capacity: Resource to amount; `workers` and `available_slots` are always there.
        queue_depth: Topic to number of entries.
        last_heartbeat: When it was sent, by the node's clock.
        tags: `key:value` by convention.
        uptime_seconds: How long its service has run; None where it does not say.
    """

    hostname: str
    version: str
    capacity: dict[str, int | float]
    queue_depth: dict[str, int]
    last_heartbeat: dt.datetime
    tags: tuple[str, ...]
    uptime_seconds: int | None = None


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One node, by the receiver's clock.

    Attributes:
        node_id: Its UUID.
        state: How it stands with the registry.
        reason: Why, in words.
        first_seen: Arrival of its first live heartbeat.
        last_seen: Arrival of its last live heartbeat.
        expires_at: When it expires if nothing more is heard, or did.
        interval_seconds: The interval that its expiry is counted by.
        clock_skew_seconds: Its clock minus the receiver's, at its last live heartbeat.
        heartbeat: What it said last.
    """

    node_id: str
    state: State
    reason: str
    first_seen: dt.datetime
    last_seen: dt.datetime
    expires_at: dt.datetime
    interval_seconds: int
    clock_skew_seconds: float
    heartbeat: Reported

    @property
    def live(self) -> bool:
        """Whether it counts as alive: up, late or suspect."""
        return self.state in ("up", "late", "suspect")

    @property
    def available_slots(self) -> int:
        """The slots that it offers: none unless it is live."""
        return int(self.heartbeat.capacity.get("available_slots", 0)) if self.live else 0


class HeardHeartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """One heartbeat that arrived in the last hour.

    Attributes:
        arrived_at: When, by the receiver's clock.
        last_heartbeat: When it was sent, by the node's clock: with the node_id its key.
        result: `recorded`, or `history` for one that was late.
        sequence: `<epoch>.<n>`; None where it had none.
    """

    arrived_at: dt.datetime
    last_heartbeat: dt.datetime
    result: str
    sequence: str | None = None


class FleetCapacity(msgspec.Struct, frozen=True, kw_only=True):
    """What the live nodes have together.

    Attributes:
        nodes: How many there are.
        workers: Their workers.
        available_slots: Their free slots.
        resources: Every other resource, by name.
        queue_depth: Entries that wait, by topic: the greatest depth within each swarm, summed over swarms.
        queue_depth_sum: The same, summed over topics.
    """

    nodes: int
    workers: int
    available_slots: int
    queue_depth: dict[str, int]
    queue_depth_sum: int
    resources: dict[str, int | float] = {}


class NodePage(msgspec.Struct, frozen=True):
    """One page of nodes, and where the next begins; None at the end."""

    nodes: list[Node]
    next_cursor: str | None = None


class NodeHistory(msgspec.Struct, frozen=True):
    """What arrived from one node in the last hour, oldest first."""

    node_id: str
    history: list[HeardHeartbeat]
