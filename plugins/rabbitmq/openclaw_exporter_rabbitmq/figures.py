"""What the server tells of its queues, however it is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping


class TopicError(Exception):
    """One topic cannot be read; the text names the queue."""


class Figures(NamedTuple):
    """What the server tells of one queue; None is unknown."""

    ready: int | None
    unacknowledged: int | None = None
    consumers: int | None = None
    head: float | None = None
    state: str = ""
    kind: str = ""


class Found(NamedTuple):
    """The queues that are there, by name, and why the patterns' queues are not among them."""

    queues: Mapping[str, Figures | TopicError]
    patterns_error: TopicError | None = None


class Source(Protocol):
    """One way to ask the server."""

    def read(self) -> Found:
        """Ask for all queues."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...
