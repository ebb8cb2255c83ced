"""Host metrics by the OpenTelemetry semantic conventions, and the machine's uptime.

Two collectors: `host` reads counters that the kernel keeps and cannot block; `filesystem` asks each mounted
filesystem, which can hang with its device, and so costs only itself when it does.
"""

from __future__ import annotations

from openclaw_exporter.plugin import hookimpl
from openclaw_exporter_system.filesystem import Filesystem
from openclaw_exporter_system.host import Host
from openclaw_exporter_system.options import Options

__all__ = ["Filesystem", "Host", "Options", "openclaw_collectors"]


@hookimpl
def openclaw_collectors(options: Options) -> list[Host | Filesystem]:
    """Return the collectors of the groups that are asked for."""
    collectors: list[Host | Filesystem] = []
    if set(options.groups) - {"filesystem"}:
        collectors.append(Host(options))
    if "filesystem" in options.groups:
        collectors.append(Filesystem(options))
    return collectors
