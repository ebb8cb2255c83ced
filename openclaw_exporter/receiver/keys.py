"""The keys that vouch for tokens, and the verifier that is made of them.

Tokens of an issuer whose key set was never read are answered 503, those of the others as ever.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from openclaw_exporter.logs import Episodes
from openclaw_exporter.receiver.key_sources import REMEDY, FileKeys, UrlKeys, fetch_keys
from openclaw_exporter.receiver.safety import MAX_LIFE, is_url
from openclaw_exporter.wire.tokens import Issuer, KeySet, Verifier

if TYPE_CHECKING:
    from collections.abc import Mapping

    from openclaw_exporter.receiver.clock import Clock
    from openclaw_exporter.receiver.key_sources import Fetch, Source
    from openclaw_exporter.receiver.settings import TokenSettings

_logger = logging.getLogger(__name__)

PATIENCE: Final = 600.0
"""Seconds for which listening time waits for the key sets of some issuers, while those of others are known.

Their nodes cannot be heard through no fault of theirs. But an issuer that is misconfigured never has keys,
and must not keep everybody's dead nodes alive for ever.
"""


class KeyRing:
    """Every issuer's keys, and the verifier that is made of them.

    Args:
        settings: The table `[receiver.tokens]`, known to be safe.
        clock: This machine's clocks.
        fetch: Returns the document behind a URL, or raises `FetchError`; by default over HTTP.
        logger: Who is told.
    """

    def __init__(
        self,
        settings: TokenSettings,
        clock: Clock,
        fetch: Fetch | None = None,
        logger: logging.Logger = _logger,
    ) -> None:
        self._settings = settings
        self._locations = {issuer.issuer: issuer.jwks or settings.jwks for issuer in settings.issuers}
        self._sources: dict[str, Source] = {
            location: UrlKeys(location, settings.refresh, clock, fetch or fetch_keys, logger)
            if is_url(location)
            else FileKeys(location, logger)
            for location in self._locations.values()
        }
        self._verifier: Verifier | None = None
        self._clock = clock
        self._patient_until = 0.0
        self._episodes = Episodes(logger)

    @property
    def verifier(self) -> Verifier | None:
        """Verifies with the present keys; another object after every change. None: before `open`."""
        return self._verifier

    @property
    def has_any(self) -> bool:
        """Whether the tokens of one issuer at least can be verified."""
        return any(source.keys for source in self._sources.values())

    @property
    def keeps_deaf(self) -> bool:
        """Whether nodes cannot be heard for want of their issuer's keys, and time must not count for that.

        Where there is no key at all it is so for as long as that lasts, else until patience ends.
        """
        if not self._missing():
            return False
        return not self.has_any or self.patience > 0

    @property
    def patience(self) -> float:
        """Seconds for which some issuers without keys may still keep the receiver deaf."""
        return max(0.0, self._patient_until - self._clock.elapsed())

    @property
    def documents(self) -> dict[str, bytes]:
        """The key sets in force as they were read, by location."""
        return {location: source.document for location, source in self._sources.items() if source.document}

    async def open(self, kept: Mapping[str, bytes] | None = None, patience: float | None = None) -> None:
        """Read all key sets for the first time, at once. A URL may be away; its keys are then not known yet.

        Args:
            kept: What to go on with where a set cannot be read now, by location. For a URL it counts at once.
            patience: What is left of it where others have waited already, seconds; None: all of it.

        Raises:
            CredentialError: A file cannot be used, and nothing was kept of it.
        """
        self._patient_until = self._clock.elapsed() + (PATIENCE if patience is None else patience)
        known = kept or {}
        await asyncio.gather(
            *(source.open(known.get(location)) for location, source in self._sources.items())
        )
        self._rebuild()

    async def refresh(self, *, unknown: bool = False) -> bool:
        """Look for new keys where it is time. Those of one source count at once, whatever the others do.

        Args:
            unknown: A token has a `kid` that nobody knows: it is time now, unless it was lately.

        Returns:
            Whether the keys have changed, and with them the verifier.
        """
        changed = await asyncio.gather(
            *(self._refresh(source, unknown=unknown) for source in self._sources.values())
        )
        self._tell_missing()
        return any(changed)

    async def close(self) -> None:
        """Give up what is being fetched."""
        for source in self._sources.values():
            await source.close()

    async def _refresh(self, source: Source, *, unknown: bool) -> bool:
        changed = await source.refresh(unknown=unknown)
        if changed:
            self._rebuild()
        return changed

    def _missing(self) -> list[str]:
        """Return the locations of the sets that were never read."""
        return [location for location, source in self._sources.items() if not source.keys]

    def _tell_missing(self) -> None:
        """Say so when patience has ended, and when nothing is missing any more."""
        missing = self._missing()
        if not missing:
            self._episodes.end("keys", "every issuer has its key set now")
        elif self.has_any and not self.keeps_deaf:
            listed = ", ".join(missing)
            fate = "the nodes of its issuer are answered 503, and expire from now on"
            text = f"{listed}: still no key set; {fate}; {REMEDY}"
            self._episodes.begin("keys", listed, text, level=logging.ERROR)

    def _rebuild(self) -> None:
        nobody = KeySet(())
        issuers = [
            Issuer(
                issuer=issuer.issuer,
                audience=issuer.audience,
                profile=issuer.profile,
                algorithms=self._settings.algorithms,
                max_life=issuer.max_life or MAX_LIFE[issuer.profile],
                keys=self._sources[self._locations[issuer.issuer]].keys or nobody,
            )
            for issuer in self._settings.issuers
        ]
        if issuers:
            self._verifier = Verifier(nobody, issuers, self._settings.leeway)
