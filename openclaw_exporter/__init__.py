"""Observability exporter for Chimera nodes: OpenTelemetry metrics and authenticated OpenClaw heartbeats.

Importing this package imports none of its rooms: the agent, the client and the receiver each cost
memory and time that the others do not need.
"""

from typing import Final

__version__: Final = "0.1.0"
