"""The publisher: what a node embeds to be seen by OpenClaw."""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from typing import TYPE_CHECKING, Final

from openclaw_exporter.client.bearer import open_bearer
from openclaw_exporter.client.beats import BeatMaker
from openclaw_exporter.client.buffer import Buffer
from openclaw_exporter.client.clock import SystemClock
from openclaw_exporter.client.courier import Courier
from openclaw_exporter.client.credentials import open_tls
from openclaw_exporter.client.engine import Engine, Parts
from openclaw_exporter.client.identity import resolve_node_id, settle_node_id
from openclaw_exporter.client.journal import Journal
from openclaw_exporter.client.metrics import PublisherMetrics
from openclaw_exporter.client.results import Attempt, Stats
from openclaw_exporter.client.rollout import in_rollout
from openclaw_exporter.client.settings import check
from openclaw_exporter.client.state import StateDirectory
from openclaw_exporter.errors import ConfigError
from openclaw_exporter.logs import Episodes

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.metrics import Meter

    from openclaw_exporter.client.beats import Report
    from openclaw_exporter.client.clock import Clock
    from openclaw_exporter.client.settings import ClientSettings
    from openclaw_exporter.client.transport import Transport

_LOG = logging.getLogger(__name__)

LONGEST_WAIT: Final = 5.0
"""The thread turns at least this often, in seconds, so that a watchdog may hang on it."""

_FINISHING_SHARE: Final = 0.8


