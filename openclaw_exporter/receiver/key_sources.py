"""Where keys come from: a file that is read when it changes, or a URL that is asked when it is time.

The last good set stays in force whatever happens to its source. An unknown `kid` makes one fetch, at most
every 30 seconds, however many tokens bring one.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from openclaw_exporter.errors import CredentialError, UnreadableError
from openclaw_exporter.logs import Episodes
from openclaw_exporter.receiver.files import Watched
from openclaw_exporter.wire.tokens import KeySet

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import httpx

    from openclaw_exporter.receiver.clock import Clock

    Fetch = Callable[[str], Awaitable[bytes]]

_logger = logging.getLogger(__name__)

MIN_FETCH_INTERVAL: Final = 30.0
REMEDY: Final = "see receiver.tokens"

_SOON: Final = 1.0
"""Who asks so little too early waits for the next fetch: they count the same interval by themselves."""

_FETCH_TIMEOUT: Final = 5.0
_MAX_BYTES: Final = 1 << 20


class Source(Protocol):
    """One key set.

    Attributes:
        keys: The last good set; None: it was never read.
        document: The same as it came.
    """

    keys: KeySet | None
    document: bytes

    async def open(self, kept: bytes | None) -> None:
        """Read the set for the first time; kept: what to go on with where that cannot be done now."""

    async def refresh(self, *, unknown: bool) -> bool:
        """Look for new keys, and return whether there are any."""

    async def close(self) -> None:
        """Give up what is being fetched."""


class FetchError(CredentialError):
    """A key set could not be fetched.

    Args:
        cause: What kind of fault it was.
        message: What is wrong.
    """

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


class FileKeys:
    """A key set in a file; read again when it has changed.

    Attributes:
        keys: The last good set.
        document: The same as it was read.
    """

    def __init__(self, path: str, logger: logging.Logger = _logger) -> None:
        self.keys: KeySet | None = None
        self.document = b""
        self._path = Path(path)
        self._watched = Watched(self._path)
        self._episodes = Episodes(logger)

    async def open(self, kept: bytes | None) -> None:
        """Read the file for the first time.

        Raises:
            CredentialError: It cannot be used, and nothing was kept.
        """
        self._watched.changed()
        try:
            self._read()
        except CredentialError as error:
            if kept is None:
                raise
            self._stay(error)
            self._use(kept)

    async def refresh(self, *, unknown: bool) -> bool:
        """Read the file where it has changed; return whether the keys have."""
        del unknown
        if not self._watched.changed():
            return False
        try:
            self._read()
        except CredentialError as error:
            self._stay(error)
            return False
        self._episodes.end("jwks", f"{self._path}: the key set can be used again")
        return True

    async def close(self) -> None:
        """Nothing is ever under way."""

    def _read(self) -> None:
        try:
            document = self._path.read_bytes()
        except OSError as error:
            raise UnreadableError(f"{self._path}: cannot be read: {error.strerror}; {REMEDY}") from None
        try:
            self._use(document)
        except CredentialError as error:
            raise CredentialError(f"{error}; {REMEDY}") from None

    def _use(self, document: bytes) -> None:
        self.keys = KeySet.from_jwks(document, source=str(self._path))
        self.document = document

    def _stay(self, error: CredentialError) -> None:
        self._watched.failed(error)
        self._episodes.begin("jwks", str(error), f"{error}; the last good key set stays in force")


class UrlKeys:
    """A key set behind a URL.

    Attributes:
        keys: The last good set.
        document: The same as it was fetched.
    """

    def __init__(
        self, url: str, every: float, clock: Clock, fetch: Fetch, logger: logging.Logger = _logger
    ) -> None:
        self._url = url
        self._get = fetch
        self._every = every
        self._clock = clock
        self._episodes = Episodes(logger)
        self._fetched_at: float | None = None
        self._fetching: asyncio.Task[bool] | None = None
        self.keys: KeySet | None = None
        self.document = b""

    async def open(self, kept: bytes | None) -> None:
        """Fetch the set for the first time, or go on with what was kept until the first refresh."""
        if kept is None:
            await self.refresh(unknown=False)
        else:
            self._use(kept)

    async def refresh(self, *, unknown: bool) -> bool:
        """Fetch the set where it is time; return whether the keys have changed. One fetch at a time."""
        if self._fetching is None:
            every = MIN_FETCH_INTERVAL if unknown or self.keys is None else self._every
            now = self._clock.elapsed()
            if self._fetched_at is not None and now - self._fetched_at < every:
                return False
            self._fetched_at = now
            self._fetching = asyncio.create_task(self._fetch(), name="openclaw-jwks")
            self._fetching.add_done_callback(self._done)
        # Whoever gives up waiting must not end the fetch that others wait for.
        return await asyncio.shield(self._fetching)

    async def close(self) -> None:
        """Give up a fetch that is under way."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait([self._fetching])

    def _done(self, _task: asyncio.Task[bool]) -> None:
        self._fetching = None

    async def _fetch(self) -> bool:
        try:
            document = await self._get(self._url)
            changed = document != self.document
            if changed:
                self._use(document)
        except CredentialError as error:
            cause = error.cause if isinstance(error, FetchError) else type(error).__name__
            unknown = "none of its keys is known yet, so tokens that need them get 503"
            meanwhile = "known keys stay in force" if self.keys else unknown
            self._episodes.begin("jwks", cause, f"{self._url}: {error}; {meanwhile}; {REMEDY}")
            return False
        self._episodes.end("jwks", f"{self._url}: the key set can be fetched again")
        return changed

    def _use(self, document: bytes) -> None:
        self.keys = KeySet.from_jwks(document, source=self._url)
        self.document = document


