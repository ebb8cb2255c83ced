"""The state machine of publishing: what is due, what an answer means for what comes next.

One call of `tick` does at most one thing: the beat that is due, else the retry, else one replay.
"""

from __future__ import annotations

import logging
import math
from random import Random
from typing import TYPE_CHECKING, Final

import msgspec

from openclaw_exporter.client.answers import Outcome
from openclaw_exporter.client.beats import BeatMaker
from openclaw_exporter.client.buffer import Buffer
from openclaw_exporter.client.clock import Clock
from openclaw_exporter.client.courier import Courier
from openclaw_exporter.client.journal import Journal
from openclaw_exporter.client.outgoing import Outgoing
from openclaw_exporter.client.pacing import BeatSchedule, ReplayPace, RetryPlan
from openclaw_exporter.client.results import Attempt, Stats
from openclaw_exporter.client.rollout import stable_fraction
from openclaw_exporter.client.settings import ClientSettings
from openclaw_exporter.client.state import StateDirectory

if TYPE_CHECKING:
    from collections.abc import Callable

    from openclaw_exporter.client.answers import Delivery

_LOG = logging.getLogger(__name__)

_MAX_EPOCH: Final = 2**53 - 1


class _Newest(msgspec.Struct):
    """The newest heartbeat while it is not accepted; `key` is its place in the buffer once it has one."""

    outgoing: Outgoing
    key: int | None = None


class Parts(msgspec.Struct, frozen=True):
    """What the engine works with."""

    settings: ClientSettings
    node_id: str
    state: StateDirectory
    beats: BeatMaker
    buffer: Buffer
    courier: Courier
    journal: Journal
    clock: Clock
    random: Random


