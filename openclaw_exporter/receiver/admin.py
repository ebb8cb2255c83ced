"""The admin listener's application: `/healthz`, `/readyz` and `/metrics`, plain HTTP without token."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from openclaw_exporter.receiver.answers import Answer, json_answer, problem_answer
from openclaw_exporter.receiver.refusals import RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from openclaw_exporter.receiver.answers import Receive, Scope, Send

ADMIN_CONNECTIONS: Final = 64
"""Connections at once, apart from the API's; one more is answered 503 and closed."""

_TEXT = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")


class Admin:
    """Tells supervisors whether this receiver lives, load balancers whether to use it, Prometheus the rest.

    Args:
        checks: Returns what must be true for the receiver to be of use, by name. Read in the event loop.
        exposition: Returns all metrics as text; None: there are none. May take a while.
    """

    def __init__(
        self, checks: Callable[[], Mapping[str, bool]], exposition: Callable[[], bytes] | None
    ) -> None:
        self._checks = checks
        self._exposition = exposition

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Answer one request (ASGI 3, `http` scopes only)."""
        try:
            answer = await self._answer(scope)
        except RefusedError as refusal:
            answer = problem_answer(refusal)
        await send({"type": "http.response.start", "status": answer.status, "headers": answer.fields})
        await send({"type": "http.response.body", "body": answer.body})

    async def _answer(self, scope: Mapping[str, Any]) -> Answer:
        path = scope["path"]
        known = path in ("/healthz", "/readyz") or (path == "/metrics" and self._exposition is not None)
        if not known:
            raise RefusedError("not-found", "there are /healthz, /readyz and /metrics")
        if scope["method"] not in ("GET", "HEAD"):
            raise RefusedError("method-not-allowed", "allowed: GET, HEAD", allow="GET, HEAD")
        if path == "/healthz":
            # To answer at all is the proof: the loop runs.
            return json_answer({"status": "ok"})
        if path == "/readyz":
            checks = self._checks()
            ready = all(checks.values())
            return json_answer({"ready": ready, "checks": checks}, status=200 if ready else 503)
        assert self._exposition is not None  # noqa: S101 - known, see above
        text = await asyncio.get_running_loop().run_in_executor(None, self._exposition)
        return Answer(200, [_TEXT, (b"content-length", b"%d" % len(text))], text)
