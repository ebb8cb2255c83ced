"""The agent's own instruments: publishing, the buffer, credentials, the node and its collectors."""

from __future__ import annotations

from typing import Final

from openclaw_exporter.telemetry.instrument import Instrument

_COLLECTOR: Final = ("openclaw.plugin", "openclaw.collector")
# An attempt that got no answer, and the two answers that a fleet sees in an overload.
_FAILURES: Final = ("connection", "dns", "protocol", "timeout", "tls", "429", "503")
_TOPIC: Final = "messaging.destination.name"

TABLE: Final[tuple[Instrument, ...]] = (
    Instrument(
        "openclaw.publish.success_total",
        "counter",
        "{publish}",
        "Publish attempts that were answered 2xx",
    ),
    Instrument(
        "openclaw.publish.failure_total",
        "counter",
        "{publish}",
        "Publish attempts that were not answered 2xx",
        attributes=("error.type", "openclaw.retryable"),
        zeros=tuple({"error.type": kind, "openclaw.retryable": True} for kind in _FAILURES),
    ),
    Instrument(
        "openclaw.latency_seconds",
        "histogram",
        "s",
        "One publish attempt, from connecting to the answer",
        attributes=("http.response.status_code",),
        bounds=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.5, 2.5, 5.5, 10.5),
    ),
    Instrument(
        "openclaw.publish.clock_skew",
        "gauge",
        "s",
        "The receiver's Date header minus this node's clock",
    ),
    Instrument(
        "openclaw.publish.last_success.timestamp",
        "gauge",
        "s",
        "Unix time at which a publish attempt was last answered 2xx",
    ),
    Instrument("openclaw.buffer.usage", "updowncounter", "{heartbeat}", "Heartbeats that wait in the buffer"),
    Instrument(
        "openclaw.buffer.limit", "updowncounter", "{heartbeat}", "Heartbeats that the buffer can hold"
    ),
    Instrument(
        "openclaw.buffer.dropped",
        "counter",
        "{heartbeat}",
        "Heartbeats that were dropped without having been delivered",
        attributes=("reason",),
        zeros=tuple({"reason": reason} for reason in ("overflow", "disk", "refused")),
    ),
    Instrument(
        "openclaw.credential.not_before",
        "gauge",
        "s",
        "Unix time from which the certificate, token or CA in use is valid",
        attributes=("openclaw.credential",),
    ),
    Instrument(
        "openclaw.credential.not_after",
        "gauge",
        "s",
        "Unix time until which the certificate, token or CA in use is valid",
        attributes=("openclaw.credential",),
    ),
    Instrument(
        "openclaw.node.capacity",
        "updowncounter",
        "{resource}",
        "What this node has of each resource, as in its heartbeat",
        attributes=("openclaw.resource",),
    ),
    Instrument(
        "openclaw.node.slots.withheld",
        "updowncounter",
        "{slot}",
        "Available slots taken off because of queue pressure",
    ),
    Instrument(
        "openclaw.node.queue.depth",
        "updowncounter",
        "{message}",
        "Messages that wait in a topic, as in this node's heartbeat",
        attributes=(_TOPIC,),
    ),
    Instrument(
        "openclaw.node.queue.oldest_message.age",
        "gauge",
        "s",
        "Time since the oldest waiting message of a topic was queued, where the source can tell",
        attributes=(_TOPIC,),
    ),
    Instrument("openclaw.node.uptime", "gauge", "s", "Time since the node started, as in its heartbeat"),
    Instrument(
        "openclaw.collector.healthy",
        "gauge",
        "",
        "1 after a good run of the collector, else 0",
        attributes=_COLLECTOR,
    ),
    Instrument(
        "openclaw.collector.duration",
        "histogram",
        "s",
        "One collection",
        attributes=_COLLECTOR,
        bounds=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.5, 2.5, 5.5, 10.5),
    ),
    Instrument(
        "openclaw.collector.errors",
        "counter",
        "{error}",
        "Collections that failed and observations that were refused",
        attributes=(*_COLLECTOR, "error.type"),
    ),
    Instrument(
        "openclaw.collector.last_success.timestamp",
        "gauge",
        "s",
        "Unix time of the collector's last good run",
        attributes=_COLLECTOR,
    ),
    Instrument(
        "openclaw.collector.series",
        "updowncounter",
        "{series}",
        "Series that the collector exports now",
        attributes=_COLLECTOR,
    ),
    Instrument(
        "openclaw.collector.series.limit",
        "updowncounter",
        "{series}",
        "Different series that the collector may export over its life: its series budget",
        attributes=_COLLECTOR,
    ),
    Instrument(
        "openclaw.collector.cpu.time",
        "counter",
        "s",
        "CPU time of a collector that runs in a process of its own",
        attributes=_COLLECTOR,
    ),
    Instrument(
        "openclaw.collector.memory.usage",
        "updowncounter",
        "By",
        "Resident memory of a collector that runs in a process of its own",
        attributes=_COLLECTOR,
    ),
)
