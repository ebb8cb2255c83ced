"""The rules of order, idempotency and life, as pure functions of a node's state and what arrived.

Nothing here does I/O, reads a clock or keeps anything: a state is never changed, a new one takes its place.
Only the receiver's own listening time decides on life; a node's clock orders its heartbeats at most.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import msgspec

from openclaw_exporter.receiver.scaling import answered_interval
from openclaw_exporter.wire.headers import Sequence

if TYPE_CHECKING:
    from collections.abc import Callable

    from openclaw_exporter.receiver.listening import Moment

State = Literal["up", "late", "suspect", "expired", "draining", "offline"]
Event = Literal["registered", "late", "suspect", "expired", "returned", "draining", "offline", "forgotten"]
OutcomeKind = Literal[
    "recorded", "duplicate", "history", "key-conflict", "epoch-conflict", "rate-limited", "shedding"
]

STATES: Final[tuple[State, ...]] = ("up", "late", "suspect", "expired", "draining", "offline")
LIVE: Final = frozenset[State]({"up", "late", "suspect"})
LAPSED: Final = frozenset[State]({"expired", "offline"})

KEY_LIFE_SECONDS: Final = 3600.0
"""How long an idempotency key lives, in listening time: no step of a wall clock ends it early."""

_LATE_AFTER = 1.5
_LAPSE_AFTER = 2
_LAPSE_AFTER_INTERRUPTION = 3
_HELD_FOR = 4


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What the configuration says of intervals.

    Attributes:
        default_interval: Of a node that does not say its own, seconds.
        max_interval: The longest interval of a node, seconds.
        retention: How long an expired or offline node is remembered, seconds.
        target_rate: Heartbeats a second that answered intervals are scaled to keep; 0: none are scaled.
    """

    default_interval: int = 60
    max_interval: int = 120
    retention: float = 86_400.0
    target_rate: float = 0.0


class Arrival(msgspec.Struct, frozen=True, kw_only=True, gc=False, array_like=True):
    """A heartbeat that was let in.

    Attributes:
        node_id: The node.
        payload: The heartbeat's canonical encoding.
        digest: SHA-256 of the payload.
        tags: The heartbeat's tags.
        version: The heartbeat's version.
        slots: The heartbeat's available slots.
        sent_ms: The heartbeat's time by the node's clock, Unix milliseconds.
        sequence: The node's own order, where it gave one.
        interval: The interval that the node is configured with, seconds, within bounds; None: it did not say.
        replay: A buffered heartbeat, delivered late.
        draining: The node leaves on purpose.
    """

    node_id: str
    payload: bytes
    digest: bytes
    tags: tuple[str, ...]
    version: str
    slots: int
    sent_ms: int
    sequence: Sequence | None = None
    interval: int | None = None
    replay: bool = False
    draining: bool = False


class NodeState(msgspec.Struct, kw_only=True, gc=False, array_like=True):
    """What is known of one node. Never changed in place, but for what the wheel and the store keep in it.

    A store may keep it in array form: a field is only ever added at the end, and with a default.

    Attributes:
        node_id: The node.
        payload: Canonical encoding of the current heartbeat.
        tags: The current heartbeat's tags.
        version: The current heartbeat's version.
        slots: The current heartbeat's available slots.
        sent_ms: The current heartbeat's time by the node's clock.
        newest_ms: The greatest such time ever stored, of history too: a greater one is no duplicate.
        epoch: Of the newest live heartbeat with a sequence, else -1.
        number: As `epoch`.
        first_seen_ms: Arrival of the first live heartbeat, wall clock.
        last_seen_ms: Arrival of the last live heartbeat, wall clock; never goes back.
        heard_at: Arrival of the last live heartbeat, listening time.
        interruption: The number of the last interruption before that.
        interval: The effective interval, seconds.
        answered: The interval last answered, seconds.
        skew_ms: The node's clock minus the receiver's, at the last live heartbeat.
        state: What the node is.
        lapsed_at: When it expired or went offline, listening time.
        lapsed_ms: The same by the wall clock.
        bucket: Where the timing wheel keeps it, -1: nowhere. The wheel's own.
        trail: Where the store keeps the node's newest arrival, -1: nowhere. The store's own.
        stored: The batch in which the store keeps this state, 0: in none. The store's own.
    """

    node_id: str
    payload: bytes
    tags: tuple[str, ...]
    version: str
    slots: int
    sent_ms: int
    newest_ms: int
    epoch: int
    number: int
    first_seen_ms: int
    last_seen_ms: int
    heard_at: float
    interruption: int
    interval: int
    answered: int
    skew_ms: int
    state: State
    lapsed_at: float = 0.0
    lapsed_ms: int = 0
    bucket: int = -1
    trail: int = -1
    stored: int = 0


