"""One simulated node: the real publisher, with a connection that can be watched and cut."""

from __future__ import annotations

import random
import ssl
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import msgspec

from openclaw_exporter.client import ClientSettings, Publisher, Report, TlsSettings, TokenSettings
from openclaw_exporter.client.answers import failure_of
from openclaw_exporter.client.exchange import BrokenError, Field, ProtocolError, Response, UnreachableError
from openclaw_exporter.client.transport import NO_ANSWER, KeptTransport

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from openclaw_exporter.cli.load.plan import Plan
    from openclaw_exporter.cli.load.tally import Tally
    from openclaw_exporter.cli.pki_files import PkiDirectory
    from openclaw_exporter.client import Attempt
    from openclaw_exporter.client.exchange import Request

_TIMEOUT: Final = 10.0
_WORKERS: Final = 16
_ACCEPTED: Final = range(200, 300)


class _Body(msgspec.Struct):
    last_heartbeat: str


class _Answer(msgspec.Struct):
    result: str = "accepted"


_BODY: Final = msgspec.json.Decoder(_Body)
_ANSWER: Final = msgspec.json.Decoder(_Answer)


class Book:
    """The tally, for many threads.

    Attributes:
        tally: What has happened.
        lock: To be held by whoever reads it while others write.
    """

    def __init__(self, tally: Tally) -> None:
        self.tally = tally
        self.lock = threading.Lock()

    def note(self, change: Callable[[Tally], None]) -> None:
        """Change the tally."""
        with self.lock:
            change(self.tally)


class Wire:
    """A node's connection: counted, measured, and cut while there is a partition.

    Attributes:
        is_cut: Whether nothing gets through.
        acknowledged: `last_heartbeat` of every heartbeat that was answered 2xx.
    """

    def __init__(
        self, endpoint: str, context: ssl.SSLContext, book: Book, *, keep: float, keep_alive: bool
    ) -> None:
        self._endpoint = endpoint
        self._context = context
        self._book = book
        self._keep = keep
        self._keep_alive = keep_alive
        self._kept: KeptTransport | None = None
        self.is_cut = False
        self.acknowledged: set[str] = set()

    def handle_request(self, request: Request) -> Response:
        """Send a request and return the answer, its body read."""
        if self.is_cut:
            self._book.note(_count_cut)
            self.close()
            raise UnreachableError("cut off by the load test")
        started = time.monotonic()
        try:
            status, fields, content = self._send(request)
        except NO_ANSWER as error:
            self.close()
            kind = failure_of(error)
            self._book.note(lambda tally: tally.unanswered.update([kind]))
            raise
        finally:
            self._book.note(_count_sent)
        self._note_answer(request, status, content, time.monotonic() - started)
        if not self._keep_alive:
            self.close()
        return Response(status, fields, [content])

    def close(self) -> None:
        """Close the connection."""
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.close()
            self._book.note(lambda tally: _count_connections(tally, kept.network.connections))

    def _send(self, request: Request) -> tuple[int, list[Field], bytes]:
        if self._kept is not None:
            try:
                return _exchange(self._kept, request)
            except (BrokenError, ProtocolError):
                # The receiver closed it meanwhile, as the publisher's own connection knows.
                self.close()
        self._kept = KeptTransport(self._endpoint, self._context, keep=self._keep)
        return _exchange(self._kept, request)

    def _note_answer(self, request: Request, status: int, content: bytes, seconds: float) -> None:
        accepted = status in _ACCEPTED
        if accepted:
            self.acknowledged.add(_BODY.decode(request.body).last_heartbeat)
        result = _ANSWER.decode(content).result if accepted else str(status)

        def note(tally: Tally) -> None:
            tally.latencies.add(seconds)
            (tally.accepted if accepted else tally.refused).update([result])

        self._book.note(note)


class LoadNode:
    """One simulated node.

    Args:
        plan: What the load test does.
        pki: Whose service account signs its tokens.
        files: Its certificate, and the key beside it with the suffix `.key`.
        node_id: Its id.
        tag: The worker's tag.
        book: Where all is counted.

    Attributes:
        heard: When its last live heartbeats were answered 2xx, by `time.monotonic`.
    """

    def __init__(
        self, plan: Plan, pki: PkiDirectory, *, certificate: Path, node_id: str, tag: str, book: Book
    ) -> None:
        key = certificate.with_suffix(".key")
        context = ssl.create_default_context(cafile=str(pki.ca))
        context.load_cert_chain(certificate, key)
        self._chance = random.Random(node_id)  # noqa: S311 - figures of a simulated node
        self._delay = plan.jitter * plan.interval
        self._tag = tag
        self.node_id = node_id
        self.heard: deque[float] = deque(maxlen=8)
        keep = 2.0 * plan.interval + 120
        self.wire = Wire(plan.endpoint, context, book, keep=keep, keep_alive=plan.keep_alive)
        settings = _settings(plan, pki, certificate, key, node_id)
        self.publisher = Publisher(settings, self._report, transport=self.wire, rng=self._chance)
        self.publisher.on_beat(self._note)
        book.note(_count_node)

    def turn(self) -> float:
        """Do what is due, and return when to come back."""
        return self.publisher.tick() + self._delay * self._chance.random()

    def leave(self, *, draining: bool) -> None:
        """End: with a last heartbeat that says so, or as a machine that loses its power."""
        self.publisher.stop(draining=draining and not self.wire.is_cut)
        self.wire.close()

    def _note(self, attempt: Attempt) -> None:
        if not attempt.error_type:
            self.heard.append(time.monotonic())

    def _report(self) -> Report:
        busy = self._chance.randrange(_WORKERS + 1)
        return Report(
            version="0.0.0",
            capacity={"workers": _WORKERS, "available_slots": _WORKERS - busy},
            queue_depth={"worker": self._chance.randrange(100)},
            tags=(self._tag, "env:loadtest"),
        )


def _settings(plan: Plan, pki: PkiDirectory, certificate: Path, key: Path, node_id: str) -> ClientSettings:
    bounds: dict[str, Any] = {"min_interval": min(30, plan.interval), "max_interval": max(120, plan.interval)}
    if plan.fixed:
        bounds = {"min_interval": plan.interval, "max_interval": plan.interval}
    return ClientSettings(
        endpoint=plan.endpoint,
        interval=plan.interval,
        node_id=node_id,
        hostname=f"{node_id}.loadtest",
        state_dir=None,
        timeout=_TIMEOUT,
        tls=TlsSettings(ca=pki.ca, certificate=certificate, key=key),
        token=TokenSettings(
            key=pki.token_key,
            kid=pki.key_id,
            algorithm=pki.algorithm,
            issuer=pki.issuer,
            audience=pki.audience,
            sign_requests=plan.sign,
        ),
        **bounds,
    )


def _exchange(kept: KeptTransport, request: Request) -> tuple[int, list[Field], bytes]:
    kept.network.deadline = time.monotonic() + _TIMEOUT
    response = kept.handle_request(request)
    try:
        content = response.read()
    finally:
        response.close()
    return response.status, response.fields, content


def _count_cut(tally: Tally) -> None:
    tally.cut_off += 1


def _count_sent(tally: Tally) -> None:
    tally.sent += 1


def _count_node(tally: Tally) -> None:
    tally.nodes += 1


def _count_connections(tally: Tally, opened: int) -> None:
    tally.connections += opened
