"""The Redis keys of the demo's swarm: one of each kind that Chimera code bases use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

URL_VARIABLE: Final = "OPENCLAW_DEMO_REDIS"
"""Tells the swarm's processes the Redis, whose URL may hold a password that no process list should show."""

GROUP: Final = "chimera_workers"


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys under one prefix, so that nothing else in a Redis is touched.

    Attributes:
        prefix: What every key begins with.
    """

    prefix: str

    @property
    def goals(self) -> str:
        """A list: goals that wait for the planner."""
        return f"{self.prefix}:planner:queue"

    @property
    def tasks(self) -> str:
        """A sorted set: tasks that wait for a worker, by priority."""
        return f"{self.prefix}:queue:task"

    @property
    def results(self) -> str:
        """A stream with a consumer group: results that wait for the judge."""
        return f"{self.prefix}:queue:review"

    @property
    def topics(self) -> dict[str, list[str]]:
        """Which topic of the heartbeat each key is."""
        return {"planner": [self.goals], "worker": [self.tasks], "judge": [self.results]}
