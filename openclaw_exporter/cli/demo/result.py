"""What came of the demo."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from openclaw_exporter.cli.demo.watch import Sight

if TYPE_CHECKING:
    from openclaw_exporter.client.nodes import Node


@dataclass(slots=True)
class Result:
    """The end of a demo.

    Attributes:
        seconds: How long heartbeats were published.
        sight: What was last to be seen.
        agent_id: The real node's id.
        neighbour_failures: Failed publish attempts of the neighbours.
        faults: Why the demo has not shown what it should, in words; empty where it has.
    """

    seconds: float
    sight: Sight
    agent_id: str
    neighbour_failures: int
    faults: list[str] = field(default_factory=list)

    @property
    def agent(self) -> Node | None:
        """The real agent's node; None where the registry does not know it."""
        return self.sight.node(self.agent_id)

    @property
    def agent_is_up(self) -> bool:
        """Whether the registry says that the real agent is up."""
        return self.agent is not None and self.agent.state == "up"

    def judge(self) -> None:
        """Add what the last sight says against the demo."""
        if self.agent is None:
            self.faults.append("the registry does not know the real agent")
        elif not self.agent_is_up:
            self.faults.append(f"the real agent is {self.agent.state}: {self.agent.reason}")
        refused = self.sight.received.get("refused", 0)
        if refused:
            self.faults.append(f"the receiver refused {refused} heartbeats")

    def document(self) -> dict[str, Any]:
        """Return the final line of `--json`."""
        return {
            "nodes": self.sight.states(),
            "heartbeats": dict(self.sight.received),
            "publish_failures": self.neighbour_failures + (self.sight.failures or 0),
            "queues": self.agent.heartbeat.queue_depth if self.agent else {},
            "seconds": round(self.seconds, 1),
        }
