"""Virtual time: a clock that moves when the test says so, and a receiver that is a function."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import TYPE_CHECKING
from uuid import uuid4

from openclaw_exporter.client.exchange import Response, UnreachableError
from openclaw_exporter.client.rollout import stable_fraction

if TYPE_CHECKING:
    from collections.abc import Callable

    from openclaw_exporter.client import Publisher
    from openclaw_exporter.client.exchange import Request as Sent

START = 1_800_000_000.0


class VirtualClock:
    """Both clocks of a machine; `step` sets the wall clock apart from the other."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.step = START - self.now

    def wall(self) -> float:
        return self.now + self.step

    def monotonic(self) -> float:
        return self.now


class SkippingClock:
    """The machine's clocks, with time that the test leaves out."""

    def __init__(self) -> None:
        self.skipped = 0.0

    def wall(self) -> float:
        return time.time() + self.skipped

    def monotonic(self) -> float:
        return time.monotonic() + self.skipped


@dataclass(frozen=True)
class Request:
    """What the publisher sent, at which monotonic time."""

    body: bytes
    headers: Mapping[str, str]
    at: float

    @property
    def replay(self) -> bool:
        return self.headers.get("openclaw-replay") == "1"


@dataclass(frozen=True)
class Reply:
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class Wire:
    """Stands where the connection would be; `answer` is the receiver, or raises what a network does."""

    def __init__(self, clock: VirtualClock, answer: Callable[[Request], Reply] | None = None) -> None:
        self.clock = clock
        self.answer = answer or (lambda _request: Reply())
        self.requests: list[Request] = []
        self.takes = 0.0

    def handle_request(self, request: Sent) -> Response:
        headers = {name.lower(): value for name, value in request.fields.items()}
        seen = Request(request.body, headers, self.clock.now)
        self.requests.append(seen)
        self.clock.now += self.takes
        reply = self.answer(seen)
        fields = [(name.encode(), value.encode()) for name, value in reply.headers.items()]
        return Response(reply.status, fields, [reply.body])

    @property
    def live(self) -> list[Request]:
        return [request for request in self.requests if not request.replay]

    @property
    def replays(self) -> list[Request]:
        return [request for request in self.requests if request.replay]


def drive(publisher: Publisher, clock: VirtualClock, seconds: float) -> None:
    """Let the publisher live for so long."""
    ends = clock.now + seconds
    while True:
        due = publisher.tick()
        if due >= ends or due == math.inf:
            break
        clock.now = max(clock.now, due)
    clock.now = max(clock.now, ends)


def away(_request: Request) -> Reply:
    """Answer as a receiver that is not there."""
    raise UnreachableError from ConnectionRefusedError(111, "Connection refused")


def http_date(unix: float) -> str:
    return formatdate(unix, usegmt=True)


def node_whose_phase(fits: Callable[[float], bool]) -> str:
    """Return the id of a node that beats at a fitting fraction of the interval."""
    while not fits(stable_fraction(node_id := str(uuid4()), "phase")):
        pass
    return node_id
