"""When things happen: beats on a phase of the node's own, retries with full jitter, replays spread over time.

Everything here is arithmetic on monotonic seconds; nothing sleeps, sends or reads a clock.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from random import Random

BACKOFF_BASE: Final = 1.0
MAX_RETRY_AFTER: Final = 300.0
MAX_RETRIES: Final = 8
"""Retries between two successes, whatever the jitter."""
_OUTAGE: Final = 600.0
"""Seconds of 503 in which there are at most as many retries as beats."""

REPLAY_BATCH: Final = 10
REPLAY_WINDOW: Final = 60.0

_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
# RFC 9110, section 5.6.7: the one form that may be sent; two obsolete ones are to be understood.
_imf_fixdate = re.compile(
    r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), (?P<day>[0-9]{2}) (?P<month>[A-Z][a-z]{2}) (?P<year>[0-9]{4}) "
    r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2}) GMT"
).fullmatch
_DELAY_SECONDS = re.compile(r"[0-9]{1,10}")


class BeatSchedule:
    """When beats are due: the first at once, then on a fixed phase of the interval, without drift.

    Args:
        start: Monotonic seconds of the first beat.
        interval: Seconds between two beats.
        fraction: The node's place in the interval, in [0, 1).
    """

    def __init__(self, start: float, interval: float, fraction: float) -> None:
        self._start = start
        self._fraction = fraction
        self.interval = interval
        self.next = start

    def advance(self, now: float) -> None:
        """Go to the first beat after `now`; beats that a late thread missed are skipped, not caught up."""
        first = self._start + self._fraction * self.interval
        beats = math.floor((now - first) / self.interval) + 1
        candidate = first + beats * self.interval
        # Rounding may land on `now` itself.
        self.next = candidate if candidate > now else candidate + self.interval

    def change_interval(self, interval: float, now: float) -> None:
        """Go over to another interval; the next beat is at most one new interval away."""
        if interval != self.interval:
            self.interval = interval
            self.advance(now)


def backoff_delay(retry: int, interval: float, random: Random) -> float:
    """Return the seconds to wait before a retry: exponential with full jitter, capped at half an interval.

    Args:
        retry: 0 for the first retry.
        interval: The heartbeat interval in seconds.
        random: Where the jitter comes from.
    """
    # Beyond 2**32 seconds the cap has long decided.
    ceiling = min(BACKOFF_BASE * 2 ** min(retry, 32), interval / 2)
    return random.uniform(0.0, ceiling)


def parse_retry_after(value: str | None, wall: float) -> float:
    """Return the seconds that a `Retry-After` header asks for, at most 300; 0 without one that can be read.

    Args:
        value: Seconds or an HTTP date (RFC 9110, section 10.2.3).
        wall: Unix seconds that a date is compared with: the receiver's own `Date` where it sent one.
    """
    if value is None:
        return 0.0
    text = value.strip()
    if _DELAY_SECONDS.fullmatch(text):
        return min(float(text), MAX_RETRY_AFTER)
    moment = parse_http_date(text)
    return 0.0 if moment is None else min(max(moment - wall, 0.0), MAX_RETRY_AFTER)


def parse_http_date(value: str | None) -> float | None:
    """Return the Unix seconds of an HTTP date, or None."""
    if value is None:
        return None
    try:
        if found := _imf_fixdate(value):
            fields = found.groupdict()
            month = _MONTHS.index(fields.pop("month")) + 1
            numbers = {name: int(text) for name, text in fields.items()}
            return datetime(month=month, tzinfo=UTC, **numbers).timestamp()
        from email.utils import parsedate_to_datetime  # noqa: PLC0415 - 1 MiB, for what nobody sends today

        moment = parsedate_to_datetime(value)
        # Two of the three forms of RFC 9110, section 5.6.7 may come without a zone; all of them mean UTC.
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, TypeError):
        return None


def most_retries(interval: float) -> int:
    """Return how many retries there may be between two successes, by the interval in seconds."""
    return max(1, min(MAX_RETRIES, int(_OUTAGE / interval)))


class RetryPlan:
    """Whether and when the newest heartbeat is tried again.

    Within one interval after the first failure it is retried with backoff; after that only scheduled beats go
    out until one succeeds. `most_retries` bounds the retries between two successes.
    """

    def __init__(self, random: Random) -> None:
        self._random = random
        self._failing_since: float | None = None
        self._retries = 0
        self.next = math.inf

    def cancel(self) -> None:
        """Plan no retry for now."""
        self.next = math.inf

    def succeed(self) -> None:
        """Forget the failures."""
        self._failing_since = None
        self._retries = 0
        self.next = math.inf

    def fail(self, now: float) -> None:
        """Note a failed attempt, without a retry."""
        if self._failing_since is None:
            self._failing_since = now
        self.next = math.inf

    def plan(self, now: float, interval: float, *, beat: float, not_before: float, spread: float) -> None:
        """Note a failed attempt and plan a retry, if one is allowed before the next beat.

        Args:
            now: Monotonic seconds.
            interval: Seconds.
            beat: When the next scheduled beat is due.
            not_before: When the receiver lets us come back.
            spread: Seconds over which to spread what a receiver put off.
        """
        self.fail(now)
        assert self._failing_since is not None  # noqa: S101 - `fail` has just set it, for the type checker
        delay = backoff_delay(self._retries, interval, self._random)
        at = max(now + delay, not_before + self._random.uniform(0.0, spread)) if spread else now + delay
        if self._retries < most_retries(interval) and at < self._failing_since + interval and at < beat:
            self.next = at
            self._retries += 1

    def put_off(self, not_before: float, spread: float) -> None:
        """Plan the one attempt of a scheduled beat that fell into a time when nothing may be sent."""
        self.next = not_before + self._random.uniform(0.0, spread)


class ReplayPace:
    """When buffered heartbeats may follow: one for each successful beat, and one batch a minute.

    The batch is spread over its minute with jitter, so that replays of a fleet do not come together either.
    """

    def __init__(self, random: Random) -> None:
        self._random = random
        self._due: list[float] = []
        self._window_ends = -math.inf

    @property
    def next(self) -> float:
        """When the next replay may go out; infinity where none may."""
        return self._due[0] if self._due else math.inf

    def allow(self, now: float, interval: float) -> None:
        """Allow what one successful live heartbeat allows."""
        # What was allowed and not used lapses: it would come as a burst.
        self._due = [due for due in self._due if due > now]
        self._due.append(now + self._random.uniform(0.0, min(interval, REPLAY_WINDOW) / 2))
        if now >= self._window_ends:
            self._window_ends = now + REPLAY_WINDOW
            step = REPLAY_WINDOW / REPLAY_BATCH
            slots = (now + (slot + self._random.random()) * step for slot in range(REPLAY_BATCH))
            self._due.extend(slots)
        self._due.sort()

    def take(self) -> None:
        """Use up the allowance that is due."""
        del self._due[0]

    def stop(self) -> None:
        """Take back what is allowed, until the next successful live heartbeat."""
        self._due.clear()
