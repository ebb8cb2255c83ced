"""The workers of a receiver together: started, watched, replaced, ended. A `Reception`."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
import time
from typing import TYPE_CHECKING, Final

from openclaw_exporter.errors import UserError
from openclaw_exporter.receiver.key_sources import FetchError, SharedFetches
from openclaw_exporter.receiver.listening import STALL_SECONDS
from openclaw_exporter.receiver.pulse import PERIOD
from openclaw_exporter.receiver.rate import RateLimit
from openclaw_exporter.receiver.workers.clerk import Clerk
from openclaw_exporter.receiver.workers.desk import Desk
from openclaw_exporter.receiver.workers.door import Door
from openclaw_exporter.receiver.workers.keeper import Keeper
from openclaw_exporter.receiver.workers.member import Member
from openclaw_exporter.receiver.workers.messages import (
    Asked,
    Counted,
    Greeting,
    KeysAsked,
    KeysFetched,
    Left,
    Logged,
    Reload,
    Submitted,
    Taken,
    pack_settings,
)

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from openclaw_exporter.receiver.answers import Handlers
    from openclaw_exporter.receiver.clock import Clock
    from openclaw_exporter.receiver.metrics import ReceiverMetrics
    from openclaw_exporter.receiver.settings import ReceiverSettings
    from openclaw_exporter.receiver.shedding import Shedding
    from openclaw_exporter.receiver.store import Recorder
    from openclaw_exporter.receiver.workers.messages import FromWorker

_logger = logging.getLogger(__name__)

_STALLED: Final = round(STALL_SECONDS / PERIOD)
"""Ticks of silence after which a worker cannot hear its nodes."""

_HANGS: Final = 6 * _STALLED
"""Ticks of silence after which it is replaced. Not seconds: all may have been stopped together."""

_STARTS: Final = 4 * _HANGS
"""Ticks that it may take to start."""

_QUIET: Final = 4
"""Ticks of silence after which it is passed no more connections while another may have them."""

_STOP_SECONDS: Final = 4.5
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 30.0
_LIVED_WELL: Final = 60.0
_SAID_FOR: Final = 5.0
_SAID_MOST: Final = 256


class Crew:
    """Several workers in front of one registry.

    Args:
        settings: The configuration.
        clock: This machine's clocks.
        shedding: Turns some away while this process has too much to do.
        metrics: Counts, for all.
        store: The registry.
        handlers: What answers readers.
    """

    def __init__(
        self,
        settings: ReceiverSettings,
        clock: Clock,
        shedding: Shedding,
        metrics: ReceiverMetrics,
        store: Recorder,
        handlers: Handlers,
    ) -> None:
        self._count = settings.workers
        self._clock = clock
        self._packed = pack_settings(_share(settings))
        self._shedding = shedding
        self._metrics = metrics
        self._store = store
        self._handlers = handlers
        self._fetches = SharedFetches(clock)
        self._keeper = Keeper(settings, clock, self._fetches.fetch)
        self._fetching: set[asyncio.Task[None]] = set()
        rate = RateLimit(settings.limits.rate, settings.limits.burst)
        self._clerk = Clerk(store, rate, clock, shedding, metrics)
        self._members: dict[Member, Desk] = {}
        self._pause = _FIRST_PAUSE
        self._told_until = -math.inf
        self._starting: set[asyncio.Task[None]] = set()
        self._said: dict[tuple[int, str, str], tuple[Member, float]] = {}
        self._door: Door | None = None
        self._serving = False
        self._all_ready = asyncio.Event()
        self._failed: Member | None = None
        metrics.children = self._pids

    @property
    def lag(self) -> float:
        """How late a worker's loop came, at worst, within the last 15 seconds; seconds."""
        return max((member.status.lag for member in self._members), default=0.0)

    async def open(self) -> None:
        """Find what is wrong with certificates and keys before a worker is started."""
        await self._keeper.open()

    async def start(self, listening: socket.socket) -> None:
        """Start the workers, and then take connections.

        Raises:
            UserError: One ends before it is ready.
        """
        for _ in range(self._count):
            await self._begin()
        await self._all_ready.wait()
        if self._failed is not None:
            status = self._failed.exit_status
            raise UserError(f"receiver.workers: a worker ended with {status} before it was ready, see above")
        self._serving = True
        self._door = Door(listening, self._takers)
        self._door.open()

    async def stop(self) -> None:
        """Take no more connections, let requests end, and end the workers."""
        self._serving = False
        if self._door is not None:
            self._door.close()
        for task in list(self._starting):
            task.cancel()
        members = list(self._members)
        for member in members:
            member.stop()
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await _all_gone(members)
        except TimeoutError:
            for member in members:
                member.kill()
            await _all_gone(members)

    async def close(self) -> None:
        """Give up what is under way."""
        await self._keeper.close()
        await self._fetches.close()

    def tick(self, lag: float) -> None:
        """Note what keeps nodes from being heard; a worker that hangs is replaced."""
        self._shedding.note_lag(lag)
        told = self._shedding.active or self._clock.elapsed() < self._told_until
        deaf = told or not any(member.ready for member in self._members)
        for member in self._members:
            member.silence += 1
            # What it turns away it tells in time; what it does not hear it cannot.
            deaf = deaf or member.status.shedding or (member.ready and member.silence > _STALLED)
            if member.silence > (_HANGS if member.ready else _STARTS):
                _logger.error("worker %d does not answer; another takes its place", member.pid)
                member.kill()
                member.silence = 0
        if deaf:
            self._store.shed()

    def second(self) -> None:
        """Look at certificates and keys for workers to come; each worker sees to its own."""
        self._keeper.look()

    def reload(self) -> None:
        """Let all workers look at certificates and keys now."""
        self._keeper.look()
        for member in self._members:
            member.send(Reload())

    def checks(self) -> Mapping[str, bool]:
        """Return what must be true for it to be of use, by name: one worker is enough."""
        ready = [member for member in self._members if member.ready]
        checks = {"workers": bool(ready)}
        for member in ready:
            for name, passed in member.status.checks.items():
                checks[name] = checks.get(name, False) or passed
        return checks

    def _takers(self) -> list[Member]:
        """Return whom connections can be passed: workers that hang or lack keys if there is no other."""
        ready = [member for member in self._members if member.ready]
        return [member for member in ready if member.silence <= _QUIET and member.is_of_use] or ready

    def _pids(self) -> list[int]:
        return [member.pid for member in list(self._members)]

    async def _replace(self) -> None:
        """Start another worker in the place of one that has ended, the later the more have ended lately."""
        while True:
            pause, self._pause = self._pause, min(2 * self._pause, _LONGEST_PAUSE)
            await asyncio.sleep(pause)
            try:
                await self._begin()
            except OSError as error:
                _logger.error("a worker cannot be started: %s", error)  # noqa: TRY400 - the system's own words
            else:
                return

    async def _begin(self) -> None:
        greeting = Greeting(self._packed, logging.getLogger().getEffectiveLevel(), self._keeper.kept)
        member = Member(greeting, self._received, self._ended)
        await member.start()
        self._members[member] = Desk(self._handlers, member.send)

    def _received(self, member: Member, message: FromWorker) -> None:
        desk = self._members[member]
        if isinstance(message, Submitted):
            self._clerk.take(message, member.send)
        elif isinstance(message, Asked):
            desk.asked(message)
        elif isinstance(message, Taken):
            desk.taken(message)
        elif isinstance(message, Left):
            desk.left(message)
        elif isinstance(message, Counted):
            self._metrics.add(dict(message.refused), dict(message.requests))
        elif isinstance(message, Logged):
            self._log(member, message)
        elif isinstance(message, KeysAsked):
            task = asyncio.create_task(self._fetch(member, message), name="openclaw-keys-asked")
            self._fetching.add(task)
            task.add_done_callback(self._fetching.discard)
        elif all(member.ready for member in self._members) and len(self._members) == self._count:
            self._all_ready.set()

    def _ended(self, member: Member) -> None:
        self._members.pop(member).close()
        # Those whom it has told to come back later still believe it.
        self._told_until = max(self._told_until, self._clock.elapsed() + member.status.due)
        if not self._serving:
            self._failed = member
            self._all_ready.set()
            return
        if time.monotonic() - member.started_at >= _LIVED_WELL:
            self._pause = _FIRST_PAUSE
        _logger.log(
            logging.WARNING if member.exit_status == 0 else logging.ERROR,
            "worker %d has ended with %s; another is started in %.1f s",
            member.pid,
            member.exit_status,
            self._pause,
        )
        task = asyncio.create_task(self._replace(), name="openclaw-worker-start")
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    async def _fetch(self, member: Member, asked: KeysAsked) -> None:
        """Fetch a key set for a worker; what was just fetched for another is good for it too."""
        try:
            document, cause, error = await self._fetches.fetch(asked.url), "", ""
            # What this worker serves with now, the next one that starts shall too.
            self._keeper.look(unknown=True)
        except FetchError as failed:
            document, cause, error = b"", failed.cause, str(failed)
        member.send(KeysFetched(asked.url, document, cause, error))

    def _log(self, member: Member, logged: Logged) -> None:
        """Log what a worker says, once where several say the same within seconds."""
        key, now = (logged.level, logged.logger, logged.text), time.monotonic()
        by, at = self._said.get(key, (member, -math.inf))
        if by is not member and now - at < _SAID_FOR:
            return
        if len(self._said) >= _SAID_MOST:
            self._said.clear()
        self._said[key] = (member, now)
        logging.getLogger(logged.logger).log(logged.level, "%s", logged.text, extra=logged.extra)


def _share(settings: ReceiverSettings) -> ReceiverSettings:
    """Return a worker's configuration: what is limited for all together is shared out."""
    limits = dataclasses.replace(
        settings.limits,
        connections=math.ceil(settings.limits.connections / settings.workers),
        readmissions=max(1.0, settings.limits.readmissions / settings.workers),
    )
    return dataclasses.replace(settings, limits=limits)


async def _all_gone(members: list[Member]) -> None:
    for member in members:
        await member.gone.wait()
