"""What came of the demo."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from openclaw_exporter.cli.demo.watch import Delivered, Sight

if TYPE_CHECKING:
    from openclaw_exporter.client.nodes import Node


@dataclass(slots=True)
class Result:
    """The end of a demo.

    Attributes:
        seconds: How long heartbeats were published.
        sight: What was last to be seen.
        agent_id: The real node's id.
        neighbours: How the neighbours' heartbeats were delivered.
        faults: Why the demo has not shown what it should, in words; empty where it has.
    """

    seconds: float
    sight: Sight
    agent_id: str
    neighbours: Delivered = field(default_factory=Delivered)
    faults: list[str] = field(default_factory=list)

    @property
    def agent(self) -> Node | None:
        """The real agent's node; None where the registry does not know it."""
        return self.sight.node(self.agent_id)

    @property
    def agent_is_up(self) -> bool:
        """Whether the registry says that the real agent is up."""
        return self.agent is not None and self.agent.state == "up"

    @property
    def delivered(self) -> Delivered:
        """How all heartbeats were delivered."""
        return self.neighbours + (self.sight.agent or Delivered())

    @property
    def waits(self) -> bool:
        """Whether a heartbeat that was turned away has yet to come back, or the agent has.

        A receiver sheds load where its machine stalls for some seconds. What it turned away is recorded
        later, so that nothing is lost.
        """
        turned_away = self.sight.received.get("turned_away", 0)
        return bool(turned_away) and (self.delivered.waiting > 0 or not self.agent_is_up)

    def judge(self, *, ended_early: bool = False) -> None:
        """Add what the last sight says against the demo.

        Args:
            ended_early: Whether it was told to end, so that what waits had no time to come back.
        """
        if self.agent is None:
            self.faults.append("the registry does not know the real agent")
        elif not self.agent_is_up:
            self.faults.append(f"the real agent is {self.agent.state}: {self.agent.reason}")
        refused = self.sight.received.get("refused", 0)
        if refused:
            kinds = ", ".join(f"{slug} {count}" for slug, count in self.sight.refusals.items())
            self.faults.append(f"the receiver refused {refused} heartbeats: {kinds}")
        delivered = self.delivered
        if delivered.dropped:
            self.faults.append(f"{delivered.dropped} heartbeats were given up")
        if self.waits and delivered.waiting and not ended_early:
            self.faults.append(f"{delivered.waiting} heartbeats that were turned away have not come back")

    def document(self) -> dict[str, Any]:
        """Return the final line of `--json`."""
        return {
            "nodes": self.sight.states(),
            "heartbeats": dict(self.sight.received),
            "publish_failures": self.delivered.failures,
            "queues": self.agent.heartbeat.queue_depth if self.agent else {},
            "seconds": round(self.seconds, 1),
        }
