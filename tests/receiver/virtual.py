"""The registry in virtual time, its journal a dictionary: the rules without sockets, disks or waiting."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from openclaw_exporter.receiver.listening import ListeningClock
from openclaw_exporter.receiver.liveness import Arrival, Event, NodeState, Outcome, Rules
from openclaw_exporter.receiver.registry import Key, KeyRow, Plan, Registry, Stored

if TYPE_CHECKING:
    from collections.abc import Iterable

RULES = Rules(default_interval=60, max_interval=120, retention=600.0)


class VirtualClock:
    """Elapsed and wall time that move only when they are told to."""

    def __init__(self, *, elapsed: float = 1000.0, wall_ms: int = 1_750_000_000_000) -> None:
        self.now = elapsed
        self._wall_ms = wall_ms - round(elapsed * 1000)

    def elapsed(self) -> float:
        return self.now

    def wall_ms(self) -> int:
        return self._wall_ms + round(self.now * 1000)

    def pass_(self, seconds: float) -> None:
        self.now += seconds

    def step_wall(self, seconds: float) -> None:
        self._wall_ms += round(seconds * 1000)


def node_id(number: int) -> str:
    """Return the id of a test's n-th node."""
    return str(UUID(int=number))


def arrival(node: str, sent_ms: int, *, content: str = "", **changes: Any) -> Arrival:
    """Return an arrival; other content is another digest under the same key."""
    payload = f"{node} {sent_ms} {content}".encode()
    fields: dict[str, Any] = {
        "node_id": node,
        "payload": payload,
        "digest": sha256(payload).digest(),
        "tags": (),
        "version": "1",
        "slots": 1,
        "sent_ms": sent_ms,
    }
    return Arrival(**fields | changes)


@dataclass
class Journal:
    """What is on the disk."""

    states: dict[str, NodeState] = field(default_factory=dict)
    keys: dict[Key, KeyRow] = field(default_factory=dict)
    seconds: float = 0.0
    interruption: int = 0

    def store(self, plan: Plan) -> None:
        for node in plan.forgotten:
            self.states.pop(node, None)
            for key in [key for key in self.keys if key[0] == node]:
                del self.keys[key]
        self.states |= {state.node_id: copy.copy(state) for state in plan.changed}
        self.keys |= plan.keys
        self.seconds, self.interruption = plan.moment.seconds, plan.moment.interruption


class World:
    """A registry, its journal and its clock: what the embedded store is, without threads."""

    def __init__(self, rules: Rules = RULES) -> None:
        self.rules = rules
        self.clock = VirtualClock()
        self.journal = Journal()
        self.events: list[tuple[Event, str]] = []
        self.start()

    def start(self) -> None:
        """Start from the journal, as after a kill -9."""
        self.journal.interruption += 1
        listening = ListeningClock(
            self.clock, seconds=self.journal.seconds, interruption=self.journal.interruption
        )
        # What is read from a disk knows no wheel.
        states = [msgspec.structs.replace(state, bucket=-1) for state in self.journal.states.values()]
        self.registry = Registry(self.rules, listening, states)

    def arrive(self, *arrivals: Arrival, fails: bool = False) -> list[Outcome]:
        """Let arrivals come in one batch."""
        at = self.registry.listening.read()
        keys = [(item.node_id, item.sent_ms) for item in arrivals if self.registry.needs_lookup(item)]
        digests = {key: self.journal.keys[key].digest for key in keys if key in self.journal.keys}
        nodes = {node for node, _ in keys}
        newest = {
            node: max((ms for other, ms in self.journal.keys if other == node), default=0) for node in nodes
        }
        return self._carry_out([(item, at) for item in arrivals], Stored(digests, newest), fails=fails)

    def tick(self, *, fails: bool = False) -> None:
        """Let what is due happen."""
        self._carry_out((), Stored({}, {}), fails=fails)

    def wait(self, seconds: float, *, every: float = 0.25) -> None:
        """Let time pass, with a tick as often as the receiver has one."""
        for _ in range(round(seconds / every)):
            self.clock.pass_(every)
            self.tick()

    def state(self, node: str) -> str | None:
        known = self.registry.nodes.get(node)
        return known.state if known else None

    def _carry_out(
        self, arrivals: Iterable[tuple[Arrival, Any]], stored: Stored, *, fails: bool
    ) -> list[Outcome]:
        plan = self.registry.plan(arrivals, stored)
        if fails:
            self.registry.abandon(plan)
            return []
        self.journal.store(plan)
        self.registry.apply(plan)
        self.events += [(event, state.node_id) for event, state in plan.events]
        return plan.outcomes
