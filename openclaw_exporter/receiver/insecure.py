"""`receiver.insecure_dev`: the receiver without certificates and tokens, for its own machine alone.

There is no TLS, so a connection says nothing of who is behind it: a publisher is the node that its heartbeat
names, and whoever connects may read. What a web page in this machine's browser sends is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from openclaw_exporter.receiver.application import Application
from openclaw_exporter.receiver.intake import AUTHORIZATION, COUNTED, Intake, with_shared_texts
from openclaw_exporter.receiver.refusals import RefusedError
from openclaw_exporter.wire.heartbeat import decode
from openclaw_exporter.wire.loopback import is_loopback_url

if TYPE_CHECKING:
    from openclaw_exporter.receiver.answers import Scope
    from openclaw_exporter.receiver.connection import Connection
    from openclaw_exporter.receiver.heads import Head
    from openclaw_exporter.receiver.liveness import Arrival


class OpenIntake(Intake):
    """Admits heartbeats of whoever sends them; their form, content and rate are checked as ever."""

    _counted = COUNTED - {AUTHORIZATION}

    def admit(self, connection: Connection, head: Head, body: bytes) -> Arrival:
        """Check a heartbeat from its form to its rate; see `Intake.admit`."""
        del connection
        self._shedding.check()
        if head.formed is None:
            _refuse_web_page(head.fields)
        fields = self._formed(head)
        heartbeat = decode(body)
        self._limit(heartbeat.node_id)
        return self._accept(heartbeat, with_shared_texts(heartbeat), head, fields, self._clock.wall_ms())


class OpenApplication(Application):
    """The routes of the API for everybody on this machine, but not for web pages."""

    def _check_head(self, scope: Scope) -> None:
        _refuse_web_page(scope["headers"])

    def _require_reader(self, scope: Scope) -> None:
        """Let everybody read."""


def _refuse_web_page(headers: list[tuple[bytes, bytes]]) -> None:
    hosts = [value for name, value in headers if name == b"host"]
    # A page whose own name was made to lead here (DNS rebinding) still sends that name.
    if len(hosts) != 1 or not is_loopback_url(f"http://{hosts[0].decode('latin-1')}"):
        raise RefusedError("misdirected", "with insecure_dev the Host must be a loopback name or address")
    if any(name == b"origin" for name, _ in headers):
        raise RefusedError("origin-refused", "with insecure_dev no request of a web page is answered")
