"""What happens to nodes, for whoever listens: the events behind `GET /openclaw/events`.

The last events are kept in one ring with a number each, and a subscriber is a place in it: nothing is copied
or buffered for anybody. Whoever reads so slowly that the ring overtakes them is cut off. `updated` events,
one for each heartbeat that changed nothing else, have a ring of their own that is filled only while somebody
asks for them, so that they cannot push the others out; they are not kept for those who come back.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import msgspec

from openclaw_exporter.receiver.query import NodeView, view
from openclaw_exporter.wire.timestamps import format_ms

if TYPE_CHECKING:
    from collections.abc import Callable

    from openclaw_exporter.receiver.listening import Moment
    from openclaw_exporter.receiver.liveness import Event, NodeState

DEFAULT_EVENTS: Final = frozenset({"registered", "late", "expired", "returned", "draining", "offline"})
ALL_EVENTS: Final = (
    "registered",
    "late",
    "suspect",
    "expired",
    "returned",
    "draining",
    "offline",
    "forgotten",
    "updated",
)

UPDATES_KEPT: Final = 32_768
_ENCODER: Final = msgspec.json.Encoder()


class NodeEvent(msgspec.Struct, kw_only=True):
    """The data of one event.

    Attributes:
        event: What happened.
        at: When, RFC 3339, by the receiver's clock.
        node: The node after it; of a forgotten node what was last known.
    """

    event: str
    at: str
    node: NodeView


class _Entry:
    """One event; its text is made when somebody reads it, and once."""

    __slots__ = ("_text", "at", "event", "state")

    def __init__(self, event: str, state: NodeState, at: Moment) -> None:
        self.event = event
        self.state = state
        self.at = at
        self._text = b""

    def text(self, number: str) -> bytes:
        if not self._text:
            told = NodeEvent(event=self.event, at=format_ms(self.at.at_ms), node=view(self.state, self.at))
            name = b"id: %s\n" % number.encode() if number else b""
            data = _ENCODER.encode(told)
            self._text = b"%sevent: %s\ndata: %s\n\n" % (name, self.event.encode(), data)
        return self._text


class _Ring:
    """The last entries, numbered from 0."""

    def __init__(self, size: int) -> None:
        self._entries: deque[_Entry] = deque(maxlen=size)
        self.end = 0

    @property
    def begin(self) -> int:
        """The number of the oldest entry that is kept."""
        return self.end - len(self._entries)

    def add(self, entry: _Entry) -> None:
        self._entries.append(entry)
        self.end += 1

    def since(self, number: int, limit: int) -> list[_Entry]:
        start = number - self.begin
        return [self._entries[place] for place in range(start, min(start + limit, len(self._entries)))]

    def clear(self) -> None:
        self._entries.clear()

    def skip(self, number: int) -> None:
        """Begin again, empty, at a number."""
        self._entries.clear()
        self.end = number

    @property
    def size(self) -> int:
        """How many entries are kept."""
        return self._entries.maxlen or 0


class Filter(NamedTuple):
    """Which events somebody wants.

    Attributes:
        events: Their names.
        tags: The node has all of these tags.
    """

    events: frozenset[str] = DEFAULT_EVENTS
    tags: frozenset[str] = frozenset()

    def wants(self, entry: _Entry) -> bool:
        """Whether an event is asked for."""
        return entry.event in self.events and self.tags.issubset(entry.state.tags)


class OverrunError(Exception):
    """A subscriber has read too slowly: events that it should have had are gone."""


class Told(Protocol):
    """An event as several receivers share it."""

    @property
    def event(self) -> str:
        """What happened."""

    @property
    def state(self) -> NodeState:
        """The node after it."""

    @property
    def moment(self) -> Moment:
        """When it happened."""


class Hub:
    """Takes in what happens and lets subscribers read it. It belongs to the receiver's event loop.

    Args:
        kept: How many events are kept for those who read slowly or come back.
        updates_kept: How many `updated` events are kept for those who read slowly.

    Attributes:
        ring: The events.
        updates: The `updated` events.
        run: Tells the event ids of this run of the receiver from those of another.
        closed: Whether nobody may subscribe any more.
    """

    def __init__(self, kept: int, *, updates_kept: int = UPDATES_KEPT) -> None:
        self._moment: Callable[[], Moment] | None = None
        self.ring = _Ring(kept)
        self.updates = _Ring(updates_kept)
        self.run = secrets.token_hex(4)
        self._subscribers: set[Subscription] = set()
        self._for_updates = 0
        self.closed = False

    def __len__(self) -> int:
        """How many subscribers there are."""
        return len(self._subscribers)

    def follow(self, moment: Callable[[], Moment]) -> None:
        """Begin to take in events; `moment` returns the receiver's present."""
        self._moment = moment

    @property
    def wants_updates(self) -> bool:
        """Whether anybody wants to know of heartbeats that changed nothing else."""
        return self._for_updates > 0

    def happened(self, event: Event, state: NodeState) -> None:
        """Take in an event."""
        self._take(self.ring, event, state)

    def updated(self, state: NodeState) -> None:
        """Take in a heartbeat that changed nothing else."""
        if self._for_updates:
            self._take(self.updates, "updated", state)

    @property
    def end(self) -> int:
        """The number of the next event."""
        return self.ring.end

    @property
    def size(self) -> int:
        """How many events are kept."""
        return self.ring.size

    def restart(self, run: str, begin: int) -> None:
        """Begin with another log of events, at a number; subscribers are told of a gap."""
        self.run = run
        self.ring.skip(begin)
        for subscription in self._subscribers:
            subscription.restart()

    def take(self, number: int, told: Told) -> None:
        """Take in an event of a log that several receivers share, numbered from 1."""
        if number <= self.ring.end:
            return
        if number > self.ring.end + 1:
            self.ring.skip(number - 1)
        self.ring.add(_Entry(told.event, told.state, told.moment))
        for subscription in self._subscribers:
            subscription.wake()

    def subscribe(self, wanted: Filter, last_id: str = "") -> Subscription:
        """Return a new subscription; it must be closed.

        Args:
            wanted: What is asked for.
            last_id: The id of the last event that was read, to go on behind it; empty: from now on.
        """
        subscription = Subscription(self, wanted, *self._resume(last_id))
        self._subscribers.add(subscription)
        self._for_updates += "updated" in wanted.events
        return subscription

    def close(self) -> None:
        """End every subscription."""
        self.closed = True
        for subscription in self._subscribers:
            subscription.stop()

    def _resume(self, last_id: str) -> tuple[int, bool]:
        """Return the number to go on with, and whether events are missing before it."""
        if not last_id:
            return self.ring.end, False
        run, _, text = last_id.partition("-")
        number = int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else -1  # noqa: PLR2004
        if run != self.run or not self.ring.begin <= number <= self.ring.end:
            return self.ring.begin, True
        return number, False

    def _take(self, ring: _Ring, event: str, state: NodeState) -> None:
        if self._moment is None:
            return
        ring.add(_Entry(event, state, self._moment()))
        for subscription in self._subscribers:
            subscription.wake()

    def leave(self, subscription: Subscription) -> None:
        """Forget a subscription."""
        if subscription in self._subscribers:
            self._subscribers.remove(subscription)
            self._for_updates -= "updated" in subscription.wanted.events
            if not self._for_updates:
                self.updates.clear()


