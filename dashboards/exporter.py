"""Exporter and plugins: which collector fails, where and of what; and what the exporter itself costs."""

from __future__ import annotations

from dashboards.board import Board
from dashboards.panels import ANY_IS_BAD, ANY_IS_WORTH_A_LOOK, graph, number, query, ranking, timeline
from dashboards.promql import (
    NODE,
    greatest,
    increase,
    max_by,
    quantile,
    rate,
    select,
    sum_by,
    total,
)

_COLLECTOR = "openclaw_plugin, openclaw_collector"
_COLLECTOR_LEGEND = "{{openclaw_plugin}} {{openclaw_collector}}"
_AGAINST_BUDGET = (
    f"{select('openclaw.collector.series', NODE)} / {select('openclaw.collector.series.limit', NODE)}"
)
# Receivers measure their own processes under the same names.
_OF_AGENTS = f"and on (service_instance_id) {select('openclaw.node.slots.withheld', NODE)}"
_CPU = f"max(sum by (service_instance_id) ({rate('process.cpu.time', NODE)} {_OF_AGENTS}))"
_MEMORY = f"max({select('process.memory.usage', NODE)} {_OF_AGENTS})"
_DESCRIPTORS = f"{select('process.unix.file_descriptor.count', NODE)} {_OF_AGENTS}"
_ISOLATED = 'error_type=~"exited|restarting|hung"'


def board() -> Board:
    """Return the dashboard."""
    made = (
        Board(
            "openclaw-exporter",
            "OpenClaw / Exporter and plugins",
            "The exporter itself: its collectors, their errors and budgets, the buffer, what it all costs.",
        )
        .places_of_agents()
        .nodes(several=True)
    )
    restarted = f"resets({select('process.uptime', NODE)}[2m]) > 0 {_OF_AGENTS}"
    made.annotate("Exporter restarts", restarted, "the exporter of {{host_name}} restarted", "blue")
    _now(made)
    _collectors(made)
    _cost(made)
    return made


def _now(made: Board) -> None:
    made.row(
        4,
        number(
            "Collectors that fail",
            f"count({select('openclaw.collector.healthy', NODE)} == 0) or vector(0)",
            description="Collectors of all chosen nodes whose last run failed. One whose plugin could not "
            "be loaded counts too.",
            unit="none",
            steps=ANY_IS_BAD,
        ),
        number(
            "Exporters",
            f"count({select('openclaw.node.slots.withheld', NODE)})",
            description="Agents that are heard of by metrics. Compare with the Fleet's nodes: the rest is "
            "heard of by heartbeat only.",
            unit="none",
        ),
        number(
            "Collector errors, 1 h",
            sum_by("", increase("openclaw.collector.errors", NODE, over="1h")),
            description="Failed collections and refused observations of the last hour.",
            unit="none",
            decimals=0,
            steps=ANY_IS_WORTH_A_LOOK,
        ),
        number(
            "Heartbeats waiting",
            total("openclaw.buffer.usage", NODE),
            description="In the buffers of all chosen nodes. It rises while the receiver is away and falls "
            "slowly afterwards.",
            unit="none",
            steps=ANY_IS_WORTH_A_LOOK,
        ),
        number(
            "Dropped, 1 h",
            sum_by("", increase("openclaw.buffer.dropped", NODE, over="1h")),
            description="Given up without having been delivered: history is lost, life is not.",
            unit="none",
            decimals=0,
            steps=ANY_IS_BAD,
        ),
        number(
            "Fullest series budget",
            max_by("", _AGAINST_BUDGET),
            description="Series of the collector that is nearest to its budget. Beyond it observations are "
            "refused.",
            unit="percentunit",
            steps=((None, "green"), (0.8, "yellow"), (1, "red")),
        ),
        number(
            "CPU, busiest",
            _CPU,
            description="Share of one core that the busiest exporter takes, without its isolated collectors.",
            unit="percentunit",
            steps=((None, "green"), (0.05, "yellow"), (0.25, "red")),
            decimals=2,
        ),
        number(
            "Memory, largest",
            _MEMORY,
            description="Resident memory of the largest exporter, without its isolated collectors.",
            unit="bytes",
            steps=((None, "green"), (150 * 2**20, "yellow"), (400 * 2**20, "red")),
        ),
    )