class Outcome(NamedTuple):
    """What became of an arrival.

    Attributes:
        kind: The result, the conflict, or, of an arrival that was turned away by another process, why.
        expires_ms: When the node expires if nothing more is heard, Unix milliseconds.
        interval: The interval to answer; of one that was turned away, when it may come back; seconds.
        epoch: The highest epoch heard of the node, where it gave any.
    """

    kind: OutcomeKind
    expires_ms: int
    interval: int
    epoch: int | None


class Judgement(msgspec.Struct, frozen=True, gc=False):
    """An outcome, and what has to be stored for it.

    Attributes:
        outcome: What to answer.
        state: The node's new state; None: nothing changes.
        event: What happened to the node.
        gap: Listening time since the last live heartbeat, for a live one of a node that was live.
    """

    outcome: Outcome
    state: NodeState | None = None
    event: Event | None = None
    gap: float | None = None


def judge(
    state: NodeState | None,
    arrival: Arrival,
    at: Moment,
    known: bytes | None,
    rules: Rules,
    *,
    scaled: int = 0,
) -> Judgement:
    """Decide what an arrival is and what it changes.

    Args:
        state: The node's state; None: not known.
        arrival: What arrived.
        at: When.
        known: The digest that is stored under the arrival's idempotency key; None: the key is new.
        rules: The configuration's.
        scaled: The interval that keeps the fleet at its rate, seconds; see `scaling.scaled_interval`.
    """
    if known is not None:
        kind: OutcomeKind = "duplicate" if known == arrival.digest else "key-conflict"
        return Judgement(_outcome(kind, state, arrival, at, rules))
    if arrival.replay:
        return _history(state, arrival, at, rules)
    if state is None:
        return _registered(arrival, at, rules, scaled)
    newer = arrival.sent_ms > state.sent_ms
    if arrival.sequence is not None:
        if arrival.sequence.epoch < state.epoch:
            return Judgement(_outcome("epoch-conflict", state, arrival, at, rules))
        newer = arrival.sequence > (state.epoch, state.number)
        if not newer:
            return _history(state, arrival, at, rules)
    return _live(state, arrival, at, rules, scaled, newer=newer)


def advance(
    state: NodeState, at: Moment, rules: Rules, holds: Callable[[], bool] = lambda: False
) -> tuple[NodeState | None, Event] | None:
    """Return what time alone has made of a node and the event; None as the state: forgotten.

    Args:
        state: The node's.
        at: The present moment.
        rules: The configuration's.
        holds: Whether the brake holds back an expiry; asked of a node whose deadline has come.

    Returns:
        None where nothing is due.
    """
    if state.state in LAPSED:
        return (None, "forgotten") if at.seconds >= state.lapsed_at + rules.retention else None
    if at.seconds >= ends_at(state, at.interruption):
        if state.state in ("up", "late") and holds():
            return msgspec.structs.replace(state, state="suspect"), "suspect"
        lapsed: Literal["offline", "expired"] = "offline" if state.state == "draining" else "expired"
        changes = {"state": lapsed, "lapsed_at": at.seconds, "lapsed_ms": at.at_ms}
        return msgspec.structs.replace(state, **changes), lapsed
    if state.state == "up" and at.seconds >= late_at(state):
        return msgspec.structs.replace(state, state="late"), "late"
    return None


def late_at(state: NodeState) -> float:
    """Return the listening time at which a node is late."""
    return state.heard_at + _LATE_AFTER * state.interval


def grace(*, is_interrupted: bool) -> int:
    """Return how many intervals a node may be silent until its deadline.

    Args:
        is_interrupted: Whether listening was interrupted since the node was last heard.
    """
    return _LAPSE_AFTER_INTERRUPTION if is_interrupted else _LAPSE_AFTER


def ends_at(state: NodeState, interruption: int) -> float:
    """Return the listening time at which a node expires or, draining, is offline.

    That is its deadline, and 4 intervals later for a suspect.

    Args:
        state: The node's.
        interruption: The number of the last interruption until now.
    """
    times = grace(is_interrupted=interruption != state.interruption)
    if state.state == "suspect":
        times += _HELD_FOR
    return state.heard_at + times * state.interval


