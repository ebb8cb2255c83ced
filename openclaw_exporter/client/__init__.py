"""The publisher that the agent uses and that a Chimera can embed alone, and the registry's read client.

from openclaw_exporter.client import Publisher, Report, load_settings_from_env

publisher = Publisher(load_settings_from_env(os.environ), lambda: Report(version="1.2.0", capacity={…}))
publisher.start()
…
publisher.stop()

with Registry("https://receiver:8443", ca=…, certificate=…, key=…) as registry:
    for node in registry.nodes(states=["up"], tags=["gpu:true"], min_available_slots=1):
        …
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from openclaw_exporter.client.answers import Outcome
from openclaw_exporter.client.beats import Report
from openclaw_exporter.client.clock import Clock, SystemClock
from openclaw_exporter.client.environment import load_settings_from_env
from openclaw_exporter.client.identity import resolve_node_id
from openclaw_exporter.client.publisher import Publisher
from openclaw_exporter.client.results import Attempt, Stats
from openclaw_exporter.client.rollout import in_rollout
from openclaw_exporter.client.settings import (
    BufferSettings,
    ClientSettings,
    TlsSettings,
    TokenSettings,
    check,
)
from openclaw_exporter.client.state import StateDirectory

if TYPE_CHECKING:
    from openclaw_exporter.client.events import NodeEvent
    from openclaw_exporter.client.nodes import FleetCapacity, HeardHeartbeat, Node, Reported
    from openclaw_exporter.client.reading import RegistryError
    from openclaw_exporter.client.registry import Registry

__all__ = [
    "Attempt",
    "BufferSettings",
    "ClientSettings",
    "Clock",
    "FleetCapacity",
    "HeardHeartbeat",
    "Node",
    "NodeEvent",
    "Outcome",
    "Publisher",
    "Registry",
    "RegistryError",
    "Report",
    "Reported",
    "StateDirectory",
    "Stats",
    "SystemClock",
    "TlsSettings",
    "TokenSettings",
    "check",
    "in_rollout",
    "load_settings_from_env",
    "resolve_node_id",
]

_READ_CLIENT: Final = {
    "FleetCapacity": "nodes",
    "HeardHeartbeat": "nodes",
    "Node": "nodes",
    "NodeEvent": "events",
    "Registry": "registry",
    "RegistryError": "reading",
    "Reported": "nodes",
}


def __getattr__(name: str) -> Any:
    """Import the read client when it is asked for: a node that publishes has no use for it."""
    if name not in _READ_CLIENT:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_READ_CLIENT[name]}"), name)
