"""A registry and the reference live through one history; they must agree on everything at any time."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, NamedTuple

from receiver.happenings import Arrive, Away, Kill, Lose, PartAway, Pass, Race, Shed, Stall, StepClock
from receiver.reference import LAPSED, Reference, When

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from receiver.happenings import Happening
    from receiver.reference import ReferenceNode, Reply
    from receiver.subjects import Subject

    from openclaw_exporter.receiver.liveness import Arrival, NodeState, Outcome, Rules

Kept = tuple[int, "Sequence[Arrival]", When, str]
"""Who stored heartbeats, which, when, and what became of who did."""

HISTORY_EVERY = 40
REACHED_WITHIN = 30
"""Seconds of virtual time after which a store that is back must be in use again."""


class Failure(NamedTuple):
    """Where the two did not agree: after how many happenings, and in what."""

    index: int
    text: str


class Trial:
    """One registry and its reference.

    Args:
        subject: The registry, open.
        rules: Its configuration.
    """

    def __init__(self, subject: Subject, rules: Rules) -> None:
        self.subject = subject
        self.clock = subject.clock
        moment = subject.moment()
        self.reference = Reference(rules, moment.seconds, moment.interruption)
        self.last_seen: dict[str, int] = {}
        self.unlogged: list[tuple[str, str]] = []
        self.count = 0
        self._what: dict[type, Callable[..., Awaitable[None]]] = {
            Arrive: self.arrive,
            Race: self.race,
            Lose: self.lose,
            Pass: self.pass_,
            Stall: self.stall,
            Shed: self.shed,
            Kill: self.kill,
            Away: self.away,
            PartAway: self.part_away,
            StepClock: self.step_clock,
        }

    async def live(self, happening: Happening) -> None:
        """Let something happen and compare."""
        await self._what[type(happening)](*happening)
        await self.check()

    def now(self) -> When:
        return self.reference.now(self.clock.wall_ms())

    async def tick(self, *, without: int | None = None) -> None:
        """Let happen what is due."""
        if await self.subject.tick(without=without):
            self.reference.look(self.clock.wall_ms())

    async def arrive(self, receiver: int, arrivals: Sequence[Arrival], after: float = 0.0) -> None:
        first = self.now()
        outcomes = await self.subject.submit(receiver, arrivals, after)
        self.reference.listening += after
        last = self.now()
        # Where receivers share a registry a batch arrives when it is stored.
        moments = [*[last if self.subject.is_shared else first] * (len(arrivals) - 1), last]
        assert None not in outcomes, "a heartbeat was refused although the store is there"
        self.answered(arrivals, outcomes, moments)
        if after and self.subject.is_shared:
            # Its clock counts what happens between two ticks of a receiver.
            await self.tick()

    async def race(self, batches: Sequence[Sequence[Arrival]]) -> None:
        """Find the order in which the receivers can have done it: there has to be one."""
        when = self.now()
        outcomes = await asyncio.gather(
            *(self.subject.submit(number, batch, 0.0) for number, batch in enumerate(batches) if batch)
        )
        looks = await self.subject.tick()
        arrivals = [arrival for batch in batches for arrival in batch]
        answers = [outcome for some in outcomes for outcome in some]
        known = (await self.subject.known(0)).get(arrivals[0].node_id)
        allowed = [self.reference.intervals(arrival) for arrival in arrivals]
        for order in itertools.permutations(range(len(arrivals))):
            tried = self.reference.of_node(arrivals[0].node_id)
            replies = {}
            for place in order:
                outcome = answers[place]
                assert outcome is not None, "a heartbeat was refused although the store is there"
                replies[place] = tried.arrive(arrivals[place], when, outcome.interval)
            if all(replies[place].kind == answers[place].kind for place in order) and _is_same(tried, known):
                break
        else:
            message = f"no order explains {answers} of {arrivals} and {known}"
            raise AssertionError(message)
        for place in order:
            reply = self.reference.arrive(arrivals[place], when, answers[place].interval)
            assert reply.kind != "recorded" or reply.interval in allowed[place]
        if looks:
            self.reference.look(self.clock.wall_ms())

    def answered(
        self, arrivals: Sequence[Arrival], outcomes: Sequence[Outcome | None], moments: Sequence[When]
    ) -> None:
        """Compare what was answered to a batch."""
        allowed = [self.reference.intervals(arrival) for arrival in arrivals]
        for arrival, outcome, when, intervals in zip(arrivals, outcomes, moments, allowed, strict=True):
            assert outcome is not None
            before = self.reference.nodes.get(arrival.node_id)
            expected = self.reference.arrive(arrival, when, outcome.interval)
            self._compare_answer(arrival, outcome, expected)
            if expected.kind == "recorded":
                assert outcome.interval in intervals, f"{outcome.interval} is not in {intervals}"
            elif before is not None and before.state in LAPSED:
                after = self.reference.nodes[arrival.node_id].state
                assert after == before.state, (
                    f"{expected.kind} made {after} of a node that was {before.state}"
                )
        if not self.subject.is_shared:
            self.reference.look(moments[-1].wall_ms)

    def _compare_answer(self, arrival: Arrival, outcome: Outcome, expected: Reply) -> None:
        if self.subject.receivers > 1 and expected.kind != "recorded" and outcome.kind == expected.kind:
            # What else it says of the node may be what this receiver has heard of it so far.
            return
        assert tuple(outcome) == tuple(expected), _differ("the answer", arrival, outcome, expected)

    async def pass_(self, seconds: float) -> None:
        self.clock.pass_(seconds)
        self.reference.listening += seconds
        await self.tick()

    async def stall(self, receiver: int, seconds: float) -> None:
        await self.subject.align()
        await self._without(receiver, seconds)
        await self._interrupted(self._alone(seconds))

    async def shed(self, receiver: int) -> None:
        await self.subject.align()
        self.subject.shed(receiver)
        self.clock.pass_(1.0)
        await self._interrupted(self._alone(1.0))

    async def kill(self, receiver: int, down: float) -> None:
        await self.subject.align()
        await self.subject.kill(receiver)
        await self._without(receiver, down)
        await self._restart(receiver, self._alone(down))

    async def away(self, seconds: float, receiver: int, arrivals: Sequence[Arrival]) -> None:
        await self.subject.align()
        self.subject.take_away(after_a_commit=False)
        outcomes = await self.subject.submit(receiver, arrivals, 0.0)
        assert set(outcomes) == {None}, f"answered {outcomes} although the store was away"
        await self._pass_unheard(seconds)
        self.subject.bring_back()
        await self._reach(seconds)
        await self.arrive(receiver, arrivals)

    async def part_away(self, part: int, seconds: float, receiver: int, arrivals: Sequence[Arrival]) -> None:
        await self.subject.align()
        self.subject.take_part_away(part)
        # As soon as a receiver knows of it, it hears not all of its nodes any more.
        await self.subject.tick()
        outcomes = await self.subject.submit(receiver, arrivals, 0.0)
        is_there = [self.subject.part_of(arrival.node_id) != part for arrival in arrivals]
        assert [outcome is not None for outcome in outcomes] == is_there
        heard = [arrival for arrival, there in zip(arrivals, is_there, strict=True) if there]
        self.answered(heard, list(filter(None, outcomes)), [self.now()] * len(heard))
        await self._pass_unheard(seconds)
        self.subject.bring_back()
        await self._reach(seconds)
        refused = [arrival for arrival, there in zip(arrivals, is_there, strict=True) if not there]
        if refused:
            await self.arrive(receiver, refused)

    async def lose(self, receiver: int, arrivals: Sequence[Arrival], fate: str, away: float) -> None:
        await self.subject.align()
        when = self.now()
        self.subject.take_away(after_a_commit=fate != "not stored")
        outcomes = await self.subject.submit(receiver, arrivals, 0.0)
        assert None in outcomes, f"answered {outcomes} although the commit failed"
        answered = {outcome.kind for outcome in outcomes if outcome is not None}
        assert answered <= {"epoch-conflict", "key-conflict"}, f"answered {outcomes}, but stored nothing"
        kept = (receiver, arrivals, when, fate) if self.subject.is_stored(fate) else None
        if fate == "stored and killed":
            await self.subject.kill(receiver)
            if self.subject.receivers == 1:
                self.clock.pass_(away)
            else:
                await self._pass_unheard(away)
            self.subject.bring_back()
            await self._restart(receiver, away, kept)
            await self._reach(0.0)
        else:
            await self._pass_unheard(away)
            self.subject.bring_back()
            await self._reach(away, kept)
        await self.arrive(receiver, arrivals)

    async def _keep(self, receiver: int, arrivals: Sequence[Arrival], when: When, fate: str) -> None:
        """Take in what was stored although nobody was told so."""
        known = await self.subject.known(receiver)
        told = len(self.reference.events)
        allowed = [self.reference.intervals(arrival) for arrival in arrivals]
        for arrival, intervals in zip(arrivals, allowed, strict=True):
            state = known.get(arrival.node_id)
            reply = self.reference.arrive(arrival, when, None if state is None else state.answered)
            assert reply.kind != "recorded" or reply.interval in intervals
        if not self.subject.is_shared:
            self.reference.look(when.wall_ms)
        if fate == "stored and killed":
            # Those events were the killed receiver's to tell.
            self.unlogged += self.reference.events[told:]
            del self.reference.events[told:]

    async def step_clock(self, seconds: int) -> None:
        self.clock.step_wall(seconds)

    async def check(self) -> None:
        """Compare what is known, what was told, and now and then what was kept of one node."""
        self.count += 1
        seconds = self.subject.moment().seconds
        heard = self.reference.listening
        assert seconds == heard, f"listening time is {seconds}, not {heard}"
        for known in await self.subject.states():
            self._compare(known)
        told, self.subject.told[:] = list(self.subject.told), []
        expected, self.reference.events = self.reference.events, []
        assert _by_node(told) == _by_node(expected), f"told {told}, but what happened was {expected}"
        self.unlogged += expected
        logged = self.subject.logged()
        if logged is not None:
            assert _by_node(logged) == _by_node(self.unlogged), (
                f"logged {logged}, but what happened was {self.unlogged}"
            )
            self.unlogged = []
        if self.count % HISTORY_EVERY == 0 and self.reference.nodes:
            names = sorted(self.reference.nodes)
            await self._compare_history(names[self.count // HISTORY_EVERY % len(names)])
            if self.count % (100 * HISTORY_EVERY) == 0:
                self.reference.drop_old_keys()

    def _compare(self, known: dict[str, NodeState]) -> None:
        assert known.keys() == self.reference.nodes.keys(), (
            f"known beyond the reference: {known.keys() - self.reference.nodes.keys()}, "
            f"and not known: {self.reference.nodes.keys() - known.keys()}"
        )
        for name, node in self.reference.nodes.items():
            state = known[name]
            shown, expected = _shown(state), _expected(node)
            assert shown == expected, _differ("the state", name, shown, expected)
            assert node.last_seen >= self.last_seen.get(name, 0), f"last_seen of {name} went back"
        self.last_seen = {name: node.last_seen for name, node in self.reference.nodes.items()}

    async def _compare_history(self, name: str) -> None:
        rows = await self.subject.history(name)
        kept = {row.sent_ms: (row.digest, row.heard_at, row.result) for row in rows}
        assert len(kept) == len(rows), f"a key of {name} is there twice"
        expected = {sent_ms: tuple(key) for sent_ms, key in self.reference.history(name).items()}
        assert kept == expected, _differ("the history", name, kept, expected)

    def _alone(self, seconds: float) -> float:
        """Return for how long nobody hears while one receiver does not."""
        return seconds if self.subject.receivers == 1 else 0.0

    async def _without(self, receiver: int, seconds: float) -> None:
        """Let time pass in which one receiver hears nothing."""
        if self.subject.receivers == 1:
            self.clock.pass_(seconds)
            return
        while seconds:
            step = min(1.0, seconds)
            seconds -= step
            self.clock.pass_(step)
            self.reference.listening += step
            await self.tick(without=receiver)

    async def _pass_unheard(self, seconds: float) -> None:
        """Let time pass in which no receiver hears anything, and all of them run and know it."""
        await self.subject.tick()
        for _ in range(round(seconds)):
            self.clock.pass_(1.0)
            await self.subject.tick()

    async def _restart(self, receiver: int, unheard: float, kept: Kept | None = None) -> None:
        await self.subject.start(receiver)
        if kept is not None:
            await self._keep(*kept)
        if not self.subject.is_shared:
            (known,) = await self.subject.states()
            late = [name for name, node in self.reference.nodes.items() if node.state == "late"]
            self.reference.lose_lateness(name for name in late if name in known and known[name].state == "up")
        await self._interrupted(unheard, lost=1.0)

    async def _reach(self, unheard: float, kept: Kept | None = None) -> None:
        """Wait until a store that is there again is used again."""
        waited = 0
        while not self.subject.available():
            assert waited < REACHED_WITHIN, "the store is there again, and is not used"
            self.clock.pass_(1.0)
            await self.subject.tick()
            waited += 1
        if kept is not None:
            await self._keep(*kept)
        await self._interrupted(unheard + waited)

    async def _interrupted(self, unheard: float, *, lost: float = 0.0) -> None:
        """Take over how far listening time came through an interruption, having checked its bounds.

        Args:
            unheard: For how long no receiver heard, seconds.
            lost: How much of what was heard before may be lost with a receiver, seconds.
        """
        looks = await self.subject.tick()
        moment, reference = self.subject.moment(), self.reference
        # Where receivers share a clock a second in which nobody told it the time may be one of listening.
        unnoticed = 1.0 if self.subject.is_shared else 0.0
        most = reference.listening + unnoticed
        least = reference.listening - (0.0 if self.subject.is_shared else lost) if reference.nodes else 0.0
        assert least <= moment.seconds <= most, f"{moment.seconds} is not within {least} and {most}"
        assert moment.interruption >= reference.interruptions + (unheard > unnoticed)
        reference.listening, reference.interruptions = moment.seconds, moment.interruption
        if looks:
            reference.look(self.clock.wall_ms())


def _is_same(tried: Reference, known: NodeState | None) -> bool:
    """Whether what is known of a node is what has come of a try."""
    if known is None or not tried.nodes:
        return known is None and not tried.nodes
    (node,) = tried.nodes.values()
    # What it is may have changed with the time.
    return _shown(known)[3:] == _expected(node)[3:]


def _shown(state: NodeState) -> tuple[object, ...]:
    """Return what a registry knows of a node."""
    lapsed = (state.lapsed_at, state.lapsed_ms) if state.state in LAPSED else (0.0, 0)
    return (
        state.state, *lapsed, state.first_seen_ms, state.last_seen_ms, state.heard_at, state.interruption,
        state.interval, state.answered, state.skew_ms, state.payload, state.sent_ms,
        (state.epoch, state.number),
    )  # fmt: skip


def _expected(node: ReferenceNode) -> tuple[object, ...]:
    """Return the same by the reference."""
    return (
        node.state, node.ended_at, node.ended_ms, node.first_seen, node.last_seen, node.heard_at,
        node.interruptions, node.interval, node.answered, node.skew_ms, node.content, node.content_ms,
        node.sequence or (-1, -1),
    )  # fmt: skip


def _by_node(events: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Sort events by node: of several nodes there is no order; of one there is."""
    return sorted(events, key=lambda event: event[1])


