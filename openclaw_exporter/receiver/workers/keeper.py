"""Keeps what the workers serve with, for those that are started while a file is torn or a URL is away."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from openclaw_exporter.receiver.credentials import Credentials
from openclaw_exporter.receiver.deny import DenyList
from openclaw_exporter.receiver.kept import NOTHING, Kept
from openclaw_exporter.receiver.keys import KeyRing
from openclaw_exporter.receiver.trust import Trust

if TYPE_CHECKING:
    from openclaw_exporter.receiver.clock import Clock
    from openclaw_exporter.receiver.key_sources import Fetch
    from openclaw_exporter.receiver.settings import ReceiverSettings

_logger = logging.getLogger(__name__)

_nobody = logging.Logger("nobody")  # noqa: LOG001 - without a parent: what is wrong the workers tell
_nobody.addHandler(logging.NullHandler())


class Keeper:
    """Reads what the workers read, as often as they do, in the registry's process.

    Args:
        settings: The configuration.
        clock: This machine's clocks.
        fetch: Returns the key set behind a URL, as the workers are given it.
    """

    def __init__(self, settings: ReceiverSettings, clock: Clock, fetch: Fetch) -> None:
        self._settings = settings
        self._keys = KeyRing(settings.tokens, clock, fetch, _nobody)
        self._credentials: Credentials | None = None
        self._deny = DenyList(settings.tls.deny_list, _nobody)
        self._looking: asyncio.Task[None] | None = None

    @property
    def kept(self) -> Kept:
        """What was last read and found good."""
        if self._credentials is None:
            return NOTHING
        keys = self._keys
        return Kept(self._credentials.files, self._deny.content, keys.documents, keys.patience)

    async def open(self) -> None:
        """Read everything for the first time, as a worker will.

        Raises:
            ConfigError: See `Trust`.
            CredentialError: A file cannot be used.
        """
        settings = self._settings
        if not settings.insecure_dev:
            trust = Trust(settings.tls, settings.proxy, self._deny)
            credentials = Credentials(settings.tls, logger=_nobody, accepts=trust.read_authorities)
            self._deny.open()
            await self._keys.open()
            self._credentials = credentials

    def look(self, *, unknown: bool = False) -> None:
        """Look whether something has changed.

        Args:
            unknown: A worker has met a key that it did not know.
        """
        if self._credentials is not None and (self._looking is None or self._looking.done()):
            looking = self._look(self._credentials, unknown=unknown)
            self._looking = asyncio.create_task(looking, name="openclaw-keeper")

    async def close(self) -> None:
        """Give up what is under way."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])
        await self._keys.close()

    async def _look(self, credentials: Credentials, *, unknown: bool) -> None:
        try:
            credentials.reload()
            self._deny.reload()
            await self._keys.refresh(unknown=unknown)
        except Exception:
            _logger.exception("certificates and keys could not be looked at")
