"""Host names to addresses, with a deadline: the C library's own look-up has none."""

from __future__ import annotations

import ipaddress
import socket
import threading
from typing import Final, cast

from openclaw_exporter.client.exchange import TimedOutError, UnreachableError

_NAME: Final = "openclaw-resolver"


class Resolver:
    """Looks names up in a thread that may be left behind; one look-up at a time.

    With name servers that do not answer, `getaddrinfo` blocks for half a minute and cannot be cut short. That
    must hold up neither the end of the process nor a watchdog.
    """

    def __init__(self) -> None:
        self._pending: _Lookup | None = None

    def resolve(self, host: str, port: int, timeout: float) -> list[str]:
        """Return the host's addresses, the preferred one first.

        Raises:
            TimedOutError: No answer in time. The look-up goes on, and the next call waits for it.
            UnreachableError: There is no such name.
        """
        if _is_address(host):
            return [host]
        lookup = self._pending
        if lookup is None or (lookup.host, lookup.port) != (host, port):
            lookup = self._pending = _Lookup(host, port)
            threading.Thread(target=lookup.run, name=_NAME, daemon=True).start()
        if not lookup.done.wait(timeout):
            raise TimedOutError(f"{host} is still being looked up")
        self._pending = None
        if lookup.error is not None:
            raise UnreachableError(lookup.error) from lookup.error
        return lookup.addresses


class _Lookup:
    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self.done = threading.Event()
        self.addresses: list[str] = []
        self.error: OSError | None = None

    def run(self) -> None:
        try:
            found = socket.getaddrinfo(as_bytes(self.host), self.port, type=socket.SOCK_STREAM)
            self.addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
        except OSError as error:
            self.error = error
        except UnicodeError:
            # A label that is too long fails before any look-up.
            self.error = socket.gaierror(socket.EAI_NONAME, "not a host name")
        finally:
            self.done.set()


def as_bytes(host: str) -> str:
    """Return an ASCII name as bytes: for a text Python loads its tables of Unicode, half a MiB on every node.

    The sockets take both wherever they take a name; their types say `str`.
    """
    return cast("str", host.encode()) if host.isascii() else host


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
