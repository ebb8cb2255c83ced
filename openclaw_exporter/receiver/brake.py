"""The brake on mass expiry: where most of a fleet falls silent at once, the fault is rarely the fleet's.

Of at least `FEWEST` live nodes, where `SHARE_PERCENT` or more would expire within one interval, nodes become
`suspect` at their deadline instead of expiring. A node would expire within one interval where it has been
silent for longer than an interval already: the interval is its own, for in a fleet whose intervals are
shorter than the default everybody would always expire within a default one, and in a fleet whose intervals
are longer half of those that fell silent would not.

How many are silent is known at any time, in constant time for each heartbeat: nodes are counted by interval
and by the quarter of a second in which they were last heard.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Final, NamedTuple

from openclaw_exporter.logs import Episodes
from openclaw_exporter.receiver.liveness import LIVE, grace

if TYPE_CHECKING:
    from collections.abc import Iterable

    from openclaw_exporter.receiver.listening import Moment
    from openclaw_exporter.receiver.liveness import NodeState

_logger = logging.getLogger(__name__)

FEWEST: Final = 10
SHARE_PERCENT: Final = 55

GRANULARITY: Final = 0.25
"""Seconds of listening time that are told apart; nobody counts as silent early."""


class Held(NamedTuple):
    """What the brake holds now.

    Attributes:
        suspects: Nodes whose expiry is held back.
        silent: Live nodes that have been silent for longer than their interval, suspects included.
        live: Live nodes.
    """

    suspects: int
    silent: int
    live: int


class Alarm:
    """Says in the log when the brake begins to hold and when it holds nobody any more."""

    def __init__(self) -> None:
        self._episodes = Episodes(_logger)

    def note(self, held: Held) -> bool:
        """Take in what the brake holds; return whether it holds anybody."""
        if not held.suspects:
            self._episodes.end("brake", "no expiry is held back any more")
            return False
        text = (
            f"the expiry of nodes is held back: {held.silent} of {held.live} live nodes are silent at once; "
            "look for a fault in the network or in front of the receiver. Each that stays silent expires 4 "
            "of its intervals after its deadline"
        )
        self._episodes.begin("brake", "mass expiry", text)
        return True


def must_hold(live: int, silent: int) -> bool:
    """Whether so many silent ones of so many live nodes are a mass expiry."""
    return live >= FEWEST and silent * 100 >= live * SHARE_PERCENT


class _Heard:
    """Nodes of one interval by when they were last heard, and how many of them before a moment."""

    __slots__ = ("_by_bucket", "_cursor", "before")

    def __init__(self) -> None:
        self._by_bucket: dict[int, int] = {}
        self._cursor = -1
        self.before = 0

    def add(self, bucket: int, nodes: int) -> None:
        count = self._by_bucket.get(bucket, 0) + nodes
        if count:
            self._by_bucket[bucket] = count
        else:
            del self._by_bucket[bucket]
        if bucket < self._cursor:
            self.before += nodes

    def shift(self, before: int, after: int) -> None:
        """Move a node to another bucket."""
        if before == after:
            return
        counts = self._by_bucket
        left = counts[before] - 1
        if left:
            counts[before] = left
        else:
            del counts[before]
        counts[after] = counts.get(after, 0) + 1
        # A node that is heard leaves those before the moment, as a rule, and hardly ever joins them.
        self.before += (after < self._cursor) - (before < self._cursor)

    def advance(self, cursor: int) -> int:
        """Move the moment; return how many were last heard before it."""
        passed = cursor - self._cursor
        if 0 <= passed <= len(self._by_bucket):
            self.before += sum(self._by_bucket.get(bucket, 0) for bucket in range(self._cursor, cursor))
        else:
            self.before = sum(count for bucket, count in self._by_bucket.items() if bucket < cursor)
        self._cursor = cursor
        return self.before

    def take(self, other: _Heard) -> None:
        """Take over another's nodes."""
        for bucket, count in other._by_bucket.items():
            self.add(bucket, count)


class Brake:
    """Counts live nodes and those of them that are silent.

    Args:
        states: The nodes that there are.
        at: The present moment.
    """

    def __init__(self, states: Iterable[NodeState], at: Moment) -> None:
        self._interruption = at.interruption
        # A node heard before the last interruption has a longer deadline: those are counted apart.
        self._since: dict[int, _Heard] = {}
        self._earlier: dict[int, _Heard] = {}
        self._live = 0
        self._suspects = 0
        for state in states:
            self._add(state, 1)

    @property
    def live(self) -> int:
        """Live nodes."""
        return self._live

    def follow(self, at: Moment) -> None:
        """Note the moment of what comes next; no state that is told may be of a later interruption."""
        if at.interruption != self._interruption:
            self._interruption = at.interruption
            for interval, heard in self._since.items():
                self._earlier.setdefault(interval, _Heard()).take(heard)
            self._since = {}

    def move(self, before: NodeState | None, after: NodeState | None) -> None:
        """Note that one state of a node takes the place of another."""
        if (
            before is not None
            and after is not None
            and before.state == after.state == "up"
            and before.interval == after.interval
            and before.interruption == after.interruption == self._interruption
        ):
            # To the brake it differs in nothing but when it was last heard.
            self._since[after.interval].shift(_bucket(before), _bucket(after))
            return
        if before is not None:
            self._add(before, -1)
        if after is not None:
            self._add(after, 1)

    def held(self, at: Moment) -> Held:
        """Return what the brake holds."""
        return Held(self._suspects, self._silent(at), self._live)

    def holds(self, at: Moment, changes: Iterable[tuple[NodeState | None, NodeState | None]] = ()) -> bool:
        """Whether a node whose deadline has come becomes suspect.

        Args:
            at: The present moment.
            changes: Pairs as for `move` that are decided and not yet noted.
        """
        live, silent = self._live, self._silent(at)
        for before, after in changes:
            for state, one in ((before, -1), (after, 1)):
                if state is not None and state.state in LIVE:
                    live += one
                    silent += one * self._is_silent(state, at)
        return must_hold(live, silent)

    def _add(self, state: NodeState, nodes: int) -> None:
        if state.state not in LIVE:
            return
        self._live += nodes
        if state.state == "suspect":
            self._suspects += nodes
        group = self._since if state.interruption == self._interruption else self._earlier
        heard = group.get(state.interval)
        if heard is None:
            heard = group[state.interval] = _Heard()
        heard.add(_bucket(state), nodes)

    def _silent(self, at: Moment) -> int:
        silent = 0
        for interruption, group in ((at.interruption, self._since), (None, self._earlier)):
            intervals = grace(is_interrupted=interruption is None) - 1
            for interval, heard in group.items():
                silent += heard.advance(_cursor(at, intervals * interval))
        return silent

    def _is_silent(self, state: NodeState, at: Moment) -> bool:
        intervals = grace(is_interrupted=state.interruption != at.interruption) - 1
        return _bucket(state) < _cursor(at, intervals * state.interval)


def _bucket(state: NodeState) -> int:
    return math.floor(state.heard_at / GRANULARITY)


def _cursor(at: Moment, silence: int) -> int:
    """Return the bucket before which a node was last heard that has been silent for longer than that."""
    return math.floor((at.seconds - silence) / GRANULARITY)
