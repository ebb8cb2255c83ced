"""What a collector's thread runs: the collector itself, or the child process that it lives in."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from openclaw_exporter.plugin import Collector
    from openclaw_exporter.plugin.guard import Checked, Guard


class Cost(NamedTuple):
    """What a collector in a process of its own costs.

    Attributes:
        cpu_seconds: CPU time so far, over all its processes.
        memory_bytes: Resident memory of the present one.
    """

    cpu_seconds: float
    memory_bytes: int


class Source(Protocol):
    """Where one collector's observations come from."""

    def run(self) -> Checked:
        """Collect once.

        Raises:
            BaseException: Whatever the collector raises.
        """
        ...

    def cost(self) -> Cost | None:
        """Return what it costs, where that can be told."""
        ...

    def cancel(self) -> None:
        """End what another thread runs, where that is possible; never block."""
        ...

    def close(self) -> None:
        """Free what it holds. Called by the thread that ran it."""
        ...


class ThreadSource:
    """A collector that runs in a thread of the agent."""

    def __init__(self, collector: Collector, guard: Guard) -> None:
        self._collector = collector
        self._guard = guard

    def run(self) -> Checked:
        """Collect once."""
        return self._guard.check(self._collector.collect())

    def cost(self) -> None:
        """Not to be told apart from the agent's own."""
        return

    def cancel(self) -> None:
        """Nothing can end a thread."""

    def close(self) -> None:
        """Close the collector, where it can be closed."""
        close = getattr(self._collector, "close", None)
        if callable(close):
            close()
