"""Node: one node, from its heartbeat down to its disks."""

from __future__ import annotations

from dashboards.board import Board
from dashboards.panels import DAYS, PLAIN, graph, listing, number, query, timeline
from dashboards.promql import (
    NODE,
    either,
    greatest,
    increase,
    quantile,
    rate,
    select,
    sum_by,
    total,
)

_TOPIC = "messaging_destination_name"
_TOPIC_LEGEND = "{{messaging_destination_name}}"


def board() -> Board:
    """Return the dashboard."""
    made = (
        Board(
            "openclaw-node",
            "OpenClaw / Node",
            "One node: does it publish, what does it offer, what waits for it, and how is the host.",
            since="now-3h",
        )
        .places_of_agents()
        .nodes(several=False)
    )
    restarted = f"resets({select('process.uptime', NODE)}[2m]) > 0"
    made.annotate("Exporter restarts", restarted, "the exporter of {{host_name}} restarted", "blue")
    failed = f"{sum_by('error_type', increase('openclaw.publish.failure_total', NODE))} >= 1"
    made.annotate("Failed publishes", failed, "publish failed: {{error_type}}", "orange")
    _now(made)
    _who(made)
    _work(made)
    _publishing(made)
    _host(made)
    return made


def _now(made: Board) -> None:
    last = select("openclaw.publish.last_success.timestamp", NODE)
    succeeded = sum_by("", increase("openclaw.publish.success_total", NODE, over="1h"))
    failed = sum_by("", increase("openclaw.publish.failure_total", NODE, over="1h"))
    made.row(
        4,
        number(
            "Heartbeat age",
            f"time() - max({last})",
            description="Time since the receiver last acknowledged a heartbeat of this node. It should stay "
            "below the node's interval (30 to 120 s); after 1.5 of them the node is late, after "
            "2 it expires.",
            unit="s",
            steps=((None, "green"), (120, "yellow"), (240, "red")),
        ),
        number(
            "Publish success, 1 h",
            f"{succeeded} / ({succeeded} + {failed})",
            description="Share of the last hour's publish attempts that were answered 2xx.",
            unit="percentunit",
            steps=((None, "red"), (0.99, "yellow"), (0.995, "green")),
        ),
        number(
            "Free slots",
            total("openclaw.node.capacity", NODE, 'openclaw_resource="available_slots"'),
            description="Slots that the node offers, as its heartbeat says: queue pressure is taken off "
            "already.",
            unit="none",
            steps=((None, "yellow"), (1, "green")),
        ),
        number(
            "Queued messages",
            total("openclaw.node.queue.depth", NODE),
            description="Messages that wait in all topics that this node reads, as its heartbeat says.",
            unit="none",
        ),
        number(
            "Certificate ends in",
            _left("certificate"),
            description="Time until the client certificate in use ends. Whatever renews it should have done "
            "so when a fifth of its life is left.",
            unit="s",
            steps=((None, "red"), (3600, "orange"), (DAYS, "yellow"), (7 * DAYS, "green")),
            instant=True,
        ),
        number(
            "Token ends in",
            _left("token"),
            description="Time until the token in use ends. A minted one lives 10 minutes and is renewed at "
            "80 %.",
            unit="s",
            steps=((None, "red"), (30, "green")),
        ),
        number(
            "Clock skew",
            greatest("openclaw.publish.clock_skew", NODE),
            description="The receiver's clock minus this node's. Tokens need the clocks to agree within 30 "
            "s.",
            unit="s",
            steps=((None, "red"), (-30, "yellow"), (-5, "green"), (5, "yellow"), (30, "red")),
            decimals=1,
        ),
        number(
            "Uptime",
            greatest("openclaw.node.uptime", NODE),
            description="Time since the node started, as its heartbeat says.",
            unit="s",
            instant=True,
            steps=PLAIN,
        ),
    )


def _left(credential: str) -> str:
    matcher = f'openclaw_credential="{credential}"'
    return f"min({select('openclaw.credential.not_after', NODE, matcher)}) - time()"


def _who(made: Board) -> None:
    identity = select("openclaw.node.slots.withheld", NODE)
    # OTLP receivers may keep service.instance.id out of target_info: then the version's column stays empty.
    version = 'topk by (service_instance_id) (1, target_info{job=~"$job", service_instance_id=~"$node"})'
    told = f"{identity} * on (service_instance_id) group_left (service_version) {version}"
    columns = {
        "host_name": "Host",
        "service_instance_id": "Node id",
        "deployment_environment_name": "Environment",
        "cloud_region": "Region",
        "service_version": "Exporter",
        "job": "Job",
    }
    made.row(
        5,
        listing(
            "Identity",
            f"{told} or on (service_instance_id) {identity}",
            columns,
            description="Who this is. `openclaw-exporter nodes` shows what the registry says of the same "
            "node id.",
        ),
        timeline(
            "Collectors",
            f"min by (openclaw_plugin, openclaw_collector) ({select('openclaw.collector.healthy', NODE)})",
            "{{openclaw_plugin}} {{openclaw_collector}}",
            description="Green after a good run of the collector. While one is red, its series and its part "
            "of the heartbeat are missing: unknown is not zero.",
            words={"0": ("failing", "red"), "1": ("healthy", "green")},
        ),
    )


