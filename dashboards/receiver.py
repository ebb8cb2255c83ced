"""Receiver: what arrives, how it is answered, and whether the registry keeps up."""

from __future__ import annotations

from dashboards.board import Board
from dashboards.panels import STATE_COLOURS, graph, heat_map, number, query, ranking, timeline
from dashboards.promql import (
    JOB,
    RANGE,
    buckets,
    greatest,
    increase,
    max_by,
    quantile,
    rate,
    select,
    shared,
    sum_by,
)

_REQUESTS = "http.server.request.duration"
_COUNTED = "http_server_request_duration_seconds_count"
_BY_RECEIVER = "service_instance_id"
_RECEIVER_LEGEND = "{{service_instance_id}}"
_NOTHING = 'label_replace(vector(0), "error_type", "none", "", "")'
_HEARTBEATS = 'http_route="/openclaw/availability"'
_OURS = f"and on (service_instance_id) {select('openclaw.registry.loop.lag', JOB)}"
"""Keeps process metrics to those of receivers: agents have the same."""


def board() -> Board:
    """Return the dashboard."""
    made = Board(
        "openclaw-receiver",
        "OpenClaw / Receiver",
        "The receivers of the registry: requests, refusals, latency, the store, and what they cost.",
    )
    made.mark_receiver_restarts()
    expired = increase("openclaw.registry.node.expired", JOB)
    made.annotate("Expiries", f"{sum_by('', expired)} >= 1", "nodes expired", "red")
    _now(made)
    _requests(made)
    _registry(made)
    _process(made)
    return made


def _now(made: Board) -> None:
    refused = sum_by("", rate("openclaw.registry.heartbeat.refused", JOB))
    received = sum_by("", rate("openclaw.registry.heartbeat.received", JOB))
    made.row(
        4,
        number(
            "Receivers",
            f"count({select('openclaw.registry.loop.lag', JOB)}) or vector(0)",
            description="Receivers whose metrics arrive.",
            unit="none",
            steps=((None, "red"), (1, "green")),
        ),
        number(
            "Heartbeats",
            received,
            description="Heartbeats a second that were answered 200.",
            unit="reqps",
            decimals=1,
        ),
        number(
            "Refused",
            f"{refused} / clamp_min({refused} + {received}, 1e-9)",
            description="Share of heartbeats that were refused. Look below for the causes.",
            unit="percentunit",
            steps=((None, "green"), (0.005, "yellow"), (0.05, "red")),
        ),
        number(
            "Answered within, p99",
            quantile(0.99, _REQUESTS, JOB, _HEARTBEATS),
            description="99 of 100 heartbeats are answered within this time, commit included.",
            unit="s",
            steps=((None, "green"), (0.5, "yellow"), (2.5, "red")),
        ),
        number(
            "Store, p99",
            quantile(0.99, "openclaw.registry.store.duration", JOB),
            description="One operation of the store. An alert comes at 0.5 s.",
            unit="s",
            steps=((None, "green"), (0.1, "yellow"), (0.5, "red")),
        ),
        number(
            "Loop lag",
            greatest("openclaw.registry.loop.lag", JOB),
            description="How late the receiver's own loop ran, at worst within 15 s. From 1 s on it is "
            "overloaded; beyond 5 s listening time stops, so that nobody expires for it.",
            unit="s",
            steps=((None, "green"), (0.25, "yellow"), (1, "red")),
        ),
        number(
            "Memory",
            f"max({select('process.memory.usage', JOB)} {_OURS})",
            description="Resident memory of the largest receiver.",
            unit="bytes",
        ),
        number(
            "Expiry brake",
            greatest("openclaw.registry.expiry.held", JOB),
            description="Held: so many nodes went silent at once that the receiver doubts itself and lets "
            "none expire yet.",
            unit="none",
            steps=((None, "green"), (1, "red")),
            words={"0": ("free", "green"), "1": ("held", "red")},
        ),
    )