class Subscription:
    """One reader's place in the rings.

    Args:
        hub: Whose.
        wanted: What is asked for.
        number: The number of the first event to read.
        is_incomplete: Whether events before that are missing.
    """

    def __init__(self, hub: Hub, wanted: Filter, number: int, is_incomplete: bool) -> None:  # noqa: FBT001
        self.wanted = wanted
        self._hub = hub
        self._next = number
        self._next_update = hub.updates.end
        self._gap = is_incomplete
        self._stopped = False
        self._waking = asyncio.Event()
        self._waking.set()

    @property
    def place(self) -> str:
        """The id to go on from: everything before it has been read or was not asked for."""
        return f"{self._hub.run}-{self._next}"

    def wake(self) -> None:
        """Something has happened."""
        self._waking.set()

    def restart(self) -> None:
        """Go on with another log."""
        self._next = self._hub.ring.end
        self._gap = True
        self._waking.set()

    def stop(self) -> None:
        """End: `read` returns None from now on."""
        self._stopped = True
        self._waking.set()

    def close(self) -> None:
        """Give the place up."""
        self._hub.leave(self)

    async def read(self, limit: int, patience: float) -> bytes | None:
        """Return the text of some of the events that were asked for, or of none where none came in time.

        Args:
            limit: Events to look at, at most.
            patience: Seconds to wait for one.

        Returns:
            None: the subscription has ended.

        Raises:
            OverrunError: Events are gone that were not read yet.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + patience
        while not self._stopped:
            text, looked_at = self._take(limit)
            if text:
                return text
            # What is not asked for does not prolong the wait.
            if looked_at and loop.time() < until:
                await asyncio.sleep(0)
                continue
            self._waking.clear()
            try:
                async with asyncio.timeout_at(until):
                    await self._waking.wait()
            except TimeoutError:
                # The id lets a reader whom little interests come back without a gap.
                return b": keep-alive\nid: %s\n\n" % self.place.encode()
        return None

    def _take(self, limit: int) -> tuple[bytes, int]:
        hub = self._hub
        wants_updates = "updated" in self.wanted.events
        if self._next < hub.ring.begin or (wants_updates and self._next_update < hub.updates.begin):
            raise OverrunError
        parts = []
        if self._gap:
            self._gap = False
            parts.append(_GAP)
        entries = hub.ring.since(self._next, limit)
        for entry in entries:
            self._next += 1
            if self.wanted.wants(entry):
                parts.append(entry.text(self.place))
        updates = hub.updates.since(self._next_update, limit) if wants_updates else []
        self._next_update += len(updates)
        parts += [entry.text("") for entry in updates if self.wanted.wants(entry)]
        return b"".join(parts), len(entries) + len(updates)


_GAP: Final = (
    b"event: gap\n"
    b'data: {"event":"gap","reason":"events after Last-Event-ID are gone; read /openclaw/nodes again"}\n\n'
)
