"""Fleet: is the swarm well, and if not, since when, where and of what."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dashboards.board import Board
from dashboards.panels import (
    ANY_IS_BAD,
    ANY_IS_WORTH_A_LOOK,
    STATE_COLOURS,
    graph,
    heat_map,
    number,
    query,
    ranking,
    timeline,
)
from dashboards.promql import (
    AGENTS,
    JOB,
    REGIONS,
    REGISTRY,
    buckets,
    either,
    increase,
    max_by,
    quantile,
    rate,
    select,
    shared,
    sum_by,
)

if TYPE_CHECKING:
    from dashboards.panels import Panel, Steps

_STATE = "openclaw_node_state"
_REGION = "openclaw_node_region"
_TOPIC = "messaging_destination_name"
_RECORDED = f'{JOB}, deployment_environment_name=~"$environment"'
_BUDGET = 0.005  # 99.5 % of publishes over 30 days

_SUCCEEDED = sum_by("", rate("openclaw.publish.success_total", AGENTS))
_FAILED = sum_by("", rate("openclaw.publish.failure_total", AGENTS))
_FREE = shared("openclaw.registry.capacity", REGIONS, 'openclaw_resource="available_slots"')
_QUEUED = shared("openclaw.registry.queue.depth", REGIONS)


def board() -> Board:
    """Return the dashboard."""
    made = Board(
        "openclaw-fleet",
        "OpenClaw / Fleet",
        "The swarm as a whole: nodes by state, expiries, publishing, work against capacity.",
    ).places_of_nodes()
    expired = increase("openclaw.registry.node.expired", REGISTRY)
    made.annotate(
        "Expiries", f"{sum_by(_REGION, expired)} >= 1", "nodes expired in {{openclaw_node_region}}", "red"
    )
    made.mark_receiver_restarts()
    _now(made)
    _nodes(made)
    _publishing(made)
    _work(made)
    _population(made)
    return made


def _now(made: Board) -> None:
    made.row(
        4,
        _nodes_that_are(
            "up", "Up", "Nodes heard within 1.5 of their intervals.", ((None, "red"), (1, "green"))
        ),
        _nodes_that_are(
            "late", "Late", "Not heard for 1.5 intervals; after 2 a node expires.", ANY_IS_WORTH_A_LOOK
        ),
        _nodes_that_are(
            "expired", "Expired", "Not heard for 2 intervals, and not yet forgotten.", ANY_IS_WORTH_A_LOOK
        ),
        _nodes_that_are(
            "draining", "Draining", "Said that they leave. They offer no capacity.", ((None, "blue"),)
        ),
        number(
            "Expiries, last hour",
            sum_by("", increase("openclaw.registry.node.expired", REGISTRY, over="1h")),
            description="Nodes that went silent within the last hour. Each is counted once, whoever saw it.",
            unit="none",
            decimals=0,
            steps=ANY_IS_BAD,
        ),
        number(
            "Publish success",
            f"{_SUCCEEDED} / ({_SUCCEEDED} + {_FAILED})",
            description="Share of publish attempts that were answered 2xx. The objective is 99.5 %.",
            unit="percentunit",
            steps=((None, "red"), (0.99, "yellow"), (1 - _BUDGET, "green")),
        ),
        number(
            "Error budget, 30 d",
            f"1 - {_over_30_days('failures')} / {_over_30_days('attempts')} / {_BUDGET}",
            description="What is left of the 0.5 % of publishes that may fail in 30 days; below 0 the "
            "objective is missed. Needs the recording rules, and is not told by region.",
            unit="percentunit",
            steps=((None, "red"), (0.1, "orange"), (0.5, "green")),
            instant=True,
        ),
        number(
            "Queued per free slot",
            f"{_QUEUED} / clamp_min({_FREE}, 1)",
            description="Messages that wait, for each slot that is free. Above 1 for long, capacity is "
            "short.",
            unit="short",
            decimals=1,
            steps=((None, "green"), (1, "yellow"), (10, "red")),
        ),
    )


def _over_30_days(what: str) -> str:
    return f"sum(sum_over_time(environment:openclaw_publish_{what}:rate5m{{{_RECORDED}}}[30d]))"


def _nodes_that_are(state: str, title: str, description: str, steps: Steps) -> Panel:
    return number(
        title,
        shared("openclaw.registry.node.count", REGISTRY, f'{_STATE}="{state}"'),
        description=description,
        unit="none",
        steps=steps,
    )


def _nodes(made: Board) -> None:
    acknowledged = select("openclaw.publish.last_success.timestamp", AGENTS)
    made.row(
        8,
        graph(
            "Nodes by state",
            query(shared("openclaw.registry.node.count", REGISTRY, by=_STATE), "{{openclaw_node_state}}"),
            description="Every node that the registry remembers. A dip of `up` with a rise of `late` comes "
            "before expiries; all nodes late at once speaks for the receiver or the network, "
            "not for the nodes.",
            unit="none",
            stacked=True,
            colours=STATE_COLOURS,
        ),
        graph(
            "Publish failures by cause",
            query(
                f"sum by (error_type) (label_replace({rate('openclaw.publish.failure_total', AGENTS)}, "
                '"error_type", "none", "error_type", ""))',
                "{{error_type}}",
            ),
            description="Publish attempts that failed, as agents count them: `connection`, `timeout` and "
            "5xx are the receiver or the way to it, 401 and 403 credentials, 409 two processes "
            "with one identity.",
            unit="reqps",
            stacked=True,
        ),
    )
    made.row(
        7,
        graph(
            "Expiries and returns by region",
            query(
                sum_by(_REGION, increase("openclaw.registry.node.expired", REGISTRY)),
                "expired {{openclaw_node_region}}",
            ),
            query(
                f"-1 * {sum_by(_REGION, increase('openclaw.registry.node.returned', REGISTRY))}",
                "returned {{openclaw_node_region}}",
            ),
            description="Up: nodes that went silent. Down: nodes that came back.",
            unit="none",
            bars=True,
            least=None,
        ),
        graph(
            "Longest silence by region",
            query(
                max_by(_REGION, select("openclaw.registry.node.silence", REGIONS)), "{{openclaw_node_region}}"
            ),
            description="The longest time since a live node's last heartbeat, in listening time. It swings "
            "between 0 and one interval; a region that climbs further is about to lose nodes.",
            unit="s",
        ),
        ranking(
            "Longest without an acknowledgement",
            f"topk(10, max by (host_name, service_instance_id) (time() - {acknowledged}))",
            "{{host_name}}",
            description="The nodes whose last acknowledged heartbeat is oldest, of those that still tell "
            "metrics. A click leads to the node.",
            unit="s",
            steps=((None, "green"), (120, "yellow"), (240, "red")),
            to_node=True,
        ),
        timeline(
            "Expiry brake",
            max_by("job", select("openclaw.registry.expiry.held", JOB)),
            "{{job}}",
            description="Red while the receiver holds expiries back, because so many nodes went silent at "
            "once that the fault is more likely on its own side.",
            words={"0": ("free", "green"), "1": ("held", "red")},
        ),
    )


def _publishing(made: Board) -> None:
    made.section("Publishing")
    latency = "openclaw.latency_seconds"
    made.row(
        7,
        graph(
            "Publish latency",
            *(query(quantile(share, latency, AGENTS), f"p{share * 100:g}") for share in (0.5, 0.95, 0.99)),
            description="One attempt, from connecting to the answer, of attempts that were answered. An "
            "alert comes at a p99 of 2.5 s.",
            unit="s",
            steps=((None, "transparent"), (2.5, "red")),
        ),
        graph(
            "Publishes by result",
            query(_SUCCEEDED, "succeeded"),
            query(_FAILED, "failed"),
            description="Publish attempts of all chosen nodes, retries included.",
            unit="reqps",
            stacked=True,
            colours={"succeeded": "green", "failed": "red"},
        ),
        heat_map(
            "Time between heartbeats",
            buckets("openclaw.registry.heartbeat.interval", JOB),
            description="Between two live heartbeats of one node, as receivers see them. One dark band for "
            "each interval that nodes are configured with is health; smears above it are beats "
            "that were lost or late.",
            unit="s",
        ),
    )


def _work(made: Board) -> None:
    made.section("Work")
    age = max_by(_TOPIC, select("openclaw.node.queue.oldest_message.age", AGENTS))
    empty = f"{max_by(_TOPIC, select('openclaw.node.queue.depth', AGENTS))} == 0"
    made.row(
        7,
        graph(
            "Capacity against queue depth",
            query(_FREE, "free slots"),
            query(
                shared("openclaw.registry.capacity", REGIONS, 'openclaw_resource="workers"'),
                "workers (limit)",
            ),
            query(_QUEUED, "queued"),
            description="What live nodes can take on, and what waits. Queues are shared: of each the "
            "greatest depth that a node of the swarm tells counts once.",
            unit="none",
            colours={"free slots": "green", "queued": "orange"},
            dashed=".*limit.*",
        ),
        graph(
            "Queue depth by topic",
            query(
                shared("openclaw.registry.queue.depth", REGIONS, by=_TOPIC), "{{messaging_destination_name}}"
            ),
            description="Messages that wait in each topic, over all swarms.",
            unit="none",
            stacked=True,
        ),
        graph(
            "Oldest message by topic",
            query(either(age, empty), "{{messaging_destination_name}}"),
            description="How long the oldest waiting message of each topic has waited, where its source can "
            "tell; an empty queue counts as 0. An alert comes above 300 s while the queue grows.",
            unit="s",
            steps=((None, "transparent"), (300, "red")),
        ),
    )


def _population(made: Board) -> None:
    made.section("Population")
    versions = shared(
        "openclaw.registry.node.version.count", JOB, by="openclaw_node_version, openclaw_node_gpu"
    )
    made.row(
        8,
        ranking(
            "Live nodes by region and environment",
            "sort_desc("
            + shared(
                "openclaw.registry.node.count",
                REGISTRY,
                f'{_STATE}=~"up|late|suspect"',
                by=f"{_REGION}, openclaw_node_environment",
            )
            + ")",
            "{{openclaw_node_region}} {{openclaw_node_environment}}",
            description="Where live nodes are, by the tags `region:` and `env:` of their heartbeats.",
            unit="none",
            steps=((None, "blue"),),
        ),
        ranking(
            "Live nodes by version and GPU",
            f"sort_desc({versions})",
            "{{openclaw_node_version}} gpu={{openclaw_node_gpu}}",
            description="What live nodes run; two versions for long are a rollout that got stuck.",
            unit="none",
            steps=((None, "blue"),),
        ),
        graph(
            "Nodes that came and went",
            *(
                query(sum_by("", increase(f"openclaw.registry.node.{event}", REGISTRY)), event)
                for event in ("registered", "returned", "expired", "forgotten")
            ),
            description="Registered: heard for the first time. Forgotten: silent for so long that the "
            "registry deleted them (a day, unless configured otherwise).",
            unit="none",
            bars=True,
            colours={"registered": "green", "returned": "blue", "expired": "red", "forgotten": "#808080"},
        ),
    )
