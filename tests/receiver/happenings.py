"""Random histories of a fleet and its receivers: what the model test puts a registry through.

A history is a list of happenings that hold everything they need, so that any part of one can be lived through
by itself. All times are quarters of a second, which the wheel's buckets are too, so that registry and
reference agree to the moment.
"""

from __future__ import annotations

import random
from bisect import bisect
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from receiver.virtual import arrival, node_id

from openclaw_exporter.receiver.liveness import Arrival
from openclaw_exporter.wire.headers import Sequence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HOUR = 3600.0
DAY_MS = 86_400_000


class Arrive(NamedTuple):
    """Heartbeats reach one receiver within one commit, the last of them `after` seconds behind the rest."""

    receiver: int
    arrivals: tuple[Arrival, ...]
    after: float = 0.0


class Race(NamedTuple):
    """Heartbeats of one node reach several receivers at once: one tuple for each of the first receivers."""

    batches: tuple[tuple[Arrival, ...], ...]


class Lose(NamedTuple):
    """As `Arrive`, but the commit fails, or its success is never heard of; all are sent again afterwards."""

    receiver: int
    arrivals: tuple[Arrival, ...]
    fate: Literal["not stored", "stored", "stored and killed"]
    away: float


class Pass(NamedTuple):
    """Time passes."""

    seconds: float


class Stall(NamedTuple):
    """A receiver is stopped, or its loop blocked, for more than 5 seconds."""

    receiver: int
    seconds: float


class Shed(NamedTuple):
    """A receiver turns somebody away."""

    receiver: int


class Kill(NamedTuple):
    """A receiver is killed, and started again later."""

    receiver: int
    down: float


class Away(NamedTuple):
    """The store cannot be reached; heartbeats that come meanwhile are refused, and sent again afterwards."""

    seconds: float
    receiver: int
    arrivals: tuple[Arrival, ...]


class PartAway(NamedTuple):
    """One part of a shared store cannot be reached; its nodes are refused meanwhile, and others are not."""

    part: int
    seconds: float
    receiver: int
    arrivals: tuple[Arrival, ...]


class StepClock(NamedTuple):
    """The receivers' wall clock is set."""

    seconds: int


Happening = Arrive | Race | Lose | Pass | Stall | Shed | Kill | Away | PartAway | StepClock


def steps(happening: Happening) -> int:
    """Count each heartbeat as a step, and whatever else happens as one."""
    if isinstance(happening, Race):
        return sum(map(len, happening.batches))
    return max(1, len(getattr(happening, "arrivals", ())))


@dataclass
class _Node:
    """One node as it sees itself."""

    node_id: str
    interval: int | None
    is_ordered: bool
    beats_every: float
    due: float
    clock_ms: int
    epoch: int = 1_000
    number: int = 0
    sent_ms: int = 0
    silent_until: float = 0.0
    leaves_until: float = 0.0


