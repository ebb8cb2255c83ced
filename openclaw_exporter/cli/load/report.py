"""What came of a load test, for people and for scripts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from openclaw_exporter.cli.load.plan import Plan
from openclaw_exporter.cli.load.processes import Used
from openclaw_exporter.cli.load.tally import Tally

PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9)
_LATE: Final = 1.0
"""Seconds by which the load test may be late before its figures are doubtful."""


@dataclass(frozen=True, slots=True)
class Report:
    """The end of a load test.

    Attributes:
        plan: What was done.
        tally: What happened.
        seconds: How long it took, certificates and good-byes included.
        before: What the receiver's processes had used before; None: not measured.
        after: And after.
        deaths: Which of its own processes have died, and how; the others ended early for it.
    """

    plan: Plan
    tally: Tally
    seconds: float
    before: Used | None
    after: Used | None
    deaths: list[str] = field(default_factory=list)

    @property
    def cpu_seconds(self) -> float | None:
        """The receiver's CPU in all."""
        return None if self.before is None or self.after is None else self.after.cpu - self.before.cpu

    @property
    def cpu_microseconds(self) -> float | None:
        """The receiver's CPU for each request that it answered."""
        answered = self.tally.accepted.total() + self.tally.refused.total()
        cpu = self.cpu_seconds
        return None if cpu is None or not answered else 1e6 * cpu / answered

    def faults(self) -> list[str]:
        """Return what speaks against the receiver, and against the load test itself."""
        tally = self.tally
        found = {
            f"{tally.lost} acknowledged heartbeats are not in the registry": tally.lost,
            f"{tally.twice} heartbeats are in the registry twice": tally.twice,
            f"{tally.false_expiries} nodes expired though they had been heard": tally.false_expiries,
            "nothing was accepted": not tally.accepted.total(),
        }
        listed = [f"{death}: the load test ended early, without its nodes" for death in self.deaths]
        listed += [text for text, count in found.items() if count]
        listed += [
            f"{count} requests were answered {status}" for status, count in sorted(tally.refused.items())
        ]
        listed += [f"{count} got no answer: {kind}" for kind, count in sorted(tally.unanswered.items())]
        return listed

    def document(self) -> dict[str, Any]:
        """Return all of it for scripts."""
        tally, plan = self.tally, self.plan
        milliseconds = {f"p{percent:g}": _ms(tally.latencies.percentile(percent)) for percent in PERCENTILES}
        return {
            "endpoint": plan.endpoint,
            "nodes": plan.nodes,
            "interval": plan.interval,
            "processes": plan.processes,
            "connections": "kept" if plan.keep_alive else "new",
            "seconds": round(self.seconds, 1),
            "nodes_seen": tally.nodes,
            "requests": tally.sent,
            "accepted": dict(tally.accepted),
            "refused": dict(tally.refused),
            "unanswered": dict(tally.unanswered),
            "cut_off": tally.cut_off,
            "connections_opened": tally.connections,
            "latency_ms": milliseconds,
            "checked": tally.checked,
            "lost": tally.lost,
            "stored_twice": tally.twice,
            "duplicates": tally.accepted.get("duplicate", 0),
            "waiting": tally.waiting,
            "dropped": tally.dropped,
            "expiries": tally.expiries,
            "false_expiries": tally.false_expiries,
            "receiver_cpu_seconds": _rounded(self.cpu_seconds, 2),
            "receiver_cpu_microseconds_per_request": _rounded(self.cpu_microseconds, 1),
            "receiver_memory_bytes": None if self.after is None else self.after.memory,
            "generator_late_seconds": round(tally.late, 3),
            "faults": self.faults(),
        }

    def lines(self) -> list[str]:
        """Return all of it for people."""
        tally, plan = self.tally, self.plan
        rate = plan.nodes / plan.interval
        kept = "kept connections" if plan.keep_alive else "a new connection each time"
        percentiles = {percent: _ms(tally.latencies.percentile(percent)) for percent in PERCENTILES}
        latency = ", ".join(
            f"p{percent:g} {found} ms" for percent, found in percentiles.items() if found is not None
        )
        found = [
            f"{plan.nodes} nodes at {plan.interval} s ({rate:.1f} a second) for {self.seconds:.0f} s, {kept}",
            f"  requests        {tally.sent}: " + _listed(tally.accepted | tally.refused | tally.unanswered),
            f"  latency         {latency or 'unknown'}",
            f"  lost            {tally.lost} of {tally.checked} acknowledged; {tally.twice} stored twice",
            f"  expiries        {tally.expiries}, of them false {tally.false_expiries}",
            f"  left over       {tally.waiting} heartbeats waiting, {tally.dropped} given up",
            f"  connections     {tally.connections} opened, {tally.cut_off} attempts cut off by the test",
        ]
        if self.cpu_seconds is not None and self.after is not None:
            each = "" if self.cpu_microseconds is None else f", {self.cpu_microseconds:.0f} µs a request"
            memory = self.after.memory / 2**20
            found.append(f"  receiver        {self.cpu_seconds:.2f} s of CPU{each}; {memory:.0f} MiB")
        if tally.late > _LATE:
            found.append(
                f"  The load test itself was up to {tally.late:.1f} s late: fewer nodes or more processes "
                "would say more of the receiver."
            )
        return found


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) or "none"


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000 * seconds, 1)


def _rounded(number: float | None, digits: int) -> float | None:
    return None if number is None else round(number, digits)
