"""The running receiver: everything put together, its pulse, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import signal
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from opentelemetry.metrics import NoOpMeterProvider

from openclaw_exporter.receiver.admin import ADMIN_CONNECTIONS, Admin
from openclaw_exporter.receiver.brake import Alarm
from openclaw_exporter.receiver.clock import SystemClock
from openclaw_exporter.receiver.discovery.events import Hub
from openclaw_exporter.receiver.discovery.reading import Reading
from openclaw_exporter.receiver.front import STOP_SECONDS, Front
from openclaw_exporter.receiver.listener import Listener, bind, url_of
from openclaw_exporter.receiver.liveness import Rules
from openclaw_exporter.receiver.metrics import ReceiverMetrics
from openclaw_exporter.receiver.pulse import Pulse
from openclaw_exporter.receiver.quiet import quiet_handshakes
from openclaw_exporter.receiver.safety import require_safe
from openclaw_exporter.receiver.shedding import Shedding
from openclaw_exporter.receiver.store.choice import make_store, system_of
from openclaw_exporter.receiver.workers.crew import Crew

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

    from openclaw_exporter.receiver.front import Reception
    from openclaw_exporter.receiver.settings import ReceiverSettings
    from openclaw_exporter.telemetry.provider import Telemetry

_logger = logging.getLogger(__name__)


class Addresses(NamedTuple):
    """Where a receiver listens.

    Attributes:
        api_url: The API's base URL.
        admin_url: The admin listener's base URL; None where it is off.
    """

    api_url: str
    admin_url: str | None


async def serve(
    settings: ReceiverSettings,
    *,
    telemetry: Telemetry | None = None,
    ready: Callable[[Addresses], None] | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Run a receiver until SIGTERM or SIGINT, or until `stop` is set.

    SIGHUP reads certificates and keys again at once; they are read again when they change anyway.

    Args:
        settings: The configuration.
        telemetry: Where metrics go; `/metrics` shows its exposition. It is not shut down here.
        ready: Called once when connections are accepted.
        stop: Ends the receiver when set; signals are heard in the main thread only.

    Raises:
        UserError: The configuration is unsafe, or a file, address or store cannot be used.
    """
    stopping = stop or asyncio.Event()
    service = Service(settings, telemetry)
    if settings.insecure_dev:
        _logger.warning(
            "receiver.insecure_dev is on: no TLS, no certificates, no tokens; whoever connects publishes as "
            "any node and reads the registry. This is for trying things out on this machine only"
        )
    with _signals(stopping, service), quiet_handshakes():
        async with service.running() as addresses:
            if ready is not None:
                ready(addresses)
            _logger.info("receiving heartbeats at %s", addresses.api_url)
            await stopping.wait()
            _logger.info("stopping")


class Service:
    """The parts of one receiver.

    Args:
        settings: The configuration.
        telemetry: Where metrics go.
    """

    def __init__(self, settings: ReceiverSettings, telemetry: Telemetry | None) -> None:
        require_safe(settings)
        self._settings = settings
        self._telemetry = telemetry
        clock = SystemClock()
        meter = telemetry.meter if telemetry else NoOpMeterProvider().get_meter("openclaw_exporter")
        rules = Rules(
            default_interval=settings.default_interval,
            max_interval=settings.max_interval,
            retention=settings.retention,
            target_rate=settings.target_rate,
        )
        limits = settings.limits
        shedding = Shedding(clock, max_lag=limits.loop_lag, readmissions=limits.readmissions)
        self._metrics = ReceiverMetrics(meter, system_of(settings.store.url))
        self._hub = Hub(settings.discovery.events_kept)
        self.store = make_store(settings.store, rules, clock, self._metrics, self._hub, shedding.turn_away)
        handlers = Reading(self.store, self._hub, settings.discovery).handlers
        parts = (settings, clock, shedding, self._metrics, self.store, handlers)
        self._reception: Reception = Crew(*parts) if settings.workers > 1 else Front(*parts)
        self._pulse = Pulse(self._tick, self._second)
        self._alarm = Alarm()
        self._admin: Listener | None = None
        self._serving = False

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Addresses]:
        """Run the receiver for as long as the context lasts."""
        settings = self._settings
        async with contextlib.AsyncExitStack() as ending:
            ending.callback(self._metrics.close)
            ending.push_async_callback(self._reception.close)
            await self._reception.open()
            # Whatever cannot be listened on is found before the store is touched.
            api = ending.enter_context(bind(settings.host, settings.port, "receiver"))
            api_url = url_of(api, tls=not settings.insecure_dev)
            admin, admin_url = None, None
            if settings.admin.enabled:
                admin = ending.enter_context(bind(settings.admin.host, settings.admin.port, "receiver.admin"))
                admin_url = url_of(admin, tls=False)
            await self.store.open()
            ending.push_async_callback(self.store.close)
            self._metrics.watch(self.store.census)
            self._hub.follow(self.store.moment)
            pulse = asyncio.create_task(self._pulse.run(), name="openclaw-pulse")
            ending.push_async_callback(_cancelled, pulse)
            ending.push_async_callback(self._stop)
            await self._reception.start(api)
            if admin is not None:
                await self._start_admin(admin)
            ending.callback(self._hub.close)
            self._serving = True
            yield Addresses(api_url, admin_url)

    def reload(self) -> None:
        """Read certificates and keys again where they have changed."""
        if self._serving:
            self._reception.reload()

    async def _stop(self) -> None:
        """Stop both listeners at the same time, so that a client that does not read delays the end once."""
        stopping = [self._reception.stop()]
        if self._admin is not None:
            stopping.append(self._admin.stop(STOP_SECONDS))
        # The store goes next: whatever happens to the one, the other has ended by then.
        for failure in filter(None, await asyncio.gather(*stopping, return_exceptions=True)):
            raise failure

    async def _start_admin(self, listening: socket.socket) -> None:
        exposition = self._telemetry.exposition if self._telemetry else None
        self._admin = Listener(
            Admin(self._checks, exposition),
            listening,
            limits=dataclasses.replace(self._settings.limits, connections=ADMIN_CONNECTIONS),
            context=None,
            trust=None,
            refused=lambda _slug, _status: None,
        )
        await self._admin.start()

    def _checks(self) -> Mapping[str, bool]:
        return {
            "store": self.store.available,
            **self._reception.checks(),
            "loop": not self._pulse.stalled,
        }

    def _tick(self) -> None:
        """What is done at every pulse."""
        self._reception.tick(self._pulse.last_lag)
        self.store.tick()

    def _second(self) -> None:
        """What is done once a second."""
        self._metrics.loop_lag = max(self._pulse.lag, self._reception.lag)
        self._metrics.expiry_held = self._alarm.note(self.store.held())
        if self._admin is not None:
            self._admin.refresh_date()
        self._reception.second()


async def _cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@contextlib.contextmanager
def _signals(stopping: asyncio.Event, service: Service) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    handlers: dict[signal.Signals, Callable[[], None]] = {
        signal.SIGTERM: stopping.set,
        signal.SIGINT: stopping.set,
        signal.SIGHUP: service.reload,
    }
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)
