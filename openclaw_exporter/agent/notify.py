"""Telling systemd how the agent does: READY, RELOADING, STOPPING and the watchdog (sd_notify(3))."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_MICROSECONDS: Final = 1_000_000


class Notifier:
    """Writes states to the datagram socket that `NOTIFY_SOCKET` names; does nothing where it names none.

    Args:
        environ: The environment. An address that begins with `@` is in the abstract namespace.

    Attributes:
        watchdog_period: Seconds between two signs of life, half of what systemd allows; None where no
            watchdog waits for this process.
    """

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        path = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        self.watchdog_period = _watchdog_period(environ) if path else None

    def ready(self) -> None:
        """Say that the start, or a reload, is complete."""
        self._send("READY=1")

    def reloading(self) -> None:
        """Say that a reload begins; its time is needed for `Type=notify-reload`."""
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send(f"RELOADING=1\nMONOTONIC_USEC={microseconds}")

    def stopping(self) -> None:
        """Say that the end begins."""
        self._send("STOPPING=1")

    def watchdog(self) -> None:
        """Give a sign of life. Only the publishing loop may: it is the one that must not get stuck."""
        if self.watchdog_period is not None:
            self._send("WATCHDOG=1")

    def _send(self, state: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)
                sender.sendto(state.encode(), self._address)
        except OSError:
            # Whoever started us has gone, or is too busy to read: nothing that we do depends on it.
            return


def _watchdog_period(environ: Mapping[str, str]) -> float | None:
    pid = environ.get("WATCHDOG_PID", "")
    if pid and pid != str(os.getpid()):
        return None
    text = environ.get("WATCHDOG_USEC", "")
    if not text.isdecimal() or int(text) == 0:
        return None
    return int(text) / _MICROSECONDS / 2
