"""The registry in memory: it plans what a batch of arrivals and the passing of time change, and applies it.

Whoever owns a `Registry` makes one plan at a time, stores it, and then applies or abandons it. Every decision
is therefore made against what is stored plus the plan itself, so memory never claims what a failed commit
did not store, several arrivals of one node within a plan see each other, and a plan is all or nothing.
Nothing here does I/O.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import msgspec

from openclaw_exporter.receiver.brake import Brake
from openclaw_exporter.receiver.discovery.index import Index
from openclaw_exporter.receiver.liveness import advance, due_at, judge
from openclaw_exporter.receiver.scaling import scaled_interval
from openclaw_exporter.receiver.wheel import Wheel

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from openclaw_exporter.receiver.brake import Held
    from openclaw_exporter.receiver.listening import Listening, Moment
    from openclaw_exporter.receiver.liveness import Arrival, Event, NodeState, Outcome, Rules

Key = tuple[str, int]
"""The idempotency key: node_id, and the heartbeat's time in Unix milliseconds."""

DUE_LIMIT: Final = 1024
"""Nodes that one plan looks at because their time came; about 20 ms of work where all of them expire."""


class Stored(NamedTuple):
    """What the store says of the arrivals of a batch.

    Attributes:
        digests: By idempotency key, where the key is stored.
        newest: The greatest stored time of each node, where there is any; also of nodes that are not known,
            whose replays are stored too.
    """

    digests: Mapping[Key, bytes]
    newest: Mapping[str, int]


_NOTHING: Final = Stored({}, {})


class KeyRow(NamedTuple):
    """One stored arrival: its idempotency key, and what history tells.

    Attributes:
        node_id: The node.
        sent_ms: The heartbeat's time by the node's clock.
        digest: SHA-256 of the canonical encoding.
        result: What it was.
        at_ms: Its arrival, wall clock.
        heard_at: Its arrival, listening time.
        epoch: Of its sequence, or None.
        number: Of its sequence, or None.
    """

    node_id: str
    sent_ms: int
    digest: bytes
    result: Literal["recorded", "history"]
    at_ms: int
    heard_at: float
    epoch: int | None
    number: int | None


class Life(msgspec.Struct, frozen=True, gc=False):
    """One live heartbeat.

    Attributes:
        node_id: Whose.
        gap: Listening time since the node's last one, if it was live.
        skew_ms: The node's clock minus the receiver's.
    """

    node_id: str
    gap: float | None
    skew_ms: int


class Plan:
    """What one commit stores and then changes in memory.

    Attributes:
        moment: When it was made; the clock that is stored.
        states: New states by node; None: forgotten.
        keys: The arrivals to store.
        outcomes: One for each arrival, in their order.
        events: What happened to which node: its new state, or the last one of a forgotten node.
        lives: The live heartbeats.
        updated: New states of nodes to which nothing else happened than that they were heard.
        due: The nodes that were taken off the wheel for it.
        only_late: The nodes of which nothing but this has changed: they are late.
        newest: The greatest stored time of each node that was looked up or has arrived in it.
        scaled: The interval that keeps the fleet at its rate, seconds; 0: none does.
        more: Whether more nodes have come due than one plan looks at.
    """

    def __init__(self, moment: Moment) -> None:
        self.moment = moment
        self.states: dict[str, NodeState | None] = {}
        self.keys: dict[Key, KeyRow] = {}
        self.outcomes: list[Outcome] = []
        self.events: list[tuple[Event, NodeState]] = []
        self.lives: list[Life] = []
        self.updated: list[NodeState] = []
        self.due: list[str] = []
        self.only_late: set[str] = set()
        self.newest: dict[str, int] = {}
        self.scaled = 0
        self.more = False

    @property
    def changed(self) -> list[NodeState]:
        """The states to store. That a node is late alone is not stored: it follows from the time."""
        return [
            state
            for node_id, state in self.states.items()
            if state is not None and node_id not in self.only_late
        ]

    @property
    def forgotten(self) -> list[str]:
        """The nodes whose rows are to be deleted."""
        return [node_id for node_id, state in self.states.items() if state is None]

    @property
    def durable(self) -> bool:
        """Whether there is anything to store but the clock."""
        return bool(self.keys or self.changed or self.forgotten)

    def withdraw(self, nodes: Collection[str]) -> None:
        """Take back what is planned of some nodes, but for the outcomes and `due`."""
        for node_id in nodes:
            self.states.pop(node_id, None)
            self.only_late.discard(node_id)
        self.keys = {key: row for key, row in self.keys.items() if key[0] not in nodes}
        self.events = [item for item in self.events if item[1].node_id not in nodes]
        self.lives = [life for life in self.lives if life.node_id not in nodes]
        self.updated = [state for state in self.updated if state.node_id not in nodes]


