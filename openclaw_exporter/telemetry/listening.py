"""The socket of `/metrics`: open before OpenTelemetry is loaded, so that a scraper waits, not refused."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Final

from openclaw_exporter.errors import UserError

if TYPE_CHECKING:
    from openclaw_exporter.telemetry.settings import PrometheusSettings

_BACKLOG: Final = 64


def listen(settings: PrometheusSettings) -> socket.socket | None:
    """Return the listening socket, None where `/metrics` is not served.

    Raises:
        UserError: The address cannot be listened on.
    """
    if not settings.enabled:
        return None
    host, port = settings.host, settings.port
    opened: socket.socket | None = None
    try:
        # As bytes: for a text Python loads its tables of Unicode, half a MiB.
        name = host.encode() if host.isascii() else host
        family, _, _, _, address = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)[0]
        opened = socket.socket(family)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
        opened.listen(_BACKLOG)
    except OSError as error:
        if opened is not None:
            opened.close()
        foreign = isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL
        right = "host to an address of this machine" if foreign else "port to a free port, to 0 for any"
        message = (
            f"telemetry.prometheus: cannot listen on {host}:{port} ({error.strerror or error}); "
            f"set telemetry.prometheus.{right}, or telemetry.prometheus.enabled to false"
        )
        raise UserError(message) from error
    return opened
