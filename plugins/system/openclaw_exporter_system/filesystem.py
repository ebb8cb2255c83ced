"""What each mounted filesystem answers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from openclaw_exporter.plugin import Measurement, Observation
from openclaw_exporter_system.host import machine_at
from openclaw_exporter_system.options import NETWORK_FILESYSTEMS, Options
from openclaw_exporter_system.series import by_state, matcher

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openclaw_exporter_system.machine import Machine, Mount


class Filesystem:
    """Usage and size of each mounted filesystem, each device once.

    Args:
        options: What to leave out.
        machine: What tells the mounts; this one where None.
    """

    name = "filesystem"

    def __init__(self, options: Options, machine: Machine | None = None) -> None:
        self._machine = machine or machine_at(Path("/"))
        left_out = options.exclude_filesystem_types
        if not options.network_filesystems:
            left_out = (*left_out, *NETWORK_FILESYSTEMS)
        self._no_type = matcher(left_out)
        self._no_mountpoint = matcher(options.exclude_mountpoints)

    def collect(self) -> Iterator[Observation | Exception]:
        """Yield every filesystem; one that cannot be asked costs only itself."""
        seen: set[tuple[str, str]] = set()
        for mount in sorted(self._machine.mounts(), key=lambda mount: len(mount.mountpoint)):
            # Only a block device is the same wherever it is mounted; two "tmpfs" have nothing in common.
            key = (mount.device, "" if mount.device.startswith("/") else mount.mountpoint)
            if key in seen or self._no_type(mount.fstype) or self._no_mountpoint(mount.mountpoint):
                continue
            try:
                status = os.statvfs(mount.mountpoint)
            except OSError as error:
                yield error
                continue
            if status.f_blocks:
                seen.add(key)
                yield from _filesystem(mount, status)


def _filesystem(mount: Mount, status: os.statvfs_result) -> Iterator[Measurement]:
    attributes = {
        "system.device": mount.device,
        "system.filesystem.mountpoint": mount.mountpoint,
        "system.filesystem.type": mount.fstype,
    }
    block = status.f_frsize
    states = {
        "used": (status.f_blocks - status.f_bfree) * block,
        "free": status.f_bavail * block,
        "reserved": max(status.f_bfree - status.f_bavail, 0) * block,
    }
    yield Measurement("system.filesystem.limit", status.f_blocks * block, "By", "updowncounter", attributes)
    yield from by_state("system.filesystem.usage", "system.filesystem.state", states, attributes)