def _work(made: Board) -> None:
    made.section("Work")
    age = greatest("openclaw.node.queue.oldest_message.age", NODE, by=_TOPIC)
    empty = f"max by ({_TOPIC}) ({select('openclaw.node.queue.depth', NODE)}) == 0"
    made.row(
        7,
        graph(
            "Capacity",
            query(
                sum_by("openclaw_resource", select("openclaw.node.capacity", NODE)), "{{openclaw_resource}}"
            ),
            query(total("openclaw.node.slots.withheld", NODE), "withheld for queue pressure"),
            description="What the node has of each resource, as its heartbeat says, and the slots that "
            "`[pressure]` took off because queues are long.",
            unit="none",
            colours={"available_slots": "green", "withheld for queue pressure": "orange"},
        ),
        graph(
            "Queue depth",
            query(greatest("openclaw.node.queue.depth", NODE, by=_TOPIC), _TOPIC_LEGEND),
            description="Messages that wait in each topic, as the heartbeat says. A gap is a source that "
            "could not be read.",
            unit="none",
        ),
        graph(
            "Oldest message",
            query(either(age, empty), _TOPIC_LEGEND),
            description="How long the oldest waiting message has waited, where the source can tell; an "
            "empty queue counts as 0.",
            unit="s",
            steps=((None, "transparent"), (300, "red")),
        ),
    )


def _publishing(made: Board) -> None:
    made.section("Publishing")
    latency = "openclaw.latency_seconds"
    made.row(
        7,
        graph(
            "Publishes",
            query(sum_by("", rate("openclaw.publish.success_total", NODE)), "succeeded"),
            query(
                sum_by("error_type", rate("openclaw.publish.failure_total", NODE, 'error_type=~".+"')),
                "{{error_type}}",
            ),
            description="Publish attempts by result. Retries are attempts of their own.",
            unit="reqps",
            stacked=True,
            colours={"succeeded": "green"},
        ),
        graph(
            "Publish latency",
            *(query(quantile(share, latency, NODE), f"p{share * 100:g}") for share in (0.5, 0.99)),
            description="One attempt, from connecting to the answer.",
            unit="s",
        ),
        graph(
            "Buffer",
            query(total("openclaw.buffer.usage", NODE), "waiting"),
            query(total("openclaw.buffer.limit", NODE), "limit"),
            description="Heartbeats that no receiver has acknowledged yet. They follow as replay; at the "
            "limit the oldest are dropped, and counted.",
            unit="none",
            dashed="limit",
        ),
    )


def _host(made: Board) -> None:
    made.section("Host")
    busy = rate("system.cpu.time", NODE, 'cpu_mode!="idle"')
    cpus = f"sum({select('system.cpu.logical.count', NODE)})"
    made.row(
        7,
        graph(
            "CPU by mode",
            query(
                f"{sum_by('cpu_mode', busy)} / on () group_left () {cpus}",
                "{{cpu_mode}}",
            ),
            query(sum_by("", rate("cgroup.cpu.throttled.time", NODE)), "throttled by the cgroup"),
            description="Share of all CPUs that may be used, in each mode. Throttled: time in which a "
            "container waited for its next quota.",
            unit="percentunit",
            stacked=True,
        ),
        graph(
            "Load",
            query(greatest("system.cpu.load_average.1m", NODE), "1 min"),
            query(greatest("system.cpu.load_average.5m", NODE), "5 min"),
            query(greatest("system.cpu.load_average.15m", NODE), "15 min"),
            query(cpus, "CPUs (limit)"),
            query(total("cgroup.cpu.limit", NODE), "CPUs of the cgroup (limit)"),
            description="Threads that run or want to, against the CPUs that they may use.",
            unit="none",
            dashed=".*limit.*",
        ),
        graph(
            "Memory",
            query(
                sum_by("system_memory_state", select("system.memory.usage", NODE)), "{{system_memory_state}}"
            ),
            query(
                total("system.paging.usage", NODE, 'system_paging_state="used"'),
                "swap used",
            ),
            query(total("system.memory.limit", NODE), "limit"),
            description="By state, of what may be used: inside a container that is its cgroup's limit.",
            unit="bytes",
            stacked=True,
            dashed="limit|swap used",
            colours={"free": "green", "used": "orange"},
        ),
    )
    mount = "system_filesystem_mountpoint"
    used = select("system.filesystem.usage", NODE, 'system_filesystem_state="used"')
    made.row(
        7,
        graph(
            "Filesystems",
            query(
                f"max by ({mount}) ({used}) / max by ({mount}) ({select('system.filesystem.limit', NODE)})",
                "{{system_filesystem_mountpoint}}",
            ),
            description="Share that is used. Heartbeats go on with a full disk; what cannot be buffered is "
            "dropped.",
            unit="percentunit",
            most=1,
            steps=((None, "transparent"), (0.9, "red")),
        ),
        graph(
            "Disks",
            query(
                sum_by("system_device, disk_io_direction", rate("system.disk.io", NODE)),
                "{{system_device}} {{disk_io_direction}}",
            ),
            description="Bytes read and written.",
            unit="Bps",
        ),
        graph(
            "Network",
            query(
                sum_by("network_interface_name, network_io_direction", rate("system.network.io", NODE)),
                "{{network_interface_name}} {{network_io_direction}}",
            ),
            description="Bytes received and transmitted.",
            unit="Bps",
        ),
        graph(
            "Network errors",
            query(
                sum_by("network_interface_name, network_io_direction", rate("system.network.errors", NODE)),
                "{{network_interface_name}} {{network_io_direction}}",
            ),
            description="Errors of each interface; anything but 0 is a cable, a driver or a full ring.",
            unit="cps",
        ),
    )