class Publisher:
    """Publishes one node's heartbeats, from a thread of its own (`start`) or from the caller's (`tick`).

    Where `enabled` is false, or `rollout_percent` leaves this node out, it does everything but publish.

    Args:
        settings: What to publish to, as whom, how often.
        source: Returns what the node says now. It is called in the publishing thread and must not block.
        meter: Where the publisher's metrics go; the process's global meter provider where None.
        measured: Whether they go there from now on; else they are kept back until `measure`.
        clock: The time.
        transport: Sends requests in place of a connection of the publisher's own.
        rng: Where jitter comes from.

    Raises:
        ConfigError: Settings are missing or do not go together.
        CredentialError: A certificate, key, CA or token cannot be used, or is another node's.
        StateError: The state directory is in use, or another node's.

    Example:
        >>> from openclaw_exporter.client import ClientSettings, Publisher, Report
        >>> node_id = "7d444840-9dc0-41d1-b245-5ffdce74fad2"
        >>> settings = ClientSettings(enabled=False, node_id=node_id, state_dir=None)
        >>> publisher = Publisher(settings, lambda: Report(version="1.2.0", capacity={"workers": 24}))
        >>> publisher.start()
        >>> publisher.publishing
        False
        >>> publisher.stop()
    """

    def __init__(
        self,
        settings: ClientSettings,
        source: Callable[[], Report],
        *,
        meter: Meter | None = None,
        measured: bool = True,
        clock: Clock | None = None,
        transport: Transport | None = None,
        rng: random.Random | None = None,
    ) -> None:
        problems = check(settings)
        if problems:
            raise ConfigError(problems)
        self._settings = settings
        self._clock = clock or SystemClock()
        self._episodes = Episodes(_LOG)
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._finishing = False
        self._stop_request = (False, 0.0)
        self._thread: threading.Thread | None = None
        self._on_turn: list[Callable[[], None]] = []
        self._on_attempt: list[Callable[[Attempt], None]] = []
        self._engine: Engine | None = None
        self._courier: Courier | None = None
        self._close: list[Callable[[], None]] = []
        self._metrics = PublisherMetrics()
        if measured:
            self._metrics.begin(meter)
        # Jitter is no secret.
        self._random = rng or random.Random()  # noqa: S311 - see above
        try:
            self._node_id = self._open(source, transport)
        except BaseException:
            self._release()
            raise

    @property
    def node_id(self) -> str:
        """This node's id."""
        return self._node_id

    @property
    def publishing(self) -> bool:
        """Whether heartbeats are published: the flag is set and the rollout includes this node."""
        return self._engine is not None

    @property
    def interval(self) -> float:
        """Seconds between two heartbeats: as configured, or as the receiver asked."""
        return self._engine.interval if self._engine else self._settings.interval

    @property
    def stats(self) -> Stats:
        """Counts since the publisher was made."""
        return self._engine.stats if self._engine else Stats()

    @property
    def last_result(self) -> Attempt | None:
        """The last attempt to publish a newest heartbeat; None before the first."""
        return self._engine.last if self._engine else None

    def on_beat(self, callback: Callable[[Attempt], None]) -> None:
        """Call back after every attempt to publish a newest heartbeat, in the publishing thread."""
        self._on_attempt.append(callback)

    def on_turn(self, callback: Callable[[], None]) -> None:
        """Call back after every turn of the thread: at least every 5 s while no exchange is under way."""
        self._on_turn.append(callback)

    def measure(self, meter: Meter | None) -> None:
        """Let the metrics go to this meter, where they were kept back; call it once."""
        self._metrics.begin(meter)

    def start(self) -> None:
        """Publish from a daemon thread of the publisher's own, the first heartbeat at once.

        Raises:
            RuntimeError: It was started or stopped before.
        """
        if self._thread is not None or self._stopping.is_set():
            raise RuntimeError("a publisher is started once")
        self._thread = threading.Thread(target=self._run, name="openclaw-publisher", daemon=True)
        self._thread.start()

    def tick(self) -> float:
        """Do what is due now: a beat, a retry or one replay, so at most one exchange.

        Returns:
            The time of the clock's `monotonic` at which there is something to do again; infinity where
            nothing is published.
        """
        with self._lock:
            if self._engine is None or self._stopping.is_set():
                return math.inf
            return self._engine.tick()

    def stop(self, *, draining: bool = True, timeout: float = 3.0) -> None:
        """End within `timeout` seconds, whatever the receiver does. Idempotent.

        Args:
            draining: Whether to send a last heartbeat that says that the node leaves.
            timeout: Seconds that this may take.
        """
        if self._stopping.is_set():
            return
        ends = time.monotonic() + timeout
        self._stop_request = (draining, ends)
        self._stopping.set()
        thread = self._thread
        if thread is None:
            done = self._finish_here(ends)
        else:
            thread.join(timeout / 3)
            if thread.is_alive() and not self._finishing:
                self._abort()
            thread.join(max(0.0, ends - time.monotonic()))
            done = not thread.is_alive()
        if not done:
            _LOG.warning("the publisher is still in an exchange and is left to end by itself")

    def _open(self, source: Callable[[], Report], transport: Transport | None) -> str:
        settings, clock = self._settings, self._clock
        self._close.append(self._metrics.close)
        if not settings.enabled:
            _LOG.info("publishing is switched off: openclaw.enabled is false")
            return resolve_node_id(settings)
        tls = open_tls(settings, self._episodes)
        state = StateDirectory(settings.state_dir)
        self._close.append(state.close)
        node_id = settle_node_id(settings, tls.current.node_id, state)
        if not in_rollout(node_id, settings.rollout_percent):
            _LOG.info("node %s is not among the %g %% that publish", node_id, settings.rollout_percent)
            state.close()
            return node_id
        bearer = open_bearer(settings, node_id, clock, self._episodes)
        courier = Courier(
            settings,
            node_id=node_id,
            tls=tls,
            bearer=bearer,
            clock=clock,
            metrics=self._metrics,
            episodes=self._episodes,
            transport=transport,
        )
        self._courier = courier
        self._close.append(courier.close)
        self._engine = self._build(source, node_id, state, courier)
        return node_id

    def _build(
        self, source: Callable[[], Report], node_id: str, state: StateDirectory, courier: Courier
    ) -> Engine:
        settings, clock = self._settings, self._clock
        buffer = Buffer(
            state.buffer_path, settings.buffer, episodes=self._episodes, dropped=self._metrics.dropped
        )
        self._close.append(buffer.close)
        beats = BeatMaker(
            settings,
            node_id=node_id,
            epoch=state.next_epoch(int(clock.wall() * 1000)),
            source=source,
            clock=clock,
            taken=buffer.sent_times(),
            episodes=self._episodes,
        )
        self._metrics.observe(
            waiting=lambda: len(buffer),
            limit=settings.buffer.max_heartbeats,
            credentials=courier.credentials,
        )
        journal = Journal(self._episodes, settings.endpoint)
        parts = Parts(settings, node_id, state, beats, buffer, courier, journal, clock, self._random)
        engine = Engine(parts)
        engine.on_attempt = self._on_attempt
        return engine

    def _abort(self) -> None:
        """Cut the exchange that is under way, if there is one."""
        if self._courier is not None:
            self._courier.abort()

    def _run(self) -> None:
        while not self._stopping.is_set():
            due = self._turn()
            wait = max(0.0, min(due - self._clock.monotonic(), LONGEST_WAIT))
            self._stopping.wait(wait)
        with self._lock:
            self._finish()

    def _turn(self) -> float:
        """Take one turn of the thread, which outlives every error in it."""
        try:
            due = self.tick()
            for callback in self._on_turn:
                callback()
        except Exception as error:  # noqa: BLE001 - a node that stops publishing for one bug is the worse bug
            if self._episodes.begin("loop", type(error).__name__, "the publishing loop met an error"):
                _LOG.exception("the publishing loop goes on after this")
            return self._clock.monotonic() + LONGEST_WAIT
        self._episodes.end("loop", "the publishing loop runs without errors again")
        return due

    def _finish_here(self, ends: float) -> bool:
        left = ends - time.monotonic()
        if not self._lock.acquire(timeout=max(0.0, left / 3)):
            self._abort()
            if not self._lock.acquire(timeout=max(0.0, ends - time.monotonic())):
                return False
        try:
            self._finish()
        finally:
            self._lock.release()
        return True

    def _finish(self) -> None:
        self._finishing = True
        draining, ends = self._stop_request
        try:
            if self._engine is not None:
                patience = (ends - time.monotonic()) * _FINISHING_SHARE
                self._engine.finish(draining=draining, patience=patience)
        finally:
            self._release()

    def _release(self) -> None:
        while self._close:
            self._close.pop()()