async def fetch_keys(url: str) -> bytes:
    """Return the document behind a URL.

    Raises:
        FetchError: It cannot be had.
    """
    import httpx  # noqa: PLC0415 - 100 ms and 15 MiB that a key set in a file does not need

    try:
        return await _get(httpx.AsyncClient(timeout=_FETCH_TIMEOUT, trust_env=False), url)
    except httpx.HTTPStatusError as error:
        # Its own text has several lines, of which one advertises.
        raise FetchError(type(error).__name__, f"it answered {error.response.status_code}") from None
    except (httpx.HTTPError, CredentialError, TimeoutError) as error:
        raise FetchError(type(error).__name__, str(error) or type(error).__name__) from error


class SharedFetches:
    """Fetches for several that would each fetch for themselves: one answer serves all for a while.

    Args:
        clock: This machine's clocks.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._fetches: dict[str, tuple[float, asyncio.Task[bytes]]] = {}

    async def fetch(self, url: str) -> bytes:
        """Return the document behind a URL, at most `MIN_FETCH_INTERVAL` old.

        Raises:
            FetchError: It could not be had, within the same time.
        """
        if 0 < (early := self._early(url)) < _SOON:
            await asyncio.sleep(early)
        if self._early(url) <= 0:
            task = asyncio.create_task(fetch_keys(url), name="openclaw-jwks")
            self._fetches[url] = self._clock.elapsed(), task
        return await asyncio.shield(self._fetches[url][1])

    def _early(self, url: str) -> float:
        if url not in self._fetches:
            return 0.0
        return self._fetches[url][0] + MIN_FETCH_INTERVAL - self._clock.elapsed()

    async def close(self) -> None:
        """Give up what is being fetched."""
        tasks = [task for _, task in self._fetches.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _get(client: httpx.AsyncClient, url: str) -> bytes:
    document = bytearray()
    async with client, asyncio.timeout(2 * _FETCH_TIMEOUT), client.stream("GET", url) as response:
        response.raise_for_status()
        async for chunk in response.aiter_bytes():
            document += chunk
            if len(document) > _MAX_BYTES:
                raise CredentialError(f"{url}: over {_MAX_BYTES} bytes; that is no key set")
    return bytes(document)
