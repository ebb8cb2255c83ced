"""What sums over nodes read of a stored heartbeat, and of its tags."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable


class Content(msgspec.Struct, gc=False):
    """The amounts in a heartbeat.

    Attributes:
        capacity: By resource.
        queue_depth: By topic.
    """

    capacity: dict[str, int | float]
    queue_depth: dict[str, int]


CONTENT: Final = msgspec.json.Decoder(Content)
"""Decodes a stored heartbeat, its other fields left out."""


def swarm_of(tags: Iterable[str]) -> str:
    """Return the tag of the node's swarm; empty where it has none: those are one swarm."""
    return next((tag for tag in tags if tag.startswith("swarm:")), "")