@dataclass
class Fleet:
    """Some nodes that beat, and everything that can go wrong with them.

    Args:
        seed: Decides on everything.
        size: How many nodes.
        intervals: What they are configured with, seconds; None: they do not say, and beat at `default`.
        default: The receiver's default interval, seconds.
        pace: The chance that time passes by more than a second at once.
        receivers: How many receivers there are.
        parts: Into how many parts the store can fall.
    """

    seed: int
    size: int
    intervals: tuple[int | None, ...]
    default: int
    pace: float = 0.4
    receivers: int = 1
    parts: int = 1
    now: float = 0.0
    _sent: deque[tuple[float, Arrival]] = field(default_factory=deque)
    _held_back: list[Arrival] = field(default_factory=list)
    _marks: int = 0

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.nodes = [self._node(number) for number in range(self.size)]
        #: What happens how often, beside the passing of time.
        self._chances: list[tuple[float, Callable[[], Iterator[Happening]]]] = [
            (10.0, self._send_again),
            (3.0, self._send_other_content),
            (4.0, self._deliver_what_was_held_back),
            (5.0, self._replay),
            (3.0, self._send_any_sequence),
            (1.0, self._begin_an_epoch),
            (2.0, self._set_a_nodes_clock),
            (1.0, self._set_the_receivers_clock),
            (1.5, self._leave),
            (1.5, self._fall_silent),
            (0.15, self._most_fall_silent),
            (1.0, self._be_a_stranger),
            (2.0, self._press),
            (0.3, self._stall),
            (0.3, self._shed),
            (0.4, self._kill),
            (0.3, self._go_away),
            (0.6, self._lose),
        ]
        if self.receivers > 1:
            self._chances.append((5.0, self._race))
        if self.parts > 1:
            self._chances.append((0.5, self._go_away_in_part))

    def happenings(self, count: int) -> Iterator[Happening]:
        """Yield at least so many steps."""
        weights = [weight for weight, _ in self._chances]
        makers = [maker for _, maker in self._chances]
        done = 0
        while done < count:
            maker = self._let_time_pass
            if self.dice.random() < 0.35:
                maker = self.dice.choices(makers, weights)[0]
            for happening in maker():
                done += steps(happening)
                yield happening

    def _node(self, number: int) -> _Node:
        interval = self.dice.choice(self.intervals)
        every = interval or self.default
        return _Node(
            node_id=node_id(number + 1),
            interval=interval,
            is_ordered=self.dice.random() < 0.7,
            beats_every=every,
            due=self.dice.randrange(4 * every) / 4,
            clock_ms=1_750_000_000_000 + self.dice.randint(-2000, 2000),
        )

    def _beat(self, node: _Node, *, replay: bool = False, content: str = "") -> Arrival:
        """Return the node's next heartbeat."""
        node.sent_ms = max(node.clock_ms + round(self.now * 1000), node.sent_ms - 5000) + 1
        sequence = Sequence(node.epoch, node.number) if node.is_ordered else None
        node.number += 1
        beat = arrival(
            node.node_id,
            node.sent_ms,
            content=content or str(self.dice.random())[:5],
            interval=node.interval,
            sequence=sequence,
            replay=replay,
            draining=node.leaves_until > self.now,
        )
        self._sent.append((self.now, beat))
        return beat

    def _receiver(self) -> int:
        return self.dice.randrange(self.receivers)

    def _arrive(self, *arrivals: Arrival) -> Iterator[Happening]:
        if arrivals:
            yield Arrive(self._receiver(), arrivals)

    def _old(self) -> Arrival | None:
        """Return something that was sent: lately, any time in the last two hours, or about an hour ago."""
        while self._sent and self._sent[0][0] < self.now - 2 * HOUR:
            self._sent.popleft()
        if not self._sent:
            return None
        choice = self.dice.random()
        if choice < 0.5:
            return self._sent[-self.dice.randint(1, min(40, len(self._sent)))][1]
        if choice < 0.7:
            return self.dice.choice(self._sent)[1]
        moment = self.now - HOUR + self.dice.uniform(-8, 8)
        return self._sent[min(bisect(self._sent, moment, key=lambda one: one[0]), len(self._sent) - 1)][1]

    def _let_time_pass(self) -> Iterator[Happening]:
        quarters = (5, 20) if self.dice.random() < self.pace else (1, 4)
        seconds = self.dice.randint(*quarters) / 4
        self.now += seconds
        yield Pass(seconds)
        batches: list[list[Arrival]] = [[]]
        due = [node for node in self.nodes if node.due <= self.now]
        self.dice.shuffle(due)
        for node in due:
            node.due = self.now + node.beats_every - (self.dice.random() < 0.1) / 4
            if node.silent_until > self.now:
                continue
            beat = self._beat(node)
            fate = self.dice.random()
            if fate < 0.03:
                self._held_back.append(beat)
            elif fate > 0.05:
                batches[-1] += [beat, beat] if fate < 0.08 else [beat]
                if fate > 0.98:
                    batches[-1].append(self._other(beat))
            if self.dice.random() < 0.15:
                batches.append([])
        for batch in batches:
            yield from self._arrive(*batch)

    def _other(self, beat: Arrival) -> Arrival:
        return arrival(
            beat.node_id,
            beat.sent_ms,
            content=f"other {self.dice.random()}",
            interval=beat.interval,
            sequence=beat.sequence,
            replay=beat.replay,
        )

    def _send_again(self) -> Iterator[Happening]:
        found = (self._old() for _ in range(self.dice.randint(1, 3)))
        yield from self._arrive(*(beat for beat in found if beat is not None))

    def _send_other_content(self) -> Iterator[Happening]:
        beat = self._old()
        if beat is not None:
            yield from self._arrive(self._other(beat))

    def _deliver_what_was_held_back(self) -> Iterator[Happening]:
        self.dice.shuffle(self._held_back)
        count = self.dice.randint(1, 5)
        late, self._held_back = self._held_back[:count], self._held_back[count:]
        yield from self._arrive(*late)

    def _replay(self) -> Iterator[Happening]:
        """A node's buffer comes, old ones that arrived live already among it."""
        node = self.dice.choice(self.nodes)
        batch = [self._beat(node, replay=True) for _ in range(self.dice.randint(1, 4))]
        if self.dice.random() < 0.3 and (beat := self._old()) is not None:
            batch.append(
                arrival(
                    beat.node_id,
                    max(1, beat.sent_ms - self.dice.randint(0, 5)),
                    content="of a buffer",
                    sequence=beat.sequence,
                    replay=True,
                )
            )
        self.dice.shuffle(batch)
        yield from self._arrive(*batch)

    def _send_any_sequence(self) -> Iterator[Happening]:
        node = self.dice.choice(self.nodes)
        node.sent_ms += 1
        beat = arrival(
            node.node_id,
            node.sent_ms,
            content="any",
            interval=node.interval,
            sequence=Sequence(node.epoch + self.dice.randint(-2, 1), self.dice.randint(0, node.number + 1)),
            replay=self.dice.random() < 0.3,
        )
        self._sent.append((self.now, beat))
        yield from self._arrive(beat)

    def _begin_an_epoch(self) -> Iterator[Happening]:
        node = self.dice.choice(self.nodes)
        node.epoch += self.dice.choice((1, 1, 1, 2, 50))
        node.number = 0
        node.leaves_until = 0.0
        yield from self._arrive(self._beat(node))

    def _set_a_nodes_clock(self) -> Iterator[Happening]:
        node = self.dice.choice(self.nodes)
        node.clock_ms += self.dice.choice(
            (self.dice.randint(-DAY_MS, DAY_MS), self.dice.randint(-3000, 3000))
        )
        if self.dice.random() < 0.5:
            # Its agent has no memory of what it sent: times come again.
            node.sent_ms = 0
        yield from ()

    def _set_the_receivers_clock(self) -> Iterator[Happening]:
        yield StepClock(self.dice.randint(-3600, 3600))

    def _leave(self) -> Iterator[Happening]:
        node = self.dice.choice(self.nodes)
        node.leaves_until = self.now + self.dice.choice((1, 5, 4 * node.beats_every))
        beat = self._beat(node)
        if self.dice.random() < 0.7:
            node.silent_until = self.now + self.dice.uniform(0, 4) * node.beats_every
        yield from self._arrive(beat)

    def _fall_silent(self) -> Iterator[Happening]:
        node = self.dice.choice(self.nodes)
        node.silent_until = self.now + self.dice.choice((1.5, 2.5, 4, 9)) * node.beats_every
        yield from ()

    def _most_fall_silent(self) -> Iterator[Happening]:
        longest = max(node.beats_every for node in self.nodes)
        until = self.now + self.dice.choice((2, 3, 5, 9)) * longest
        for node in self.dice.sample(self.nodes, round(self.dice.uniform(0.4, 1) * self.size)):
            node.silent_until = until
        yield from ()

    def _be_a_stranger(self) -> Iterator[Happening]:
        """A node that may not be known replays before it lives."""
        name = node_id(self.size + self.dice.randint(1, 3))
        # Its clock is no better than others'.
        sent_ms = 1_750_000_000_000 + round(self.now * 1000) + self.dice.randint(-9000, 9000)
        beat = arrival(name, sent_ms, replay=self.dice.random() < 0.7)
        self._sent.append((self.now, beat))
        yield from self._arrive(beat)
        if beat.replay and self.dice.random() < 0.4:
            # It lives, by a clock that was set back, and sends once more what is known.
            yield from self._arrive(arrival(name, sent_ms - self.dice.randint(1, 5000), content="live"))
            yield from self._arrive(beat)

    def _press(self) -> Iterator[Happening]:
        """Several heartbeats of one node within a commit, the last of them a little later."""
        node = self.dice.choice(self.nodes)
        batch = [self._beat(node) for _ in range(self.dice.randint(2, 4))]
        if self.dice.random() < 0.3:
            self.dice.shuffle(batch)
        after = self.dice.randint(0, 8) / 4
        self.now += after
        yield Arrive(self._receiver(), tuple(batch), after)

    def _race(self) -> Iterator[Happening]:
        """What a proxy sends again, a node with two processes, or a buffer beside the newest heartbeat."""
        node = self.dice.choice(self.nodes)
        replay = self.dice.random() < 0.4
        some = [self._beat(node, replay=replay)]
        some.append(self.dice.choice((some[0], self._other(some[0]), self._beat(node, replay=replay))))
        if self.dice.random() < 0.4:
            some.append(self._old() or some[0])
        some = [beat for beat in some if beat.node_id == node.node_id]
        self.dice.shuffle(some)
        batches: list[list[Arrival]] = [[] for _ in range(self.receivers)]
        for index, beat in enumerate(some):
            batches[index % self.receivers].append(beat)
        yield Race(tuple(map(tuple, batches)))

    def _stall(self) -> Iterator[Happening]:
        seconds = self.dice.randint(21, 400) / 4
        self.now += seconds
        yield Stall(self._receiver(), seconds)

    def _shed(self) -> Iterator[Happening]:
        self.now += 1
        yield Shed(self._receiver())

    def _kill(self) -> Iterator[Happening]:
        down = self.dice.randint(1, 160) / 4
        self.now += down
        yield Kill(self._receiver(), down)

    def _go_away(self) -> Iterator[Happening]:
        seconds = self.dice.choice((1.0, 3.0, 10.0, 60.0))
        batch = tuple(self._beat(node) for node in self.dice.sample(self.nodes, min(3, self.size)))
        self.now += seconds
        yield Away(seconds, self._receiver(), batch)

    def _go_away_in_part(self) -> Iterator[Happening]:
        seconds = self.dice.choice((2.0, 6.0, 30.0))
        batch = tuple(self._beat(node) for node in self.dice.sample(self.nodes, min(6, self.size)))
        self.now += seconds
        yield PartAway(self.dice.randrange(self.parts), seconds, self._receiver(), batch)

    def _lose(self) -> Iterator[Happening]:
        batch = [self._beat(node) for node in self.dice.sample(self.nodes, self.dice.randint(1, 2))]
        self._marks += 1
        # Stored whatever the node is, and only once: whether it was tells whether the commit was.
        batch.append(arrival(batch[0].node_id, self._marks, content="mark", replay=True))
        fate = self.dice.choice(("not stored", "stored", "stored and killed"))
        away = self.dice.choice((1.0, 4.0, 20.0))
        self.now += away
        yield Lose(self._receiver(), tuple(batch), fate, away)