class Engine:
    """Publishes the heartbeats of one node; for one thread at a time.

    Args:
        parts: What it works with.

    Attributes:
        last: The last attempt to publish the newest heartbeat; None before the first.
        on_attempt: Called after every such attempt.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._schedule: BeatSchedule | None = None
        self._retry = RetryPlan(parts.random)
        self._replay = ReplayPace(parts.random)
        self._newest: _Newest | None = None
        self._hold = -math.inf
        self._spread = 0.0
        self._ever_accepted = False
        self._epoch_raised = False
        self._made = 0
        self._replayed = 0
        self.last: Attempt | None = None
        self.on_attempt: list[Callable[[Attempt], None]] = []

    @property
    def interval(self) -> float:
        """The interval in force, seconds."""
        return self._schedule.interval if self._schedule else self._parts.settings.interval

    @property
    def stats(self) -> Stats:
        """Counts since the start."""
        courier, buffer = self._parts.courier, self._parts.buffer
        return Stats(
            made=self._made,
            success=courier.successes,
            failure=courier.failures,
            buffered=len(buffer),
            dropped=sum(buffer.drops.values()),
            replayed=self._replayed,
        )

    def tick(self) -> float:
        """Do what is due now, and return the monotonic time at which there is something to do again."""
        now = self._parts.clock.monotonic()
        schedule = self._schedule
        if schedule is None:
            fraction = stable_fraction(self._parts.node_id, "phase")
            schedule = self._schedule = BeatSchedule(now, self._parts.settings.interval, fraction)
        if schedule.next <= now:
            schedule.advance(now)
            self._beat(now)
        elif now >= self._hold and self._retry.next <= now:
            self._send_newest()
        elif now >= self._hold and self._backlog() and self._replay.next <= now:
            self._send_oldest()
        replay = self._replay.next if self._backlog() else math.inf
        return min(schedule.next, max(self._hold, min(self._retry.next, replay)))

    def finish(self, *, draining: bool, patience: float) -> None:
        """Send the last heartbeat of a node that leaves, unless the receiver asked for silence.

        Args:
            draining: Whether to send one at all.
            patience: Seconds that it may take.
        """
        parts = self._parts
        if not draining or patience <= 0 or parts.clock.monotonic() < self._hold:
            return
        outgoing = parts.beats.make()
        self._made += 1
        delivery = parts.courier.deliver(outgoing, draining=True, patience=patience)
        self._note(delivery)
        if delivery.outcome is Outcome.ACCEPTED:
            return
        parts.journal.failed(delivery)
        if _is_final(delivery):
            parts.buffer.count_dropped("refused")
        else:
            parts.buffer.add(outgoing)

    def _beat(self, now: float) -> None:
        """Make the beat that is due. An older one that was not accepted is in the buffer and stays there."""
        self._newest = _Newest(self._parts.beats.make())
        self._made += 1
        self._retry.cancel()
        if now < self._hold:
            self._keep(self._newest)
            self._retry.put_off(self._hold, self._spread)
        else:
            self._send_newest()

    def _send_newest(self) -> None:
        newest = self._newest
        if newest is None:
            self._retry.cancel()
            return
        delivery = self._parts.courier.deliver(newest.outgoing)
        if self._raise_epoch(newest, delivery) and not delivery.retry_after:
            delivery = self._parts.courier.deliver(newest.outgoing)
        now = self._parts.clock.monotonic()
        self._obey(delivery, now)
        if delivery.outcome is Outcome.ACCEPTED:
            self._accepted(newest, delivery, now)
        else:
            self._not_accepted(newest, delivery, now)
        self._note(delivery)

    def _accepted(self, newest: _Newest, delivery: Delivery, now: float) -> None:
        parts = self._parts
        self._ever_accepted = True
        self._newest = None
        self._retry.succeed()
        if newest.key is not None:
            parts.buffer.remove(newest.key)
        parts.journal.accepted()
        if delivery.interval is not None:
            self._adopt(delivery.interval, now)
        if self._backlog() and now >= self._hold:
            self._replay.allow(now, self.interval)

    def _not_accepted(self, newest: _Newest, delivery: Delivery, now: float) -> None:
        parts = self._parts
        self._replay.stop()
        parts.journal.failed(delivery)
        if _is_final(delivery):
            self._newest = None
            self._give_up(newest)
        else:
            self._keep(newest)
        if delivery.outcome is not Outcome.BACKOFF or self._schedule is None:
            self._retry.fail(now)
            return
        held = self._hold > now
        self._retry.plan(
            now,
            self.interval,
            beat=self._schedule.next,
            not_before=self._hold,
            spread=self._spread if held else 0.0,
        )

    def _send_oldest(self) -> None:
        """Replay one buffered heartbeat."""
        parts = self._parts
        self._replay.take()
        waiting = parts.buffer.oldest(besides=self._newest.key if self._newest else None)
        if waiting is None:
            return
        delivery = parts.courier.deliver(waiting.outgoing, replay=True)
        self._obey(delivery, parts.clock.monotonic())
        if delivery.outcome is Outcome.ACCEPTED:
            parts.buffer.remove(waiting.key)
            self._replayed += 1
            parts.journal.replay_accepted()
        elif delivery.outcome in (Outcome.REFUSED, Outcome.CONFLICT):
            parts.buffer.drop(waiting.key, "refused")
            parts.journal.replay_refused(delivery)
        else:
            self._replay.stop()

    def _raise_epoch(self, newest: _Newest, delivery: Delivery) -> bool:
        """Go over a newer epoch that the receiver has heard, once, if this process was never accepted."""
        heard = delivery.epoch
        if delivery.outcome is not Outcome.CONFLICT or heard is None:
            return False
        if self._ever_accepted or self._epoch_raised or not self._parts.beats.epoch <= heard < _MAX_EPOCH:
            return False
        self._epoch_raised = True
        epoch = self._parts.state.raise_epoch(heard + 1)
        newest.outgoing = self._parts.beats.with_epoch(newest.outgoing, epoch)
        _LOG.warning("the receiver has heard a newer epoch of this node than this process's: going over it")
        return True

    def _obey(self, delivery: Delivery, now: float) -> None:
        if delivery.retry_after > 0:
            self._hold = now + delivery.retry_after
            self._spread = min(self.interval / 2, delivery.retry_after)
            self._replay.stop()

    def _adopt(self, seconds: int, now: float) -> None:
        settings = self._parts.settings
        interval = min(max(seconds, settings.min_interval), settings.max_interval)
        if self._schedule is not None and interval != self._schedule.interval:
            _LOG.info(
                "the receiver asks for a heartbeat every %d s: every %d s from now on", seconds, interval
            )
            self._schedule.change_interval(interval, now)

    def _keep(self, newest: _Newest) -> None:
        if newest.key is None:
            newest.key = self._parts.buffer.add(newest.outgoing)

    def _give_up(self, newest: _Newest) -> None:
        if newest.key is None:
            self._parts.buffer.count_dropped("refused")
        else:
            self._parts.buffer.drop(newest.key, "refused")

    def _backlog(self) -> int:
        """Return how many heartbeats wait for replay."""
        return len(self._parts.buffer) - (
            1 if self._newest is not None and self._newest.key is not None else 0
        )

    def _note(self, delivery: Delivery) -> None:
        at = self._parts.clock.wall()
        self.last = Attempt(delivery.outcome, delivery.status, delivery.error_type, at)
        for callback in self.on_attempt:
            callback(self.last)


def _is_final(delivery: Delivery) -> bool:
    """Whether no later attempt with this heartbeat can be accepted."""
    return delivery.outcome is Outcome.REFUSED
