"""What faces clients: certificates, keys, admission, and the API's connections.

A receiver has one in its own process, or one in each of its worker processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final, Protocol

from openclaw_exporter.receiver.application import Application
from openclaw_exporter.receiver.credentials import Credentials
from openclaw_exporter.receiver.deny import DenyList
from openclaw_exporter.receiver.insecure import OpenApplication, OpenIntake
from openclaw_exporter.receiver.intake import Intake
from openclaw_exporter.receiver.kept import NOTHING, Kept
from openclaw_exporter.receiver.keys import KeyRing
from openclaw_exporter.receiver.listener import Listener
from openclaw_exporter.receiver.publishing import Publishing
from openclaw_exporter.receiver.rate import RateLimit
from openclaw_exporter.receiver.settings import TokenSettings
from openclaw_exporter.receiver.trust import Trust

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from openclaw_exporter.receiver.answers import Handlers
    from openclaw_exporter.receiver.clock import Clock
    from openclaw_exporter.receiver.key_sources import Fetch
    from openclaw_exporter.receiver.metrics import ReceiverMetrics
    from openclaw_exporter.receiver.settings import ReceiverSettings
    from openclaw_exporter.receiver.shedding import Shedding
    from openclaw_exporter.receiver.store import Recorder
    from openclaw_exporter.wire.tokens import Verifier

_logger = logging.getLogger(__name__)

STOP_SECONDS: Final = 4.0
"""How long requests get to end when the receiver stops."""


class Reception(Protocol):
    """What takes the API's connections: a `Front`, or those of several processes together."""

    async def open(self) -> None:
        """Read certificates and keys for the first time.

        Raises:
            CredentialError: A file cannot be used.
        """

    async def start(self, listening: socket.socket) -> None:
        """Begin to take connections."""

    async def stop(self) -> None:
        """Take no more, and let requests end."""

    async def close(self) -> None:
        """Give up what is under way."""

    def tick(self, lag: float) -> None:
        """Let time pass, four times a second; lag: how late the loop's last pulse came, seconds."""

    def second(self) -> None:
        """Do what is done once a second."""

    def reload(self) -> None:
        """Look at certificates and keys at once."""

    @property
    def lag(self) -> float:
        """How late the loops of other processes came, at worst, within the last 15 seconds; seconds."""

    def checks(self) -> Mapping[str, bool]:
        """Return what must be true for it to be of use, by name."""


class Front:
    """A `Reception` in this process.

    Args:
        settings: The configuration.
        clock: This machine's clocks.
        shedding: Turns some away when there are too many.
        metrics: Counts.
        store: Records heartbeats.
        handlers: What answers readers, by operation.
        fetch: Returns the key set behind a URL; see `KeyRing`.
        kept: What to go on with where certificates or keys cannot be read now.
    """

    def __init__(
        self,
        settings: ReceiverSettings,
        clock: Clock,
        shedding: Shedding,
        metrics: ReceiverMetrics,
        store: Recorder,
        handlers: Handlers,
        fetch: Fetch | None = None,
        kept: Kept = NOTHING,
    ) -> None:
        self._settings = settings
        self._kept = kept
        self._shedding = shedding
        self._metrics = metrics
        self._store = store
        self._is_open = settings.insecure_dev
        tls = settings.tls
        self._credentials: Credentials | None = None
        self._trust: Trust | None = None
        if not self._is_open:
            deny = DenyList(tls.deny_list)
            self._trust = Trust(tls, settings.proxy, deny)
            self._credentials = Credentials(tls, kept.tls, accepts=self._trust.read_authorities)
            deny.open(kept.denied)
            self._trust.use_authorities(self._credentials.authorities)
        self._keys = KeyRing(TokenSettings() if self._is_open else settings.tokens, clock, fetch)
        rate = RateLimit(settings.limits.rate, settings.limits.burst)
        admits = OpenIntake if self._is_open else Intake
        self._publishing = Publishing(admits(settings, self._keys, rate, clock, shedding), store, metrics)
        answers = OpenApplication if self._is_open else Application
        self._application = answers(self._publishing, handlers, self._keys)
        self._crowded = False
        self._verifier: Verifier | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._listener: Listener | None = None
        self._serving = False

    @property
    def listener(self) -> Listener:
        """What serves the connections, once started."""
        assert self._listener is not None  # noqa: S101 - asked for after the start only
        return self._listener

    async def open(self) -> None:
        """Read the keys for the first time; see `Reception.open`."""
        await self._keys.open(self._kept.keys, self._kept.patience)
        self._kept = NOTHING
        self._verifier = self._keys.verifier

    async def start(self, listening: socket.socket | None) -> None:
        """Begin to take connections; None: others accept them."""
        self._listener = Listener(
            self._application,
            listening,
            limits=self._settings.limits,
            context=self._credentials.context if self._credentials else None,
            trust=self._trust,
            refused=self._refused,
            turn_away=self._shedding.turn_away,
            publishing=self._publishing,
        )
        await self._listener.start()
        self._serving = True

    async def stop(self) -> None:
        """Take no more connections, and let requests end."""
        self._serving = False
        if self._refreshing is not None:
            self._refreshing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._refreshing
        if self._listener is not None:
            await self._listener.stop(STOP_SECONDS)

    async def close(self) -> None:
        """Give up what is under way."""
        await self._keys.close()

    def checks(self) -> Mapping[str, bool]:
        """Return what must be true for it to be of use, by name."""
        return {"keys": self._has_keys}

    @property
    def _has_keys(self) -> bool:
        """Whether anybody's token can be verified; a receiver without tokens needs no keys."""
        return self._is_open or self._keys.has_any

    def tick(self, lag: float) -> None:
        """Note whether somebody is turned away.

        Nodes that find no free connection cannot be heard, nor can those whose issuer has no key set yet.
        """
        if self._crowded:
            self._crowded = self.listener.connections >= self._settings.limits.connections
        self._shedding.note_lag(lag)
        away = self._crowded or self._keys.keeps_deaf
        if away or self._shedding.active or self.listener.has_turned_away():
            self._store.shed()

    lag = 0.0

    def reload(self) -> None:
        """Look at certificates and keys at once."""
        self.second()

    def second(self) -> None:
        """Look at certificates and keys."""
        if not self._serving:
            return
        self.listener.refresh_date()
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._refresh(), name="openclaw-refresh")

    def _refused(self, slug: str, status: int) -> None:
        """Note a request that the API's listener refused by itself."""
        self._metrics.refused(slug, status)
        self._crowded = self._crowded or slug == "shedding"

    async def _refresh(self) -> None:
        try:
            if self._credentials is not None:
                self._renew(self._credentials)
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

    def _renew(self, credentials: Credentials) -> None:
        renewed, other_authorities = credentials.reload()
        if renewed:
            self.listener.use(credentials.context)
            _logger.info("new connections use the certificate files as they are now")
        if other_authorities:
            if self._trust is not None:
                self._trust.use_authorities(credentials.authorities)
            # Somebody may have lost their authority: everybody shakes hands again.
            self.listener.end_connections()

    def _recheck(self) -> None:
        """End the connections of those who are believed no more."""
        ended = self.listener.recheck(self._keys.verifier)
        if ended:
            _logger.info("%d connections end: they are denied, or the key of their token is gone", ended)
