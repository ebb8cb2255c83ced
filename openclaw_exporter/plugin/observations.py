"""The five observations: everything that a collector can say.

They are plain frozen dataclasses, cheap to build and to pickle. They do not check themselves: the host
checks at its edge, so that one bad observation costs one line in the log and never an exception in a plugin.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["counter", "gauge", "updowncounter"]
"""What a measurement is: a total that only grows, a value of now, or a value that adds up over nodes."""

AttributeValue: TypeAlias = str | bool | int | float


@dataclass(frozen=True, slots=True)
class Capacity:
    """How much of a resource this node has: `openclaw.node.capacity`, and `capacity` in the heartbeat.

    Attributes:
        resource: `workers`, `available_slots`, or another name of `[a-z][a-z0-9_.]{0,62}`.
        amount: A finite number, zero or more; whole for `workers` and `available_slots`.
    """

    resource: str
    amount: float


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """How many messages wait in a topic: `openclaw.node.queue.depth`, and `queue_depth` in the heartbeat.

    Leave a topic out where its depth is unknown. A drained queue is 0.

    Attributes:
        topic: 1 to 64 characters of `[A-Za-z0-9_.:-]`.
        depth: Messages waiting, zero or more.
        oldest_age: Seconds since the oldest of them was queued, where the source can tell.
    """

    topic: str
    depth: int
    oldest_age: float | None = None


@dataclass(frozen=True, slots=True)
class Uptime:
    """Seconds since the node started: `openclaw.node.uptime`, and `uptime_seconds` in the heartbeat."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Tag:
    """A routing hint, `key:value` in the heartbeat's `tags`. It becomes no metric attribute."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Measurement:
    """Any other metric.

    Attributes:
        name: Lower-case and dotted, by the semantic conventions where they have one.
        value: A finite number; of a counter, the total so far.
        unit: UCUM (`s`, `By`, `Cel`, `1`), one `{annotation}`, or empty for a state of 0 or 1.
        kind: `counter`, `gauge` or `updowncounter`.
        attributes: What tells this series from the others of the same name.
    """

    name: str
    value: float
    unit: str
    kind: Kind = "gauge"
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)


Observation: TypeAlias = Capacity | QueueDepth | Uptime | Tag | Measurement