def _differ(what: str, whose: object, found: object, expected: object) -> str:
    return f"{what} of {whose}\n  was            {found}\n  and should be  {expected}"


async def live_through(
    make: Callable[[], Subject], rules: Rules, history: Sequence[Happening]
) -> Failure | None:
    """Let a new registry live through a history; return where it failed, if it did."""
    subject = make()
    await subject.open()
    trial = Trial(subject, rules)
    try:
        for index, happening in enumerate(history):
            try:
                await trial.live(happening)
            except Exception as error:  # noqa: BLE001 - whatever it is, its history is told
                kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
                return Failure(index, f"{kind}{error}")
    finally:
        subject.bring_back()
        await subject.close()
    return None


async def shortest_tail(
    make: Callable[[], Subject], rules: Rules, history: Sequence[Happening]
) -> tuple[Sequence[Happening], Failure] | None:
    """Return the shortest end of a failing history that fails by itself, as far as halving finds it."""
    low, high = 0, 1
    found: tuple[Sequence[Happening], Failure] | None = None
    while found is None and high < 2 * len(history):
        failure = await live_through(make, rules, history[-high:])
        if failure is None:
            low, high = high, 2 * high
        else:
            found = history[-high:], failure
    while found is not None and high - low > 1:
        middle = (low + high) // 2
        failure = await live_through(make, rules, history[-middle:])
        if failure is None:
            low = middle
        else:
            high, found = middle, (history[-middle:], failure)
    return found
