"""The kept connection to one master: opened when needed, scripts loaded, and what is believed of it."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from typing import TYPE_CHECKING, Any, Final

from openclaw_exporter.logs import Episodes
from openclaw_exporter.receiver.store.redis.connection import (
    AnswerError,
    LostError,
    UnreachableError,
    packed,
)
from openclaw_exporter.receiver.store.redis.fitness import concerns
from openclaw_exporter.receiver.store.redis.opening import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from openclaw_exporter.receiver.store.redis.address import Host, Target
    from openclaw_exporter.receiver.store.redis.connection import Connection

_logger = logging.getLogger(__name__)

_INFO: Final = packed(("INFO",))
_LOOK: Final = packed(("INFO", "persistence")) + packed(("INFO", "replication"))
_REPLICA: Final = re.compile(rb"^slave\d+:ip=[^\r]*,port=[1-9]\d*,state=(\w+)", re.MULTILINE)
"""A replica and its state. What draws a copy once, as `redis-cli --rdb` does, has no port."""
LEAST_VERSION: Final = (6, 2)
"""Streams trimmed by MINID, and GRANTs by subcommand, are not older."""
_PROBE: Final = """
local answer = redis.pcall('SET', KEYS[1], ARGV[1], 'PX', 1000)
-- Redis 7.0 does not say itself which command it was.
return answer.err and redis.error_reply(answer.err .. ': SET') or answer
"""
_WAIT_SHARE: Final = 0.5
"""Of the time-out, what replicas get to confirm a write."""


class ReplicasError(LostError):
    """The master has what was sent, but not enough of its replicas."""


class Scripts:
    """The scripts that a connection knows by their digests.

    Args:
        sources: Their texts by name.
    """

    def __init__(self, sources: Mapping[str, str]) -> None:
        self._digests = {name: _digest(source) for name, source in sources.items()}
        texts = (*sources.values(), _PROBE)
        self.load = b"".join(packed(("SCRIPT", "LOAD", text)) for text in texts)
        self.count = len(texts)
        self.probe = _digest(_PROBE)

    def digest(self, name: str) -> str:
        """Return what EVALSHA calls a script."""
        return self._digests[name]


class Line:
    """See the module.

    Args:
        host: The master.
        target: How it is spoken to.
        scripts: What is loaded at every new connection.
        opened: Called with the line when a connection was opened.
    """

    def __init__(self, host: Host, target: Target, scripts: Scripts, opened: Callable[[Line], None]) -> None:
        self.host = host
        self.needed = 1 if target.replicas is None else target.replicas
        """How many replicas must have a durable write: one until it is known whether there is one."""
        self.reason: str | None = None
        """Why it is believed away; None: it is not."""
        self.retry_at = 0.0
        """Until when it need not be looked at again, in the loop's time."""
        self._target = target
        self._scripts = scripts
        self._opened = opened
        self._episodes = Episodes(_logger)
        self._opening = asyncio.Lock()
        self._connection: Connection | None = None
        self._wait_ms = max(1, int(target.timeout * _WAIT_SHARE * 1000))
        self._adapts = target.replicas is None

    @property
    def connection(self) -> Connection | None:
        """The connection, if one is open."""
        connection = self._connection
        return None if connection is None or connection.closed else connection

    async def ask(self, commands: Sequence[bytes], *, durable: bool) -> list[Any]:
        """Run packed commands in one batch and return their answers.

        Args:
            commands: The commands.
            durable: Whether the replicas are waited for.

        Raises:
            UnreachableError: The master is away; nothing was executed.
            LostError: The connection ended; anything may have been executed.
            ReplicasError: It was executed, but not enough replicas have it.
        """
        connection = self.connection or await self._open()
        # What is asked for now counts: others may learn of another number while this is under way.
        needed = self.needed if durable else 0
        looks = durable and not needed and self._adapts
        last, ends = (_LOOK, 2) if looks else (self._wait(needed), bool(needed))
        answers = await connection.ask(b"".join((*commands, last)), len(commands) + ends)
        said = _split(answers, len(commands))
        unknown = [index for index, answer in enumerate(answers) if _is(answer, "NOSCRIPT")]
        if unknown:
            # Somebody flushed the scripts; none of these calls was executed.
            batch = b"".join((self._scripts.load, *(commands[index] for index in unknown), last))
            count = self._scripts.count + len(unknown)
            again = await _ask_on(connection, batch, count + ends)
            said = _split(again, count)
            for index, answer in zip(unknown, again[self._scripts.count :], strict=True):
                answers[index] = answer
        if looks and _is_followed(*said):
            self.needed = needed = 1
            said = await _ask_on(connection, self._wait(needed), 1)
        if needed:
            self._check(said[0], needed)
        if durable:
            has = said[0] if needed else 0
            _logger.debug("%s: %d calls are stored, also at %d replicas", self.host, len(commands), has)
        return answers

    async def verify(self, keys: Sequence[str]) -> None:
        """Write a key that vanishes by itself in each partition, as scripts do, and wait for the replicas.

        Raises:
            UnreachableError: The master cannot be used now.
            LostError: As in `ask`.
        """
        probes = [packed(("EVALSHA", self._scripts.probe, 1, key, 1)) for key in keys]
        for answer in await self.ask(probes, durable=True):
            if isinstance(answer, AnswerError) and answer.code not in {"MOVED", "ASK", "TRYAGAIN"}:
                raise _unfit(self.host, answer)

    def close(self) -> None:
        """Close the connection; whoever waits gets a `LostError`."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def _open(self) -> Connection:
        async with self._opening:
            if self.connection is not None:
                return self.connection
            connection = await connect(self.host, self._target)
            try:
                await self._prepare(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
            self._opened(self)
            return connection

    async def _prepare(self, connection: Connection) -> None:
        greeting = connection.greeting
        if greeting.version < LEAST_VERSION:
            version, least = (".".join(map(str, each)) for each in (greeting.version, LEAST_VERSION))
            raise UnreachableError(
                f"{self.host}: is {greeting.server} {version}, {least} is needed", refused=True
            )
        if not greeting.is_master:
            raise UnreachableError(f"{self.host}: is a replica, which takes no writes")
        try:
            *answers, info = await connection.ask(self._scripts.load + _INFO, self._scripts.count + 1)
        except LostError as error:
            raise UnreachableError(str(error)) from None
        for answer in answers:
            if isinstance(answer, AnswerError):
                raise _unfit(self.host, answer)
        for concern in concerns(self.host, info):
            self._episodes.begin(f"fitness {self.host}", concern, concern)

    def _wait(self, needed: int) -> bytes:
        return packed(("WAIT", needed, self._wait_ms)) if needed else b""

    def _check(self, reached: Any, needed: int) -> None:
        if isinstance(reached, AnswerError):
            raise ReplicasError(f"{self.host}: WAIT: {reached}")
        if reached < needed:
            raise ReplicasError(
                f"{self.host}: {reached} of {needed} replicas have confirmed a write within "
                f"{self._wait_ms} ms"
            )


def _split(answers: list[Any], count: int) -> list[Any]:
    """Take what follows the first answers off a list, and return it."""
    rest = answers[count:]
    del answers[count:]
    return rest


async def _ask_on(connection: Connection, batch: bytes, count: int) -> list[Any]:
    """Ask where something of the same call was executed already.

    Raises:
        LostError: The connection has ended.
    """
    try:
        return await connection.ask(batch, count)
    except UnreachableError as error:
        raise LostError(str(error)) from None


def _is_followed(persistence: Any, replication: Any) -> bool:
    """Whether a master has a replica that may be promoted before it has what was written just now.

    One that is being filled may, as soon as it has the snapshot: what was written since that began follows
    behind it. Only where the snapshot is still to begin it will be in that. Who may not ask knows of none.
    """
    if isinstance(replication, AnswerError):
        return False
    has_begun = isinstance(persistence, AnswerError) or b"rdb_bgsave_in_progress:0" not in persistence
    return any(has_begun or state != b"wait_bgsave" for state in _REPLICA.findall(replication))


def is_forbidden(answer: AnswerError) -> bool:
    """Whether a server says that our user may not do something."""
    said = str(answer)
    of_script = "ACL failure in script" in said or "The user executing the script can't" in said
    return of_script or answer.code in {"NOPERM", "NOAUTH"}


def _unfit(host: Host, answer: AnswerError) -> UnreachableError:
    forbidden = is_forbidden(answer)
    remedy = '; see "A registry in Redis" in docs/operations.md for the rights it needs' if forbidden else ""
    return UnreachableError(f"{host}: {answer}{remedy}", refused=forbidden)


def _is(answer: Any, code: str) -> bool:
    return type(answer) is AnswerError and answer.code == code


def _digest(source: str) -> str:
    return hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
