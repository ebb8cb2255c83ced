"""From arrivals to outcomes: planned against the mirror, stored, and planned anew where that has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openclaw_exporter.receiver.liveness import Arrival, Outcome
    from openclaw_exporter.receiver.store.redis.clock import SharedClock
    from openclaw_exporter.receiver.store.redis.commits import Commits
    from openclaw_exporter.receiver.store.redis.link import Link
    from openclaw_exporter.receiver.store.redis.mirror import Mirror
    from openclaw_exporter.receiver.store.redis.packing import Names

_ROUNDS: Final = 20
"""How often an arrival is planned anew because its node has changed; then its sender has to come again."""


class Recording:
    """See the module.

    Args:
        link: The way to Redis.
        names: The keys.
        shared: The shared clock.
        mirror: What is planned against.
        commits: Stores plans.
    """

    def __init__(
        self, link: Link, names: Names, shared: SharedClock, mirror: Mirror, commits: Commits
    ) -> None:
        self._link = link
        self._names = names
        self._shared = shared
        self._mirror = mirror
        self._commits = commits

    async def record(self, arrivals: Sequence[Arrival], outcomes: list[Outcome | None]) -> None:
        """Plan and store arrivals, again and again where their nodes have changed meanwhile.

        Args:
            arrivals: The arrivals, in their order.
            outcomes: Takes theirs, as far as there are any: those that cannot be stored now have none.
        """
        partition_of, away = self._names.partition, self._link.away
        rest = [index for index, one in enumerate(arrivals) if not away(partition_of(one.node_id))]
        for _ in range(_ROUNDS):
            if not rest:
                return
            found = await self._commits.lookup([arrivals[index] for index in rest])
            if found.lost:
                rest = [index for index in rest if arrivals[index].node_id not in found.lost]
            at = self._shared.read()
            plan = self._mirror.registry.plan_arrivals(
                [(arrivals[index], at) for index in rest], found.stored
            )
            decided = [
                (arrivals[index].node_id, index, one) for index, one in zip(rest, plan.outcomes, strict=True)
            ]
            duplicates = {node_id for node_id, _, outcome in decided if outcome.kind == "duplicate"}
            verdict = await self._commits.store(plan, found.newest, duplicates)
            rest = [index for node_id, index, _ in decided if node_id in verdict.differ]
            for node_id, index, outcome in decided:
                if node_id not in verdict.differ and node_id not in verdict.lost:
                    outcomes[index] = outcome
