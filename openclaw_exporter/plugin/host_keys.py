"""The keys of every `[plugins.NAME]` table that belong to the host, and what holds where they are silent."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

Isolation: TypeAlias = Literal["thread", "process"]

Seconds: TypeAlias = Annotated[float, msgspec.Meta(ge=0.1, le=86_400)]


@dataclass(frozen=True, slots=True, kw_only=True)
class HostKeys:
    """The keys of every `[plugins.NAME]` table that belong to the host.

    Attributes:
        enabled: Whether the plugin is loaded at all; one that is not is not even imported.
        interval: Seconds from one collection to the next.
        deadline: Seconds that one collection may take; not above the interval.
        isolation: Run the collectors in threads of the agent, or each in a process of its own.
        series_budget: How many different series one collector may export over the agent's life.
    """

    enabled: bool = True
    interval: Seconds | None = None
    deadline: Seconds | None = None
    isolation: Isolation | None = None
    series_budget: Annotated[int, msgspec.Meta(ge=1, le=2_000)] | None = None

    def __post_init__(self) -> None:
        """Check what two keys say together."""
        if self.interval is not None and self.deadline is not None and self.deadline > self.interval:
            raise ValueError(
                f"the deadline, {self.deadline:g} s, is longer than the interval, {self.interval:g} s"
            )


def asks_for_process(table: Mapping[str, object]) -> bool:
    """Whether a plugin's table says that it is never imported here, but in processes of its own."""
    return table.get("isolation") == "process" and table.get("enabled") is not False


HOST_KEYS: Final = frozenset(key.name for key in fields(HostKeys))


class Defaults(msgspec.Struct, frozen=True):
    """What holds where neither the configuration nor the collector says anything."""

    interval: float = 10.0
    deadline: float = 5.0
    isolation: Isolation = "thread"
    series_budget: int = 300