class Registry:
    """Every known node, and when to look at it.

    Args:
        rules: The configuration's.
        listening: The listening clock.
        states: What was stored.
    """

    def __init__(self, rules: Rules, listening: Listening, states: Iterable[NodeState] = ()) -> None:
        self.rules = rules
        self.listening = listening
        moment = listening.read()
        self._wheel = Wheel(moment.seconds)
        self.nodes: dict[str, NodeState] = {}
        for state in states:
            self.nodes[state.node_id] = state
            self._place(state, moment)
        self._brake = Brake(self.nodes.values(), moment)
        self.index = Index(self.nodes)

    @property
    def held(self) -> Held:
        """What the brake on mass expiry holds."""
        at = self.listening.read()
        self._brake.follow(at)
        return self._brake.held(at)

    def needs_lookup(self, arrival: Arrival) -> bool:
        """Whether the arrival's key may be stored: it is not newer than all of the node's."""
        state = self.nodes.get(arrival.node_id)
        return state is None or arrival.sent_ms <= state.newest_ms

    def plan(
        self, arrivals: Iterable[tuple[Arrival, Moment]], stored: Stored, *, heard: Moment | None = None
    ) -> Plan:
        """Decide on arrivals, in their order, and then on at most `DUE_LIMIT` nodes whose time has come.

        Args:
            arrivals: What arrived, and when.
            stored: What the store says of those arrivals for which `needs_lookup` says so.
            heard: Where more has arrived since: when the first of that did. No node is judged by a later
                time, since what waits may be its heartbeat.
        """
        plan = self.plan_arrivals(arrivals, stored)
        self._plan_due(plan, plan.moment if heard is None else heard)
        return plan

    def plan_due(self, *, heard: Moment | None = None) -> Plan:
        """Decide on at most `DUE_LIMIT` nodes whose time has come; `heard` as for `plan`."""
        return self.plan((), _NOTHING, heard=heard)

    def plan_arrivals(self, arrivals: Iterable[tuple[Arrival, Moment]], stored: Stored) -> Plan:
        """Decide on arrivals alone; see `plan`."""
        plan = Plan(self.listening.read())
        self._brake.follow(plan.moment)
        plan.newest.update(stored.newest)
        plan.scaled = scaled_interval(self._brake.live, self.rules)
        for arrival, at in arrivals:
            self._judge(plan, arrival, at, stored.digests)
        return plan

    def _plan_due(self, plan: Plan, until: Moment) -> None:
        taken = self._wheel.take(until.seconds, DUE_LIMIT)
        plan.more = len(taken) == DUE_LIMIT
        # All that come due in one plan are judged alike: by what has arrived, not by each other's end.
        arrived = plan.states.copy()
        holds = cache(lambda: self._brake.holds(plan.moment, self._changes(arrived)))
        for bucket, node_id in taken:
            self._look_at(plan, bucket, node_id, until, holds)

    def apply(self, plan: Plan) -> None:
        """Make a plan that has been stored the present."""
        for node_id, state in plan.states.items():
            self._put(node_id, self.nodes.get(node_id), state, plan.moment)

    def take(self, node_id: str, state: NodeState | None, moment: Moment) -> None:
        """Make a state the present that was decided elsewhere, or in a plan that is not applied as a whole.

        Args:
            node_id: The node.
            state: Its state; its place on the wheel is set here. None: it is forgotten.
            moment: A recent one, of no earlier interruption than any that was told.
        """
        before = self.nodes.get(node_id)
        if state is not None:
            state.bucket = -1 if before is None else before.bucket
        self._brake.follow(moment)
        self._put(node_id, before, state, moment)

    def abandon(self, plan: Plan, nodes: Collection[str] | None = None) -> None:
        """Take back a plan that could not be stored; what had come due is looked at again.

        Args:
            plan: The plan.
            nodes: Of which nodes; None: of all.
        """
        for node_id in plan.due if nodes is None else [one for one in plan.due if one in nodes]:
            state = self.nodes.get(node_id)
            if state is not None:
                state.bucket = self._wheel.bucket(0.0)
                self._wheel.place(node_id, state.bucket)

    def turn(self, patience: float) -> None:
        """Let the wheel turn where somebody else decides on what comes due.

        Args:
            patience: Seconds after which a node that is due is looked at again.
        """
        at = self.listening.read()
        least = self._wheel.bucket(at.seconds + patience)
        for bucket, node_id in self._wheel.take(at.seconds, DUE_LIMIT):
            state = self.nodes.get(node_id)
            if state is not None and state.bucket == bucket:
                due = self._wheel.bucket(due_at(state, at.interruption, self.rules))
                state.bucket = max(least, due)
                self._wheel.place(node_id, state.bucket)

    def _put(self, node_id: str, before: NodeState | None, state: NodeState | None, moment: Moment) -> None:
        self._brake.move(before, state)
        if before is None or state is None or _is_regrouped(before, state):
            self.index.move(before, state)
        if state is None:
            self.nodes.pop(node_id, None)
        else:
            self.nodes[node_id] = state
            self._place(state, moment)

    def _judge(self, plan: Plan, arrival: Arrival, at: Moment, digests: Mapping[Key, bytes]) -> None:
        node_id, sent_ms = arrival.node_id, arrival.sent_ms
        key = (node_id, sent_ms)
        state = plan.states[node_id] if node_id in plan.states else self.nodes.get(node_id)
        row = plan.keys.get(key)
        digest = digests.get(key) if row is None else row.digest
        judgement = judge(state, arrival, at, digest, self.rules, scaled=plan.scaled)
        outcome, new = judgement.outcome, judgement.state
        plan.outcomes.append(outcome)
        kind = outcome.kind
        if kind not in ("recorded", "history"):
            return
        epoch, number = arrival.sequence or (None, None)
        plan.keys[key] = KeyRow(node_id, sent_ms, arrival.digest, kind, at.at_ms, at.seconds, epoch, number)
        plan.newest[node_id] = newest = max(sent_ms, plan.newest.get(node_id, 0))
        if new is None:
            return
        # A replay may have come before the first live heartbeat, and its key must still be looked up.
        new.newest_ms = max(newest, new.newest_ms)
        plan.states[node_id] = new
        if kind == "recorded":
            plan.lives.append(Life(node_id, judgement.gap, new.skew_ms))
        if judgement.event is not None:
            plan.events.append((judgement.event, new))
        elif kind == "recorded":
            plan.updated.append(new)

    def _changes(
        self, states: Mapping[str, NodeState | None]
    ) -> list[tuple[NodeState | None, NodeState | None]]:
        return [(self.nodes.get(node_id), state) for node_id, state in states.items()]

    def _look_at(
        self, plan: Plan, bucket: int, node_id: str, until: Moment, holds: Callable[[], bool]
    ) -> None:
        state = plan.states.get(node_id) or self.nodes.get(node_id)
        if state is None or state.bucket != bucket:
            return
        plan.due.append(node_id)
        state.bucket = -1
        change = advance(state, until, self.rules, holds)
        if change is None:
            self._place(state, until)
            return
        new, event = change
        if event == "late" and node_id not in plan.states:
            plan.only_late.add(node_id)
        plan.states[node_id] = new
        plan.events.append((event, new or state))

    def _place(self, state: NodeState, moment: Moment) -> None:
        due = due_at(state, moment.interruption, self.rules)
        if self._wheel.is_early(state.bucket, due):
            return
        bucket = self._wheel.bucket(due)
        if state.bucket < 0 or bucket < state.bucket:
            state.bucket = bucket
            self._wheel.place(state.node_id, bucket)


def _is_regrouped(before: NodeState, after: NodeState) -> bool:
    return before.state != after.state or before.slots != after.slots or before.tags != after.tags
