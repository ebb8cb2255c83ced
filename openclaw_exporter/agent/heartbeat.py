"""From the snapshot to what the node says of itself: one view, which heartbeat and metrics both read.

The rules where collectors are silent:

- `workers`: a collector's, else `[node] workers`, else 0.
- `available_slots`: a collector's, at most `workers` where those are known; else all workers, because a node
  that does not know which of its workers are busy can only say what it has. Queue pressure comes off that.
- A topic, a resource or an uptime that no collector tells is left out: unknown is never zero.
- Tags: those of the configuration first, then those of collectors whose key the configuration leaves free:
  a node must not be `gpu:true` and `gpu:false`, and the person who configured it knows better. 32 at most. Of
  resources and topics, too, as many go out as the contract allows, in the order of the collectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from openclaw_exporter.agent.pressure import offered
from openclaw_exporter.client import Report
from openclaw_exporter.plugin.observations import QueueDepth
from openclaw_exporter.wire.fields import MAX_ENTRIES, REQUIRED_RESOURCES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from openclaw_exporter.agent.settings import NodeSettings, PressureSettings
    from openclaw_exporter.agent.snapshot import Snapshot
    from openclaw_exporter.plugin.observations import Tag

T = TypeVar("T")

_OTHER_RESOURCES: Final = MAX_ENTRIES - len(REQUIRED_RESOURCES)


class NodeView(msgspec.Struct, frozen=True):
    """What the node says of itself at one moment.

    Attributes:
        capacity: Amount by resource; `workers` and `available_slots` are always there, as integers.
        queues: Depth, and age of the oldest message, by topic.
        withheld: Slots taken off because of queue pressure.
        pressing: The topic that took them off.
        tags: Configured and collected tags.
        uptime: Seconds since the node started, where known.
        cut: What did not fit into a heartbeat, in words.
    """

    capacity: Mapping[str, int | float]
    queues: Mapping[str, QueueDepth]
    withheld: int
    pressing: str | None
    tags: tuple[str, ...]
    uptime: float | None
    cut: tuple[str, ...] = ()


def view(snapshot: Snapshot, node: NodeSettings, pressure: PressureSettings) -> NodeView:
    """Return what the node says, given what is known and configured."""
    cut: list[str] = []
    queues = dict(_at_most(MAX_ENTRIES, snapshot.queues.items(), "topics", cut))
    workers = _workers(snapshot, node)
    depths = {topic: queue.depth for topic, queue in snapshot.queues.items()}
    slots = offered(_available(snapshot, workers), depths, pressure)
    others = [item for item in snapshot.capacity.items() if item[0] not in REQUIRED_RESOURCES]
    return NodeView(
        capacity={
            "workers": workers or 0,
            "available_slots": slots.available,
            **dict(_at_most(_OTHER_RESOURCES, others, "resources", cut)),
        },
        queues=queues,
        withheld=slots.withheld,
        pressing=slots.topic,
        tags=_tags(node, snapshot.tags, cut),
        uptime=snapshot.uptime,
        cut=tuple(cut),
    )


def report(now: NodeView, node: NodeSettings) -> Report:
    """Return what the heartbeat says of the node."""
    return Report(
        version=node.version or None,
        hostname=node.hostname or None,
        capacity=now.capacity,
        queue_depth={topic: queue.depth for topic, queue in now.queues.items()},
        tags=now.tags,
        uptime_seconds=None if now.uptime is None else int(now.uptime),
    )


def _workers(snapshot: Snapshot, node: NodeSettings) -> int | None:
    collected = snapshot.capacity.get("workers")
    return node.workers if collected is None else int(collected)


def _available(snapshot: Snapshot, workers: int | None) -> int:
    collected = snapshot.capacity.get("available_slots")
    if collected is None:
        return workers or 0
    return int(collected) if workers is None else min(int(collected), workers)


def _tags(node: NodeSettings, collected: Iterable[Tag], cut: list[str]) -> tuple[str, ...]:
    taken = {tag.partition(":")[0] for tag in node.all_tags}
    others = (f"{tag.key}:{tag.value}" for tag in collected if tag.key not in taken)
    return tuple(_at_most(MAX_ENTRIES, (*node.all_tags, *others), "tags", cut))


def _at_most(limit: int, items: Iterable[T], what: str, cut: list[str]) -> list[T]:
    kept = list(islice(items, limit + 1))
    if len(kept) > limit:
        cut.append(f"more than {limit} {what}")
        kept.pop()
    return kept
