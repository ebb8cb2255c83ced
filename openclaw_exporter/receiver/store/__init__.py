"""The seam between the receiver and what keeps its registry.

The protocol speaks of whole registry operations, each atomic, and not of rows: a store may keep the registry
in this process and log it to a file (`embedded`), or keep it in an engine that many receivers share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable

    from openclaw_exporter.receiver.brake import Held
    from openclaw_exporter.receiver.census import Census
    from openclaw_exporter.receiver.listening import Moment
    from openclaw_exporter.receiver.liveness import Arrival, Event, NodeState, Outcome
    from openclaw_exporter.receiver.query import NodeView, Query
    from openclaw_exporter.receiver.registry import KeyRow


class Page(NamedTuple):
    """Some nodes, and where the next ones begin.

    Attributes:
        nodes: In the order that was asked for.
        after: The node_id after which the next page begins; None: there is none.
    """

    nodes: list[NodeView]
    after: str | None


class Observer(Protocol):
    """Who wants to know what happens in a store. Called in the event loop; must be quick."""

    def happened(self, event: Event, state: NodeState) -> None:
        """Something happened to a node, and is stored. A forgotten node comes with its last state."""

    def heard(self, gap: float | None, skew_ms: int) -> None:
        """A live heartbeat is stored; gap: seconds since the node's last one, if it was live."""

    def timed(self, operation: str, seconds: float) -> None:
        """An operation of the store has ended."""

    @property
    def wants_updates(self) -> bool:
        """Whether `updated` is to be called."""

    def updated(self, state: NodeState) -> None:
        """A live heartbeat is stored that changed a node's current heartbeat and nothing else."""


class Recorder(Protocol):
    """What records heartbeats: a `Store`, or the way to one in another process."""

    def shed(self) -> None:
        """Note that a heartbeat or connection was turned away: such time is no listening time."""

    def submit(self, arrival: Arrival, done: Callable[[Outcome | None], None]) -> None:
        """Record an arrival.

        Args:
            arrival: What was let in.
            done: Called once in the event loop, with the outcome when it is stored, or with None where the
                store was lost meanwhile. It must be quick and must not raise.

        Raises:
            StoreUnavailableError: The store cannot be reached; nothing is recorded.
            SheddingError: There is no room.
        """

    def record(self, arrival: Arrival) -> asyncio.Future[Outcome]:
        """Record an arrival. The future is done when the outcome is stored.

        Raises:
            StoreUnavailableError: At once, or by the future; nothing was recorded then.
            SheddingError: At once: there is no room.
        """


class Store(Recorder, Protocol):
    """A registry that survives the process.

    `record`, `node`, `page` and `history` raise `StoreUnavailableError` where the store cannot be reached.
    """

    system: str
    """The store's name by the semantic conventions (`db.system.name`)."""

    @property
    def available(self) -> bool:
        """Whether the store can be reached, as far as is known."""

    async def open(self) -> None:
        """Begin; listening time goes on from where it was stored.

        Raises:
            StateError: The store cannot be used.
        """

    async def close(self) -> None:
        """Store what waits, and end."""

    def tick(self) -> None:
        """Let time pass: called at least four times a second."""

    async def node(self, node_id: str) -> NodeView | None:
        """Return one node, or None."""

    async def page(self, query: Query) -> Page:
        """Return the nodes that a query asks for."""

    def scan(self, query: Query) -> AsyncIterator[list[NodeState]]:
        """Return all nodes that a query asks for, whatever its limit, in no order.

        They come in slices between which the event loop goes on, and which may be empty.
        """

    def moment(self) -> Moment:
        """Return the present moment of the listening clock. Called in the event loop."""

    async def history(self, node_id: str) -> list[KeyRow]:
        """Return what arrived from a node in the last hour, oldest first."""

    def held(self) -> Held:
        """Return what the brake on mass expiry holds now. Called in the event loop."""

    def census(self) -> Census | None:
        """Count the registry; up to a second old. Safe to call from any thread.

        None: another receiver of the same store does.
        """