def _requests(made: Board) -> None:
    refused = increase("openclaw.registry.heartbeat.refused", JOB, over=RANGE)
    made.row(
        8,
        graph(
            "Requests by status",
            query(
                f"sum by (http_response_status_code) (rate({_COUNTED}{{{JOB}}}[$__rate_interval]))",
                "{{http_response_status_code}}",
            ),
            description="Everything that the API answered. 4xx is the publisher's fault (credentials, "
            "clocks, fields), 5xx the receiver's.",
            unit="reqps",
            stacked=True,
        ),
        graph(
            "Heartbeats by result",
            query(
                sum_by("openclaw_result", rate("openclaw.registry.heartbeat.received", JOB)),
                "{{openclaw_result}}",
            ),
            query(sum_by("", rate("openclaw.registry.heartbeat.refused", JOB)), "refused"),
            description="Recorded: proof of life. History: buffered and delivered late. Duplicate: sent "
            "again after a lost answer.",
            unit="reqps",
            stacked=True,
            colours={"recorded": "green", "history": "blue", "duplicate": "yellow", "refused": "red"},
        ),
        ranking(
            "Refusals by cause",
            f"sort_desc(topk(10, {sum_by('error_type', refused)} > 0)) or on () {_NOTHING}",
            "{{error_type}}",
            description="The ten commonest causes within the chosen time. docs/wire.md says what each means.",
            unit="none",
            steps=((None, "green"), (1, "orange")),
        ),
    )
    made.row(
        7,
        graph(
            "Time to answer a heartbeat",
            *(
                query(quantile(share, _REQUESTS, JOB, _HEARTBEATS), f"p{share * 100:g}")
                for share in (0.5, 0.95, 0.99)
            ),
            description="From the request's head to the answer, which waits for the commit.",
            unit="s",
        ),
        graph(
            "Time to answer, p95 by route",
            query(quantile(0.95, _REQUESTS, JOB, by="http_route"), "{{http_route}}"),
            description="Reading calls next to heartbeats; a slow reader should never slow the writers down.",
            unit="s",
        ),
        graph(
            "Store, p99 by operation",
            query(
                quantile(0.99, "openclaw.registry.store.duration", JOB, by="db_operation_name"),
                "{{db_operation_name}}",
            ),
            description="One commit carries all heartbeats that arrived during the one before.",
            unit="s",
            steps=((None, "transparent"), (0.5, "red")),
        ),
    )


def _registry(made: Board) -> None:
    made.section("Registry")
    state = "openclaw_node_state"
    made.row(
        7,
        graph(
            "Nodes by state",
            query(shared("openclaw.registry.node.count", JOB, by=state), "{{openclaw_node_state}}"),
            description="The whole registry, as every receiver tells it.",
            unit="none",
            stacked=True,
            colours=STATE_COLOURS,
        ),
        timeline(
            "Expiry brake",
            max_by(_BY_RECEIVER, select("openclaw.registry.expiry.held", JOB)),
            _RECEIVER_LEGEND,
            description="Red while expiries are held back.",
            words={"0": ("free", "green"), "1": ("held", "red")},
        ),
        heat_map(
            "Clock skew of nodes",
            buckets("openclaw.registry.heartbeat.skew", JOB),
            description="Absolute difference between a heartbeat's time and the receiver's clock. Tokens "
            "need 30 s.",
            unit="s",
        ),
    )


def _process(made: Board) -> None:
    made.section("Process")
    made.row(
        7,
        graph(
            "Loop lag",
            query(max_by(_BY_RECEIVER, select("openclaw.registry.loop.lag", JOB)), _RECEIVER_LEGEND),
            description="How late each receiver's own loop ran, at worst within 15 s.",
            unit="s",
            steps=((None, "transparent"), (1, "red")),
        ),
        graph(
            "CPU",
            query(
                f"sum by ({_BY_RECEIVER}) ({rate('process.cpu.time', JOB)} {_OURS})",
                _RECEIVER_LEGEND,
            ),
            description="Share of one core. Near 1 a receiver is at its end, whatever the machine has.",
            unit="percentunit",
            steps=((None, "transparent"), (0.9, "red")),
        ),
        graph(
            "Memory",
            query(
                f"max by ({_BY_RECEIVER}) ({select('process.memory.usage', JOB)} {_OURS})", _RECEIVER_LEGEND
            ),
            description="Resident memory. It grows with connections (about 50 KiB each) and nodes, and then "
            "stays.",
            unit="bytes",
        ),
        graph(
            "File descriptors",
            query(
                f"max by ({_BY_RECEIVER}) ({select('process.unix.file_descriptor.count', JOB)} {_OURS})",
                _RECEIVER_LEGEND,
            ),
            description="About one for each connection; compare with the process's limit.",
            unit="none",
        ),
    )