def _collectors(made: Board) -> None:
    since = f"time() - {select('openclaw.collector.last_success.timestamp', NODE)}"
    made.row(
        9,
        (
            14,
            timeline(
                "Collectors",
                f"min by ({_COLLECTOR}) ({select('openclaw.collector.healthy', NODE)})",
                _COLLECTOR_LEGEND,
                description="Red while the collector fails on at least one of the chosen nodes; choose "
                "nodes above to find which.",
                words={"0": ("failing", "red"), "1": ("healthy", "green")},
            ),
        ),
        (
            10,
            ranking(
                "Time since the last good run",
                f"sort_desc(max by ({_COLLECTOR}) ({since}))",
                _COLLECTOR_LEGEND,
                description="Of the node where it is longest. A collector without one has never succeeded. "
                "An alert comes after 300 s with errors.",
                unit="s",
                steps=((None, "green"), (120, "yellow"), (300, "red")),
            ),
        ),
    )
    made.row(
        7,
        graph(
            "Duration p95",
            query(quantile(0.95, "openclaw.collector.duration", NODE, by=_COLLECTOR), _COLLECTOR_LEGEND),
            description="How long a collection takes. At its deadline a collector is given up and skipped "
            "until it ends.",
            unit="s",
        ),
        graph(
            "Errors by type",
            query(
                f"sum by ({_COLLECTOR}, error_type) ({increase('openclaw.collector.errors', NODE)})",
                f"{_COLLECTOR_LEGEND} {{{{error_type}}}}",
            ),
            description="Failed collections by exception, missed deadlines, and observations that were "
            "refused (range, type, flood …).",
            unit="none",
            bars=True,
        ),
        graph(
            "Series against budget",
            query(
                max_by(_COLLECTOR, _AGAINST_BUDGET),
                _COLLECTOR_LEGEND,
            ),
            description="Series that each collector exports now, as a share of `series_budget`. The budget "
            "counts different series over the exporter's life, so leave room.",
            unit="percentunit",
            steps=((None, "transparent"), (1, "red")),
        ),
    )


def _cost(made: Board) -> None:
    made.section("What it costs")
    made.row(
        7,
        graph(
            "CPU",
            query(_CPU, "exporter"),
            query(
                f"max by ({_COLLECTOR}) ({rate('openclaw.collector.cpu.time', NODE)})",
                f"{_COLLECTOR_LEGEND} (isolated)",
            ),
            description="Share of one core, on the node where it is most: the exporter's process, and "
            "collectors in processes of their own.",
            unit="percentunit",
        ),
        graph(
            "Memory",
            query(_MEMORY, "exporter"),
            query(
                greatest("openclaw.collector.memory.usage", NODE, by=_COLLECTOR),
                f"{_COLLECTOR_LEGEND} (isolated)",
            ),
            description="Resident, on the node where it is most.",
            unit="bytes",
        ),
        graph(
            "File descriptors",
            query(f"max({_DESCRIPTORS})", "most"),
            query(f"quantile(0.5, {_DESCRIPTORS})", "median"),
            description="Open in one exporter's process. A steady climb is a leak, most likely in a plugin.",
            unit="none",
        ),
    )
    made.row(
        7,
        graph(
            "Restarts",
            query(
                f"sum(resets({select('process.uptime', NODE)}[$__rate_interval]) {_OF_AGENTS})",
                "exporters",
            ),
            query(
                f"sum by ({_COLLECTOR}) ({increase('openclaw.collector.errors', NODE, _ISOLATED)})",
                f"{_COLLECTOR_LEGEND} (isolated)",
            ),
            description="Restarts of exporters, and runs that isolated collectors lost because their "
            "process ended, hung or was being started again.",
            unit="none",
            bars=True,
        ),
        graph(
            "Buffer, as a share of its limit",
            query(
                f"max({select('openclaw.buffer.usage', NODE)} / {select('openclaw.buffer.limit', NODE)})",
                "fullest",
            ),
            query(
                f"{total('openclaw.buffer.usage', NODE)} / {total('openclaw.buffer.limit', NODE)}",
                "all nodes",
            ),
            description="Heartbeats that wait for a receiver. At 1 the oldest are dropped.",
            unit="percentunit",
            most=1,
            steps=((None, "transparent"), (0.9, "red")),
        ),
        graph(
            "Heartbeats dropped by reason",
            query(
                f"sum by (reason) (label_replace({increase('openclaw.buffer.dropped', NODE)}, "
                '"reason", "none", "reason", ""))',
                "{{reason}}",
            ),
            description="`overflow`: the buffer was full. `refused`: the receiver will never take it. "
            "`disk`: it could not be kept.",
            unit="none",
            bars=True,
        ),
    )
