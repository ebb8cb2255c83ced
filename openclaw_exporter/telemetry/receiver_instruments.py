"""The receiver's instruments: the registry, what arrives at it, and how it does."""

from __future__ import annotations

from typing import Final

from openclaw_exporter.telemetry.instrument import Instrument, Kind

_REGION: Final = "openclaw.node.region"
_PLACE: Final = (_REGION, "openclaw.node.environment")


def _of_receiver(
    name: str,
    kind: Kind,
    unit: str,
    description: str,
    *,
    attributes: tuple[str, ...] = (),
    bounds: tuple[float, ...] | None = None,
) -> Instrument:
    return Instrument(name, kind, unit, description, attributes, bounds, service="receiver")


TABLE: Final[tuple[Instrument, ...]] = (
    _of_receiver(
        "openclaw.registry.node.count",
        "updowncounter",
        "{node}",
        "Nodes now; of several receivers that share a store only the one that decides on expiry exports them",
        attributes=("openclaw.node.state", *_PLACE),
    ),
    _of_receiver(
        "openclaw.registry.node.version.count",
        "updowncounter",
        "{node}",
        "Live nodes by the version that they run",
        attributes=("openclaw.node.version", "openclaw.node.gpu"),
    ),
    _of_receiver(
        "openclaw.registry.node.registered",
        "counter",
        "{node}",
        "Nodes heard for the first time; each once, over all receivers",
        attributes=_PLACE,
    ),
    _of_receiver(
        "openclaw.registry.node.expired",
        "counter",
        "{node}",
        "Nodes that expired; each once, over all receivers",
        attributes=_PLACE,
    ),
    _of_receiver(
        "openclaw.registry.node.returned",
        "counter",
        "{node}",
        "Nodes that came back after they had expired or gone offline; each once, over all receivers",
        attributes=_PLACE,
    ),
    _of_receiver(
        "openclaw.registry.node.forgotten",
        "counter",
        "{node}",
        "Nodes whose rows were deleted; each once, over all receivers",
        attributes=_PLACE,
    ),
    Instrument(
        "openclaw.registry.heartbeat.received",
        "counter",
        "{heartbeat}",
        "Heartbeats that were answered 200",
        attributes=("openclaw.result",),
        service="receiver",
        zeros=tuple({"openclaw.result": result} for result in ("recorded", "duplicate", "history")),
    ),
    _of_receiver(
        "openclaw.registry.heartbeat.refused",
        "counter",
        "{heartbeat}",
        "Heartbeats that were refused",
        attributes=("error.type", "http.response.status_code"),
    ),
    _of_receiver(
        "openclaw.registry.heartbeat.interval",
        "histogram",
        "s",
        "Time between two live heartbeats of one node",
        bounds=(
            1.5,
            5.5,
            10.5,
            20.5,
            29.5,
            30.5,
            45.5,
            59.5,
            60.5,
            61.5,
            75.5,
            90.5,
            119.5,
            120.5,
            180.5,
            240.5,
        ),
    ),
    _of_receiver(
        "openclaw.registry.heartbeat.skew",
        "histogram",
        "s",
        "Absolute clock skew of nodes",
        bounds=(0.05, 0.1, 0.25, 0.5, 1.5, 2.5, 5.5, 10.5, 30.5, 60.5, 300.5, 3600.5),
    ),
    _of_receiver(
        "openclaw.registry.capacity",
        "updowncounter",
        "{resource}",
        "What live nodes have of each resource together",
        attributes=("openclaw.resource", _REGION),
    ),
    _of_receiver(
        "openclaw.registry.queue.depth",
        "updowncounter",
        "{message}",
        "Messages that wait in a topic: the greatest depth in each swarm, summed over swarms",
        attributes=("messaging.destination.name", _REGION),
    ),
    _of_receiver(
        "openclaw.registry.node.silence",
        "gauge",
        "s",
        "The longest time since a live node's last heartbeat",
        attributes=(_REGION,),
    ),
    _of_receiver("openclaw.registry.expiry.held", "gauge", "", "1 while the mass-expiry brake holds, else 0"),
    _of_receiver(
        "openclaw.registry.store.duration",
        "histogram",
        "s",
        "One operation of the registry's store",
        attributes=("db.operation.name", "db.system.name"),
        bounds=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.5, 2.5, 5.5),
    ),
    _of_receiver(
        "openclaw.registry.store.conflict",
        "counter",
        "{conflict}",
        "Nodes that another receiver of a shared store had changed meanwhile; they were planned again",
    ),
    _of_receiver(
        "openclaw.registry.store.partition.away",
        "updowncounter",
        "{partition}",
        "Partitions of a shared store that this receiver cannot reach",
    ),
    _of_receiver("openclaw.registry.loop.lag", "gauge", "s", "How late the receiver's own loop runs"),
    _of_receiver(
        "http.server.request.duration",
        "histogram",
        "s",
        "One request that the receiver answered",
        attributes=(
            "http.request.method",
            "http.route",
            "http.response.status_code",
            "url.scheme",
            "error.type",
        ),
        bounds=(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.5, 2.5, 5.5, 7.5, 10.5),
    ),
)
