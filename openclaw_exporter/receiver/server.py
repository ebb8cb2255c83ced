"""The running receiver: everything put together, its pulse, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import ssl
import threading
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from opentelemetry.metrics import NoOpMeterProvider

from openclaw_exporter.receiver.admin import Admin
from openclaw_exporter.receiver.application import Application
from openclaw_exporter.receiver.brake import Alarm
from openclaw_exporter.receiver.clock import SystemClock
from openclaw_exporter.receiver.credentials import Credentials
from openclaw_exporter.receiver.discovery.events import Hub
from openclaw_exporter.receiver.discovery.observers import Observers
from openclaw_exporter.receiver.discovery.reading import Reading
from openclaw_exporter.receiver.insecure import OpenApplication, OpenIntake
from openclaw_exporter.receiver.intake import Intake
from openclaw_exporter.receiver.keys import KeyRing
from openclaw_exporter.receiver.listener import Listener
from openclaw_exporter.receiver.liveness import Rules
from openclaw_exporter.receiver.metrics import ReceiverMetrics
from openclaw_exporter.receiver.publishing import Publishing
from openclaw_exporter.receiver.pulse import Pulse
from openclaw_exporter.receiver.rate import RateLimit
from openclaw_exporter.receiver.safety import require_safe, store_path
from openclaw_exporter.receiver.settings import TokenSettings
from openclaw_exporter.receiver.shedding import Shedding
from openclaw_exporter.receiver.store.embedded import EmbeddedStore
from openclaw_exporter.receiver.store.sqlite import Database
from openclaw_exporter.receiver.trust import Trust

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

    from openclaw_exporter.receiver.settings import ReceiverSettings
    from openclaw_exporter.telemetry.provider import Telemetry
    from openclaw_exporter.wire.tokens import Verifier

_logger = logging.getLogger(__name__)

STOP_SECONDS: Final = 5.0
"""How long requests get to end when the receiver stops."""


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
    with _signals(stopping, service), _quiet_handshakes():
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
        is_open = settings.insecure_dev
        tls = settings.tls
        self._credentials = None if is_open else Credentials(tls)
        self._trust = None if is_open else Trust(tls, settings.proxy)
        if self._trust is not None and self._credentials is not None:
            self._trust.use_authorities(self._credentials.authorities)
        self._keys = KeyRing(TokenSettings() if is_open else settings.tokens, clock)
        meter = telemetry.meter if telemetry else NoOpMeterProvider().get_meter("openclaw_exporter")
        rules = Rules(
            default_interval=settings.default_interval,
            max_interval=settings.max_interval,
            retention=settings.retention,
            target_rate=settings.target_rate,
        )
        limits = settings.limits
        self._shedding = Shedding(clock, max_lag=limits.loop_lag, readmissions=limits.readmissions)
        self._metrics = ReceiverMetrics(meter, EmbeddedStore.system)
        self._hub = Hub(settings.discovery.events_kept)
        self.store = EmbeddedStore(
            Database(store_path(settings.store.url)),
            rules,
            clock,
            Observers(self._metrics, self._hub),
            max_waiting=settings.store.max_waiting,
            turn_away=self._shedding.turn_away,
        )
        rate = RateLimit(limits.rate, limits.burst)
        intake = (OpenIntake if is_open else Intake)(settings, self._keys, rate, clock, self._shedding)
        self._publishing = Publishing(intake, self.store, self._metrics)
        application = OpenApplication if is_open else Application
        self._application = application(
            self._publishing, Reading(self.store, self._hub, settings.discovery), self._keys
        )
        self._pulse = Pulse(self._tick, self._second)
        self._alarm = Alarm()
        self._crowded = False
        self._verifier: Verifier | None = None
        self._refreshing: asyncio.Task[Any] | None = None
        self._listeners: list[Listener] = []
        self._serving = False

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Addresses]:
        """Run the receiver for as long as the context lasts."""
        async with contextlib.AsyncExitStack() as ending:
            ending.callback(self._metrics.close)
            ending.push_async_callback(self._keys.close)
            await self._keys.open()
            self._verifier = self._keys.verifier
            # Whatever cannot be listened on is found before the store is touched.
            api = self._listen_api()
            ending.callback(api.close)
            admin = self._listen_admin()
            if admin is not None:
                ending.callback(admin.close)
            await self.store.open()
            ending.push_async_callback(self.store.close)
            self._metrics.watch(self.store.census)
            self._hub.follow(self.store.moment)
            pulse = asyncio.create_task(self._pulse.run(), name="openclaw-pulse")
            ending.push_async_callback(self._end_refreshing)
            ending.push_async_callback(_cancelled, pulse)
            for listener in self._listeners:
                await listener.start()
                ending.push_async_callback(listener.stop, STOP_SECONDS)
            ending.callback(self._hub.close)
            self._serving = True
            yield Addresses(api.url, admin.url if admin is not None else None)

    def reload(self) -> None:
        """Read certificates and keys again where they have changed."""
        if self._serving:
            self._second()

    def _listen_api(self) -> Listener:
        settings = self._settings
        listener = Listener(
            self._application,
            settings.host,
            settings.port,
            key="receiver",
            limits=settings.limits,
            context=self._credentials.context if self._credentials else None,
            trust=self._trust,
            refused=self._refused,
            turn_away=self._shedding.turn_away,
            publishing=self._publishing,
        )
        self._listeners.append(listener)
        return listener

    def _listen_admin(self) -> Listener | None:
        settings = self._settings.admin
        if not settings.enabled:
            return None
        exposition = self._telemetry.exposition if self._telemetry else None
        listener = Listener(
            Admin(self._checks, exposition),
            settings.host,
            settings.port,
            key="receiver.admin",
            limits=self._settings.limits,
            context=None,
            trust=None,
            refused=lambda _slug, _status: None,
        )
        self._listeners.append(listener)
        return listener

    def _checks(self) -> Mapping[str, bool]:
        return {
            "store": self.store.available,
            "keys": self._settings.insecure_dev or self._keys.verifier is not None,
            "loop": not self._pulse.stalled,
        }

    def _refused(self, slug: str, status: int) -> None:
        """Note a request that the API's listener refused by itself."""
        self._metrics.refused(slug, status)
        self._crowded = self._crowded or slug == "shedding"

    def _tick(self) -> None:
        """What is done at every pulse: nodes that find no free connection cannot be heard."""
        if self._crowded:
            self._crowded = self._listeners[0].connections >= self._settings.limits.connections
        self._shedding.note_lag(self._pulse.last_lag)
        if self._crowded or self._shedding.active:
            self.store.shed()
        self.store.tick()

    def _second(self) -> None:
        """What is done once a second."""
        self._metrics.loop_lag = self._pulse.lag
        self._metrics.expiry_held = self._alarm.note(self.store.held())
        for listener in self._listeners:
            listener.refresh_date()
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._refresh(), name="openclaw-refresh")

    async def _refresh(self) -> None:
        try:
            if self._credentials is not None:
                await self._renew(self._credentials)
            others = self._trust is not None and self._trust.reload()
            if others:
                _logger.info("the deny list has changed")
            await self._keys.refresh()
            # A token of an unknown key may have changed them already.
            if self._keys.verifier is not self._verifier:
                _logger.info("the key set has changed")
                others, self._verifier = True, self._keys.verifier
            if others:
                self._recheck()
        except Exception:
            _logger.exception("certificates and keys could not be looked at")

    async def _renew(self, credentials: Credentials) -> None:
        renewed, other_authorities = credentials.reload()
        if renewed:
            await self._listeners[0].use(credentials.context)
            _logger.info("new connections use the certificate files as they are now")
        if other_authorities:
            if self._trust is not None:
                self._trust.use_authorities(credentials.authorities)
            # Somebody may have lost their authority: everybody shakes hands again.
            self._listeners[0].end_connections()

    def _recheck(self) -> None:
        """End the connections of those who are believed no more."""
        ended = self._listeners[0].recheck(self._keys.verifier)
        if ended:
            _logger.info("%d connections end: they are denied, or the key of their token is gone", ended)

    async def _end_refreshing(self) -> None:
        if self._refreshing is not None:
            await _cancelled(self._refreshing)


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


@contextlib.contextmanager
def _quiet_handshakes() -> Iterator[None]:
    """Keep failed handshakes out of the log: anybody can cause one, as often as they like."""
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, ssl.SSLError | ConnectionError | TimeoutError):
            _logger.debug("a connection failed: %s", error)
        elif before is not None:
            before(loop, context)
        else:
            loop.default_exception_handler(context)

    loop.set_exception_handler(handle)
    try:
        yield
    finally:
        loop.set_exception_handler(before)