def due_at(state: NodeState, interruption: int, rules: Rules) -> float:
    """Return the listening time at which `advance` has something to do, if nothing arrives."""
    if state.state in LAPSED:
        return state.lapsed_at + rules.retention
    if state.state == "up":
        return state.heard_at + _LATE_AFTER * state.interval
    return ends_at(state, interruption)


def expires_ms(state: NodeState, at: Moment) -> int:
    """Return when a node expires (or did), Unix milliseconds."""
    if state.state in LAPSED:
        return state.lapsed_ms
    return at.at_ms + round(max(0.0, ends_at(state, at.interruption) - at.seconds) * 1000)


def _outcome(
    kind: OutcomeKind, state: NodeState | None, arrival: Arrival, at: Moment, rules: Rules
) -> Outcome:
    if state is None:
        return Outcome(kind, at.at_ms, arrival.interval or rules.default_interval, None)
    epoch = state.epoch if state.epoch >= 0 else None
    return Outcome(kind, expires_ms(state, at), state.answered, epoch)


def _history(state: NodeState | None, arrival: Arrival, at: Moment, rules: Rules) -> Judgement:
    outcome = _outcome("history", state, arrival, at, rules)
    if state is None or arrival.sent_ms <= state.newest_ms:
        return Judgement(outcome)
    return Judgement(outcome, msgspec.structs.replace(state, newest_ms=arrival.sent_ms))


def _registered(arrival: Arrival, at: Moment, rules: Rules, scaled: int) -> Judgement:
    configured = arrival.interval or rules.default_interval
    interval = answered_interval(arrival.node_id, configured, scaled, rules)
    epoch, number = arrival.sequence or (-1, -1)
    heard = NodeState(
        node_id=arrival.node_id,
        payload=arrival.payload,
        tags=arrival.tags,
        version=arrival.version,
        slots=arrival.slots,
        sent_ms=arrival.sent_ms,
        newest_ms=arrival.sent_ms,
        epoch=epoch,
        number=number,
        first_seen_ms=at.at_ms,
        last_seen_ms=at.at_ms,
        heard_at=at.seconds,
        interruption=at.interruption,
        interval=interval,
        answered=interval,
        skew_ms=arrival.sent_ms - at.at_ms,
        state="draining" if arrival.draining else "up",
    )
    return Judgement(_recorded(heard, at), heard, "registered")


def _live(
    state: NodeState, arrival: Arrival, at: Moment, rules: Rules, scaled: int, *, newer: bool
) -> Judgement:
    gap = at.seconds - state.heard_at
    configured = arrival.interval or rules.default_interval
    interval = answered = (
        answered_interval(arrival.node_id, configured, scaled, rules) if scaled else configured
    )
    if arrival.interval is None:
        interval = max(answered, min(math.ceil(gap), rules.max_interval))
    # An older heartbeat without a sequence proves life; what the node said last still stands.
    draining = arrival.draining if newer else state.state in ("draining", "offline")
    event: Event | None = None
    if draining:
        event = "draining" if state.state != "draining" else None
    elif state.state in LAPSED:
        event = "returned"
    content = arrival if newer else state
    epoch, number = arrival.sequence or (state.epoch, state.number)
    heard = NodeState(
        # Always the same object: a name is long, and there are many.
        node_id=state.node_id,
        payload=content.payload,
        tags=content.tags if content.tags != state.tags else state.tags,
        version=content.version,
        slots=content.slots,
        sent_ms=content.sent_ms,
        newest_ms=max(arrival.sent_ms, state.newest_ms),
        epoch=epoch,
        number=number,
        first_seen_ms=state.first_seen_ms,
        last_seen_ms=max(at.at_ms, state.last_seen_ms),
        heard_at=at.seconds,
        interruption=at.interruption,
        interval=interval,
        answered=answered,
        skew_ms=arrival.sent_ms - at.at_ms,
        state="draining" if draining else "up",
        bucket=state.bucket,
        trail=state.trail,
    )
    return Judgement(_recorded(heard, at), heard, event, None if state.state in LAPSED else gap)


def _recorded(heard: NodeState, at: Moment) -> Outcome:
    # What `expires_ms` says of a node that is heard at this moment.
    expires = at.at_ms + 1000 * _LAPSE_AFTER * heard.interval
    return Outcome("recorded", expires, heard.answered, heard.epoch if heard.epoch >= 0 else None)
