"""Nodes that publish by the real publisher, can be silenced one by one, and know what they were answered."""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING, Self
from uuid import uuid4

from openclaw_exporter.cli.driving import Driver
from openclaw_exporter.client import ClientSettings, Publisher, Report, TlsSettings, TokenSettings

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from openclaw_exporter.client import Attempt, NodeEvent, Registry
    from support.pki import Pki

_ASLEEP = 0.2
_ACCEPTED = range(200, 300)


class SwarmNode:
    """One node with a certificate of its own.

    Args:
        settings: Its publisher's.

    Attributes:
        is_silent: Whether it says nothing, as a machine that has lost its power.
        accepted: When its live heartbeats were answered 2xx, by `time.monotonic`.
        answers: How often each other status, or failure, was all that came of one.
    """

    def __init__(self, settings: ClientSettings) -> None:
        self.is_silent = False
        self._silences: list[tuple[float, float]] = []
        self.accepted: list[float] = []
        self.answers: dict[str, int] = {}
        self.publisher = Publisher(settings, _report, measured=False)
        self.publisher.on_beat(self._note)

    @property
    def node_id(self) -> str:
        return self.publisher.node_id

    def turn(self) -> float:
        """Do what is due, and return when to come back."""
        return time.monotonic() + _ASLEEP if self.is_silent else self.publisher.tick()

    def fall_silent(self) -> None:
        """Say nothing from now on."""
        self._silences.append((time.monotonic(), math.inf))
        self.is_silent = True

    def speak(self) -> None:
        """Go on publishing."""
        self.is_silent = False
        self._silences[-1] = self._silences[-1][0], time.monotonic()

    def was_silent(self, since: float, until: float) -> bool:
        """Whether it was silent at any time between two moments."""
        return any(begin < until and since < end for begin, end in self._silences)

    def next_after(self, moment: float) -> float | None:
        """Return how long after a moment it was answered 2xx for the first time, seconds."""
        return next((at - moment for at in self.accepted if at >= moment), None)

    def gaps(self, seconds: float) -> int:
        """Return how often it was not answered 2xx for so long, but for its silences."""
        pairs = zip(self.accepted, self.accepted[1:], strict=False)
        return sum(end - begin > seconds and not self.was_silent(begin, end) for begin, end in pairs)

    def _note(self, attempt: Attempt) -> None:
        if attempt.status in _ACCEPTED:
            self.accepted.append(time.monotonic())
        else:
            kind = attempt.error_type or str(attempt.status)
            self.answers[kind] = self.answers.get(kind, 0) + 1


class Swarm:
    """Many nodes, driven by a few threads. A context manager.

    Args:
        pki: Their certificates and tokens come from here.
        url: Where they publish.
        directory: For their state.
        count: How many.
        interval: Seconds between two heartbeats of one.
    """

    def __init__(self, pki: Pki, url: str, directory: Path, *, count: int, interval: int) -> None:
        self.interval = interval
        self.nodes = [SwarmNode(_settings(pki, url, directory, interval)) for _ in range(count)]
        self._driver = Driver(min(16, 1 + count // 4))

    def __enter__(self) -> Self:
        began = time.monotonic()
        for index, node in enumerate(self.nodes):
            self._driver.add(node.turn, began + index * self.interval / len(self.nodes))
        self._driver.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._driver.stop()
        for node in self.nodes:
            node.publisher.stop(draining=False)

    def running(self) -> list[SwarmNode]:
        """Return those that are not silent."""
        return [node for node in self.nodes if not node.is_silent]

    def all_accepted(self, since: float) -> bool:
        """Whether each one that runs was answered 2xx since then."""
        return all(node.next_after(since) is not None for node in self.running())


class Watch(threading.Thread):
    """Reads a registry's events over and over, through whatever breaks on the way.

    Args:
        registry: A connection of its own.
    """

    def __init__(self, registry: Registry) -> None:
        super().__init__(name="watch", daemon=True)
        self.events: list[NodeEvent] = []
        self._registry = registry

    def run(self) -> None:
        for event in every_event(self._registry):
            self.events.append(event)

    def count(self, name: str, nodes: Collection[str] | None = None) -> int:
        """Return how many events of a name there were, of some nodes or of all."""
        return sum(
            event.event == name
            and (nodes is None or (event.node is not None and event.node.node_id in nodes))
            for event in list(self.events)
        )


EVENTS = ("registered", "late", "suspect", "expired", "returned", "draining", "offline", "forgotten")


def every_event(registry: Registry, last_event_id: str = "") -> Iterator[NodeEvent]:
    """Yield all events but those of mere heartbeats."""
    return registry.events(events=EVENTS, last_event_id=last_event_id)


def _report() -> Report:
    return Report(
        version="1.0",
        capacity={"workers": 4, "available_slots": 2},
        queue_depth={"planner": 1},
        tags=("region:test",),
    )


def _settings(pki: Pki, url: str, directory: Path, interval: int) -> ClientSettings:
    node_id = str(uuid4())
    files = pki.node(node_id)
    return ClientSettings(
        endpoint=url,
        interval=interval,
        min_interval=min(30, interval),
        node_id=node_id,
        state_dir=directory / node_id,
        tls=TlsSettings(ca=pki.ca, certificate=files.certificate, key=files.key),
        token=TokenSettings(key=pki.token_key, kid=pki.key_id, issuer=pki.issuer, audience=pki.audience),
    )
