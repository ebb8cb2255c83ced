"""The agent's loop: collectors put what they know on the board, and two readers take it from there.

    collector ──▶ snapshot ──▶ heartbeat   (the publisher's thread, every interval)
                          └──▶ telemetry   (a scrape's or an export's thread)

Nothing on the right ever waits for anything on the left.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Final

from openclaw_exporter.agent import heartbeat
from openclaw_exporter.agent.collection import Collection
from openclaw_exporter.agent.notify import Notifier
from openclaw_exporter.agent.plugins import PluginLoader
from openclaw_exporter.agent.publishing import Publishing
from openclaw_exporter.agent.signals import Signals, leave_within
from openclaw_exporter.agent.snapshot import Board
from openclaw_exporter.client import resolve_node_id
from openclaw_exporter.errors import CredentialError, UserError
from openclaw_exporter.logs import Episodes
from openclaw_exporter.telemetry.listening import listen

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from openclaw_exporter.agent.heartbeat import NodeView
    from openclaw_exporter.agent.metrics import AgentMetrics
    from openclaw_exporter.agent.settings import AgentConfig
    from openclaw_exporter.agent.snapshot import Snapshot
    from openclaw_exporter.client import Publisher, Report
    from openclaw_exporter.plugin.host import LoadedCollector
    from openclaw_exporter.telemetry.provider import Telemetry

_LOGGER: Final = logging.getLogger(__name__)

STOP_WITHIN: Final = 4.0
"""Seconds from the signal to the end of our own work, whatever hangs."""

_DRAINING_SHARE: Final = 2.5
_EXPORT_SHARE: Final = 1.0
_EXIT_SHARE: Final = 0.7
_SIGNAL_PAUSE: Final = 0.05
_FIRST_ATTEMPT: Final = 0.25


class Agent:
    """Collects on one node, exports metrics and publishes heartbeats.

    Args:
        config: Everything that it is configured with.
        notifier: Who is told how it does; systemd, by the environment, where None.

    Attributes:
        board: Where collectors' results are, and the snapshot of them.

    Example:
        >>> agent = Agent(config)  # doctest: +SKIP
        >>> agent.start()  # doctest: +SKIP
        >>> agent.stop()  # doctest: +SKIP
    """

    def __init__(self, config: AgentConfig, *, notifier: Notifier | None = None) -> None:
        self._config = config
        self._notifier = notifier or Notifier()
        self._episodes = Episodes(_LOGGER)
        self.board = Board(on_change=self._learn)
        self._collection = Collection(self.board, lambda: self._config.collection.process, self._ran)
        self._plugins = PluginLoader(self._collection)
        self._metrics: AgentMetrics | None = None
        self._ran_before: list[tuple[LoadedCollector, float]] = []
        self._listening: socket.socket | None = None
        self._telemetry: Telemetry | None = None
        self._publishing: Publishing | None = None
        self._viewed: tuple[Snapshot, AgentConfig, NodeView] | None = None
        self._node_id = ""
        self._stopped = False

    @property
    def node_id(self) -> str:
        """This node's id; empty before the start."""
        return self._node_id

    @property
    def config(self) -> AgentConfig:
        """The configuration in force."""
        return self._config

    @property
    def telemetry(self) -> Telemetry:
        """Where metrics go.

        Raises:
            RuntimeError: The agent has not been started.
        """
        if self._telemetry is None:
            raise RuntimeError("the agent has not been started")
        return self._telemetry

    @property
    def publisher(self) -> Publisher:
        """What publishes now; a reload may replace it.

        Raises:
            RuntimeError: The agent has not been started.
        """
        if self._publishing is None:
            raise RuntimeError("the agent has not been started")
        return self._publishing.publisher

    def start(self) -> None:
        """Start collecting, exporting and publishing.

        The first heartbeat goes out as soon as every collector has a first result, and at the latest
        `collection.first_results` seconds after the collectors began.

        Raises:
            UserError: Configuration, credentials, state directory or a port cannot be used.
        """
        try:
            self._start()
        except BaseException as error:
            # A heartbeat may have gone out before an exporter could not start.
            self.stop(draining=self._publishing is not None, timeout=1.0)
            if isinstance(error, CredentialError):
                raise error.located(self._config.source_of) from None
            raise

    def stop(self, *, draining: bool = True, timeout: float = STOP_WITHIN) -> None:
        """End within `timeout` seconds. Never waits for a collector. Idempotent.

        Args:
            draining: Whether to send a last heartbeat that says that the node leaves.
            timeout: Seconds that this may take.
        """
        if self._stopped:
            return
        self._stopped = True
        ends = time.monotonic() + timeout
        self._notifier.stopping()
        self.board.freeze()
        self._collection.cancel()
        if self._publishing is not None:
            self._publishing.stop(draining=draining, timeout=min(_DRAINING_SHARE, timeout * 0.7))
        if self._telemetry is not None:
            left = ends - time.monotonic()
            self._telemetry.shutdown(max(0.1, min(_EXPORT_SHARE, left * 0.7)))
        elif self._listening is not None:
            self._listening.close()
        left_behind = self._collection.join(max(0.1, min(0.5, ends - time.monotonic())))
        for loaded in left_behind:
            _LOGGER.warning("collector %s/%s still runs and is left behind", loaded.plugin, loaded.name)

    def run(self, reload: Callable[[], AgentConfig] | None = None) -> None:
        """Run until SIGTERM or SIGINT. Only for the main thread.

        SIGHUP applies what `reload` returns. The process ends within 5 s of the signal: what a plugin leaves
        behind (a thread that is no daemon, an exit handler that hangs) is cut off.

        Args:
            reload: Reads the configuration again; a UserError that it raises leaves the old one in force.

        Raises:
            UserError: The start failed, or publishing could not be taken up again after a reload.
        """
        with Signals() as signals:
            self.start()
            try:
                while signals.wait_for_reload():
                    self._reload_aside(reload, signals)
                _LOGGER.info("%s: the agent ends", signals.ending)
            finally:
                self.stop()
                leave_within(_EXIT_SHARE)

    def reload(self, config: AgentConfig) -> None:
        """Apply another configuration: what differs, and nothing else.

        Where a part of the new one cannot be used, that part stays as it was and the log says so. What the
        metrics are about is fixed for a process's life, so `[telemetry]` waits for a restart.

        Raises:
            UserError: Publishing could be taken up neither with the new settings nor with the old ones.
        """
        old = self._config
        waiting = [
            name
            for name, changed in (
                ("[telemetry]", old.telemetry != config.telemetry),
                ("the resource attributes of [node]", old.resource != config.resource),
            )
            if changed
        ]
        if waiting:
            _LOGGER.warning("changes of %s take effect at the next start", " and ".join(waiting))
        self._config = config
        self._plugins.reload(old, config)
        if self._publishing is not None and old.client != config.client:
            self._publishing.change(config.client, config.source_of)

    def view(self) -> NodeView:
        """Return what the node says of itself now: heartbeat and metrics both say this."""
        snapshot, config = self.board.read(), self._config
        viewed = self._viewed
        if viewed is None or viewed[0] is not snapshot or viewed[1] is not config:
            viewed = (snapshot, config, heartbeat.view(snapshot, config.node, config.pressure))
            self._viewed = viewed
        return viewed[2]

    def _start(self) -> None:
        config = self._config
        self._node_id = resolve_node_id(config.client)
        self._listening = listen(config.telemetry.prometheus)
        self._collection.start()
        self._plugins.start(config)
        began = time.monotonic()
        self._publishing = Publishing(config.client, self._node_id, self._report, self._notifier.watchdog)
        patience = config.collection.first_results - (time.monotonic() - began)
        if self._plugins.wait(patience):
            self._collection.wait_for_first(config.collection.first_results - (time.monotonic() - began))
        self._publish_first()
        self._measure()
        self._notifier.ready()
        self._tell_start()

    def _publish_first(self) -> None:
        """Start publishing, and leave the first heartbeat alone with the processor for a moment."""
        attempted = threading.Event()
        self.publisher.on_beat(lambda _attempt: attempted.set())
        self.publisher.start()
        if self.publisher.publishing:
            attempted.wait(_FIRST_ATTEMPT)

    def _measure(self) -> None:
        """Start the exporters: last, because OpenTelemetry's SDK takes a fifth of the whole start."""
        from openclaw_exporter.agent.metrics import AgentMetrics  # noqa: PLC0415
        from openclaw_exporter.telemetry.provider import Telemetry  # noqa: PLC0415

        config = self._config
        self._telemetry = Telemetry.start(
            config.telemetry,
            service="openclaw-exporter",
            node_id=self._node_id,
            resource=config.resource,
            listening=self._listening,
        )
        metrics = AgentMetrics(self._telemetry.meter, self.board.read, self.view)
        self._metrics = metrics
        self._learn(self.board.read())
        for loaded, seconds in self._ran_before:
            metrics.ran(loaded, seconds)
        if self._publishing is not None:
            self._publishing.measure(self._telemetry.meter)
        if self._listening is not None:
            self._telemetry.serve()

    def _report(self) -> Report:
        now = self.view()
        for what in now.cut:
            self._episodes.begin("cut", what, f"a heartbeat has no room for {what}: the others are left out")
        if not now.cut:
            self._episodes.end("cut", "everything has room in the heartbeat again")
        if now.pressing:
            text = f"{now.withheld} slots are withheld because of topic {now.pressing}"
            self._episodes.begin("pressure", now.pressing, text, level=logging.INFO)
        else:
            self._episodes.end("pressure", "no slots are withheld any more")
        return heartbeat.report(now, self._config.node)

    def _learn(self, snapshot: Snapshot) -> None:
        if self._metrics is not None:
            self._metrics.learn(snapshot)

    def _ran(self, loaded: LoadedCollector, seconds: float) -> None:
        if self._metrics is not None:
            self._metrics.ran(loaded, seconds)
        else:
            self._ran_before.append((loaded, seconds))

    def _reload_aside(self, reload: Callable[[], AgentConfig] | None, signals: Signals) -> None:
        """Reload on a thread of its own: a plugin that hangs while it loads must not keep SIGTERM waiting."""
        failures: list[BaseException] = []

        def work() -> None:
            try:
                self._reload_by(reload)
            except BaseException as error:  # noqa: BLE001 - raised again below
                failures.append(error)

        thread = threading.Thread(target=work, name="reload", daemon=True)
        thread.start()
        while thread.is_alive() and not signals.ending:
            thread.join(_SIGNAL_PAUSE)
        if failures:
            raise failures[0]

    def _reload_by(self, reload: Callable[[], AgentConfig] | None) -> None:
        if reload is None:
            _LOGGER.warning("SIGHUP: there is no configuration file to read again")
            return
        self._notifier.reloading()
        try:
            config = reload()
        except UserError as error:
            _LOGGER.error("the new configuration is wrong, and the old one stays in force: %s", error)  # noqa: TRY400 - the user's mistake, not ours
        else:
            self.reload(config)
        self._notifier.ready()

    def _tell_start(self) -> None:
        port = self.telemetry.prometheus_port
        where = f"metrics on http://{self._config.telemetry.prometheus.host}:{port}/metrics" if port else ""
        client = self._config.client
        if self.publisher.publishing:
            what = f"publishes to {client.endpoint} every {client.interval} s"
        else:
            what = "publishes nothing"
        _LOGGER.info("node %s %s", self._node_id, "; ".join(part for part in (what, where) if part))
