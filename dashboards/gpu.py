"""GPU: what the fleet's GPUs do, how they are, and which idle while work waits."""

from __future__ import annotations

from dashboards.board import Board
from dashboards.panels import ANY_IS_BAD, graph, number, query, ranking
from dashboards.promql import (
    NODE,
    either,
    greatest,
    increase,
    name_of,
    rate,
    select,
    sum_by,
    total,
)

_GPU = 'hw_type="gpu"'
_CARD = "host_name, hw_name"
_CARD_LEGEND = "{{host_name}} {{hw_name}}"
# By OTLP the unit 1 of a gauge becomes the end `_ratio` of its name; on our own /metrics it does not.
_PLAIN = select("hw.gpu.utilization", NODE)
_BUSY = f"({_PLAIN.replace(name_of('hw.gpu.utilization'), 'hw_gpu_utilization_ratio', 1)} or {_PLAIN})"
_LIMIT = select("hw.gpu.memory.limit", NODE)
_USED = select("hw.gpu.memory.usage", NODE)
_COUNT = total("openclaw.node.capacity", NODE, 'openclaw_resource="gpus"')
_HOT = select("hw.temperature", NODE, _GPU)
_SEEN = either(_LIMIT, _HOT)  # not every driver tells of both
_IDLE = f"max by (service_instance_id, hw_id) ({_BUSY}) < 0.05"
_UNCORRECTED = 'error_type=~"uncorrected|xid"'


def board() -> Board:
    """Return the dashboard."""
    made = (
        Board(
            "openclaw-gpu",
            "OpenClaw / GPU",
            "GPUs of the chosen nodes, by the gpu plugin (NVIDIA, AMD, Intel). Empty where no node has one.",
        )
        .places_of_agents()
        .nodes(several=True)
    )
    bad = f"sum by ({_CARD}, error_type) ({increase('hw.errors', NODE, _GPU, _UNCORRECTED)}) >= 1"
    made.annotate("Uncorrected errors", bad, "{{error_type}} error of {{host_name}} {{hw_name}}", "red")
    _now(made)
    _cards(made)
    return made


def _now(made: Board) -> None:
    waiting = _waiting()
    made.row(
        4,
        number(
            "GPUs",
            f"{_COUNT} or vector(0)",
            description="GPUs that the chosen nodes have, as their heartbeats say. Fewer than before is a "
            "card that fell off its bus.",
            unit="none",
        ),
        number(
            "Uncorrected, 1 h",
            f"{sum_by('', increase('hw.errors', NODE, _GPU, _UNCORRECTED, over='1h'))} or vector(0)",
            description="Memory errors that could not be corrected, and NVIDIA's Xid events. Any is a "
            "reason to drain the node.",
            unit="none",
            decimals=0,
            steps=ANY_IS_BAD,
        ),
        number(
            "Hottest",
            f"max({_HOT})",
            description="The highest temperature of any sensor of any GPU. An alert comes above 90 °C.",
            unit="celsius",
            steps=((None, "green"), (80, "yellow"), (90, "red")),
        ),
        number(
            "Utilisation",
            f"avg({_BUSY})",
            description="Mean share of time in which a GPU was busy.",
            unit="percentunit",
            decimals=0,
        ),
        number(
            "Memory in use",
            f"sum({_USED}) / sum({_LIMIT})",
            description="Of all GPUs' memory together.",
            unit="percentunit",
            decimals=0,
            steps=((None, "green"), (0.95, "yellow")),
        ),
        number(
            "Power",
            total("hw.power", NODE, _GPU),
            description="What all GPUs draw together.",
            unit="watt",
        ),
        number(
            "Idle while work waits",
            f"(count({_IDLE}) or vector(0)) and on () (sum({waiting}) > 0) or vector(0)",
            description="GPUs below 5 % utilisation while messages wait: work does not reach them. Look at "
            "Capacity on the Node dashboard, then at the workers.",
            unit="none",
            steps=((None, "green"), (1, "yellow")),
        ),
        number(
            "Queued messages",
            f"sum({waiting}) or vector(0)",
            description="Messages that wait in the queues that the chosen nodes read; shared queues count "
            "once.",
            unit="none",
        ),
    )


def _cards(made: Board) -> None:
    made.row(
        8,
        graph(
            "Utilisation by GPU",
            query(f"max by ({_CARD}) ({_BUSY})", _CARD_LEGEND),
            description="Share of time in which each GPU was busy with a task.",
            unit="percentunit",
            most=1,
        ),
        graph(
            "Idle GPUs against queued messages",
            query(f"count({_IDLE}) or vector(0)", "idle GPUs"),
            query(f"sum({_waiting()}) or vector(0)", "queued messages"),
            description="Both above 0 for long is capacity that is paid for and not used.",
            unit="none",
            colours={"idle GPUs": "yellow", "queued messages": "orange"},
        ),
    )
    made.row(
        7,
        graph(
            "Memory used, as a share of its limit",
            query(f"max by ({_CARD}) ({_USED} / {_LIMIT})", _CARD_LEGEND),
            description="Of each GPU. Flat at 1 for long, batches are near to failing for want of memory.",
            unit="percentunit",
            most=1,
        ),
        graph(
            "Temperature",
            query(f"max by ({_CARD}) ({_HOT})", _CARD_LEGEND),
            description="The hottest sensor of each GPU. Cards slow themselves down from about 85 to 95 °C "
            "on.",
            unit="celsius",
            least=None,
            steps=((None, "transparent"), (90, "red")),
        ),
        graph(
            "Power",
            query(greatest("hw.power", NODE, _GPU, by=_CARD), _CARD_LEGEND),
            description="What each GPU draws.",
            unit="watt",
        ),
    )
    made.row(
        7,
        ranking(
            "GPUs by model",
            f"sort_desc(count by (hw_model) (count by (hw_model, service_instance_id, hw_id) ({_SEEN})))",
            "{{hw_model}}",
            description="How many of each model the chosen nodes have.",
            unit="none",
            steps=((None, "blue"),),
        ),
        graph(
            "Mean power, by energy meter",
            query(f"max by ({_CARD}) ({rate('hw.energy', NODE, _GPU)})", _CARD_LEGEND),
            description="Energy used per second, from the card's own meter, where it has one: what it drew "
            "on average, spikes between two readings of its power included.",
            unit="watt",
        ),
        graph(
            "Errors by type",
            query(
                f"sum by ({_CARD}, error_type) ({increase('hw.errors', NODE, _GPU)})",
                f"{_CARD_LEGEND} {{{{error_type}}}}",
            ),
            description="Corrected errors are normal in small numbers; a rise of them on one card often "
            "comes before uncorrected ones.",
            unit="none",
            bars=True,
        ),
    )


def _waiting() -> str:
    """Return what waits in each topic; nodes share queues."""
    return f"max by (messaging_destination_name) ({select('openclaw.node.queue.depth', NODE)})"
