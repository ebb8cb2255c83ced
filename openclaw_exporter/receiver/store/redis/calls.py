"""What is asked of a Redis, and what is said where it cannot be."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from openclaw_exporter.errors import StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openclaw_exporter.receiver.store.redis.connection import Word

Partition = int | str
"""A part of the registry that is on one server: its number, or what has no nodes, `clock` and `events`."""


class Call(NamedTuple):
    """One command for one partition.

    Attributes:
        partition: Its number, or `clock` or `events`.
        command: The command. All its keys must be the partition's (`Link.key`), and all that a script touches
            must be among its KEYS: while a slot is on its way to another server Redis looks at these only.
    """

    partition: Partition
    command: Sequence[Word]


class ShardAwayError(StoreUnavailableError):
    """A partition cannot be used now.

    Attributes:
        ambiguous: Whether the call may have been executed; otherwise it was not.
    """

    def __init__(self, text: str, *, ambiguous: bool) -> None:
        super().__init__(text)
        self.ambiguous = ambiguous
