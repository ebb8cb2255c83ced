"""Queue pressure: how many of a node's available slots it reports while its queues are full."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from openclaw_exporter.agent.settings import PressureSettings, Threshold


class Slots(NamedTuple):
    """What is reported.

    Attributes:
        available: Slots that are offered.
        withheld: Slots that are taken off.
        topic: The topic that counted, where any slot is withheld.
    """

    available: int
    withheld: int
    topic: str | None


def offered(available: int, depths: Mapping[str, int], settings: PressureSettings) -> Slots:
    """Return how many of the available slots are offered under the present queue depths.

    A topic with thresholds leaves all slots up to its soft depth, none from its hard depth, and a share that
    falls in a straight line between, rounded down. A topic whose depth is unknown leaves all or none, as
    configured. The topic that leaves fewest counts; of several the first in the configuration.

    Args:
        available: Slots that are free, 0 or more.
        depths: Known depths by topic.
        settings: The thresholds.
    """
    best, worst_topic = available, None
    for topic, threshold in settings.topics.items():
        depth = depths.get(topic)
        if depth is not None:
            left = _left(available, depth, threshold)
        else:
            left = 0 if settings.when_unknown == "withhold" else available
        if left < best:
            best, worst_topic = left, topic
    return Slots(best, available - best, worst_topic)


def _left(available: int, depth: int, threshold: Threshold) -> int:
    if depth <= threshold.soft:
        return available
    if depth >= threshold.hard:
        return 0
    return available * (threshold.hard - depth) // (threshold.hard - threshold.soft)
