"""The way to the partitions of the registry in Redis: which server has them, and calls to them in batches.

A call is repeated only where nothing of it can have been executed: the server said so, or it was never sent.
Everything else is told to the caller, who alone can find out what has become of it (`ShardAwayError`).
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from openclaw_exporter.errors import StateError
from openclaw_exporter.receiver.store.redis.address import Host
from openclaw_exporter.receiver.store.redis.calls import Call, Partition, ShardAwayError
from openclaw_exporter.receiver.store.redis.connection import (
    AnswerError,
    LostError,
    UnreachableError,
    packed,
)
from openclaw_exporter.receiver.store.redis.line import Line, ReplicasError, Scripts, is_forbidden
from openclaw_exporter.receiver.store.redis.owners import Mode, Owners
from openclaw_exporter.wire.loopback import is_loopback

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from openclaw_exporter.receiver.store.redis.address import Target

_logger = logging.getLogger(__name__)

__all__ = ["AnswerError", "Call", "Link", "Partition", "ShardAwayError"]

_AWAY: Final = frozenset(
    ("LOADING", "READONLY", "CLUSTERDOWN", "MASTERDOWN", "BUSY", "NOREPLICAS", "MISCONF", "OOM")
)
"""What a server answers that takes no writes now; a script that had begun to write is not stopped by them."""
_WAITS: Final = frozenset(("ASK", "TRYAGAIN"))
"""What it answers while a slot is on its way to another server; that may take as long as the time-out."""
_PRICE: Final = {"MOVED": 1, "ASK": 0, "TRYAGAIN": 0}
"""By what a server answered, how many of `_MOST_TRIES` another one costs; with any other answer all."""
_MOST_TRIES: Final = 4
_PAUSE: Final = 0.02
"""Seconds before a call for a slot on its way to another server is repeated."""
_LEARN_EVERY: Final = 5.0
_ASKING: Final = packed(("ASKING",))


class _Again(NamedTuple):
    """Why a call was not executed.

    Attributes:
        line: Who was asked.
        code: The kind of reason.
        text: The reason.
        to: Who has the slot, where the server said so.
    """

    line: Line
    code: str
    text: str
    to: Host | None = None


class Link:
    """See the module. All methods are called in one event loop.

    Args:
        target: The Redis.
        scripts: The store's scripts by name; `script` returns how to call one.
    """

    def __init__(self, target: Target, scripts: Mapping[str, str]) -> None:
        self._target = target
        self._scripts = Scripts(scripts)
        self._owners = Owners(target, self._scripts)

    @property
    def mode(self) -> Mode:
        """What stands there, once open."""
        return self._owners.mode

    @property
    def partitions(self) -> tuple[Partition, ...]:
        """All partitions."""
        return self._owners.partitions

    async def open(self) -> None:
        """Find out what stands there and who has what. A shard that is away then does not keep us from it.

        Raises:
            StateError: Nobody can be reached, or the server does not want us.
        """
        owners = self._owners
        if not self._target.tls and any(
            host.port and not is_loopback(host.name) for host in self._target.hosts
        ):
            _logger.warning(
                "Redis is spoken to without TLS: whoever is on the way can read and change the registry; "
                "write rediss:// in receiver.store.url"
            )
        try:
            await owners.detect()
            await owners.learn()
        except UnreachableError as error:
            owners.close()
            raise StateError(f"receiver.store.url: Redis cannot be used: {error}") from None
        outcomes = await asyncio.gather(*map(owners.verify, owners.lines))
        refused = [error for error in outcomes if isinstance(error, UnreachableError) and error.refused]
        if refused or all(outcomes):
            owners.close()
            reasons = "; ".join(map(str, refused or outcomes)) or "no server has a slot"
            raise StateError(f"receiver.store.url: Redis cannot be used: {reasons}")

    async def close(self) -> None:
        """Close all connections; whoever waits for an answer gets a `ShardAwayError`."""
        self._owners.close()

    def key(self, partition: Partition, name: str) -> str:
        """Return a partition's key of a name; all of them are on one server."""
        return self._owners.key(partition, name)

    def script(self, name: str) -> str:
        """Return what EVALSHA calls a script: `("EVALSHA", link.script("commit"), 2, key, key, …)`."""
        return self._scripts.digest(name)

    def away(self, partition: Partition) -> bool:
        """Whether a partition is believed to be out of reach now."""
        line = self._owners.owner[partition]
        return line is None or line.reason is not None

    def generation(self, partition: Partition) -> int:
        """Return a number that grows whenever anything of a partition may have been missed.

        That is whenever a connection to its server was opened anew, or another server has it now.
        """
        return self._owners.generation[partition]

    def shard(self, partition: Partition) -> Host | None:
        """Return the server that has a partition, as far as is known: those of one share a pipeline."""
        line = self._owners.owner[partition]
        return None if line is None else line.host

    async def run(self, calls: Sequence[Call], *, durable: bool = False) -> list[Any]:
        """Run calls: those of one server in order in one pipeline, servers at the same time.

        Args:
            calls: The calls.
            durable: Whether replicas must have what is written; see `Target.replicas`.

        Returns:
            For each call the answer (bytes, int, list, None), an `AnswerError` where the server refused it,
            or a `ShardAwayError`.
        """
        results: list[Any] = [None] * len(calls)
        rest = await self._round(calls, range(len(calls)), results, durable=durable)
        if rest:
            await self._repeat(calls, rest, results, durable=durable)
        return results

    async def probe(self) -> frozenset[Partition]:
        """Look after what is away, and now and then who has what. To be called some times a second.

        Returns:
            The partitions that were away and can be used again.
        """
        owners, loop = self._owners, asyncio.get_running_loop()
        before = [partition for partition in self.partitions if self.away(partition)]
        if before:
            await owners.relearn()
        elif loop.time() - owners.learned_at >= _LEARN_EVERY:
            await owners.refresh()
        due = [
            line
            for line in owners.lines
            if line.retry_at <= loop.time() and (line.reason is not None or line.connection is None)
        ]
        await asyncio.gather(*map(owners.verify, due))
        return frozenset(partition for partition in before if not self.away(partition))

    async def _repeat(
        self, calls: Sequence[Call], rest: Sequence[int], results: list[Any], *, durable: bool
    ) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._target.timeout
        tries = dict.fromkeys(rest, 0)
        while rest:
            moved = {calls[index].partition: results[index].to for index in rest if results[index].to}
            if any(results[index].code not in _WAITS for index in rest):
                await self._owners.relearn()
                # Who was asked may have heard of it later than the one that sent us there.
                self._owners.assign(
                    {partition: self._owners.line(host) for partition, host in moved.items() if host}
                )
            else:
                await asyncio.sleep(_PAUSE)
            for index in rest:
                tries[index] += _PRICE.get(results[index].code, _MOST_TRIES)
            rest = await self._round(calls, rest, results, durable=durable)
            over = loop.time() >= deadline
            for index in rest:
                again: _Again = results[index]
                if tries[index] >= _MOST_TRIES or (over and again.code in _WAITS):
                    if again.code not in _PRICE:
                        self._owners.lose(again.line, again.code, again.text)
                    results[index] = ShardAwayError(again.text, ambiguous=False)
            rest = [index for index in rest if isinstance(results[index], _Again)]

    async def _round(
        self, calls: Sequence[Call], indexes: Sequence[int], results: list[Any], *, durable: bool
    ) -> list[int]:
        """Send calls to whoever has them; return those that were not executed and may be sent again."""
        at: dict[Line, list[int]] = {}
        for index in indexes:
            line = self._owners.owner[calls[index].partition]
            if line is None:
                results[index] = ShardAwayError("no server has the partition's slot", ambiguous=False)
            elif line.reason is not None:
                results[index] = ShardAwayError(line.reason, ambiguous=False)
            else:
                at.setdefault(line, []).append(index)
        if len(at) == 1:
            ((line, mine),) = at.items()
            await self._batch(line, calls, mine, results, durable=durable)
        elif at:
            await asyncio.gather(
                *(self._batch(line, calls, mine, results, durable=durable) for line, mine in at.items())
            )
        return [index for index in indexes if isinstance(results[index], _Again)]

    async def _batch(
        self, line: Line, calls: Sequence[Call], indexes: Sequence[int], results: list[Any], *, durable: bool
    ) -> None:
        """Send calls to one server; leave an `_Again` for those that it did not execute."""
        try:
            answers = await line.ask([packed(calls[index].command) for index in indexes], durable=durable)
        except UnreachableError as error:
            code = "refused" if error.refused else "unreachable"
            answers = [_Again(line, code, str(error))] * len(indexes)
        except LostError as error:
            # One whose connection was merely closed may be back at once: the next call finds out.
            if error.hangs or isinstance(error, ReplicasError):
                self._owners.lose(line, type(error).__name__, str(error))
            answers = [ShardAwayError(str(error), ambiguous=True)] * len(indexes)
        for index, answer in zip(indexes, answers, strict=True):
            if type(answer) is AnswerError:
                results[index] = await self._read_error(line, calls[index], answer, durable=durable)
            else:
                results[index] = answer

    async def _read_error(self, line: Line, call: Call, answer: AnswerError, *, durable: bool) -> Any:
        code, text = answer.code, f"{line.host}: {answer}"
        if code == "ASK":
            return await self._asked(_named(answer, line.host), call, durable=durable)
        if code in _PRICE:
            return _Again(line, code, text, _named(answer, line.host) if code == "MOVED" else None)
        if code in _AWAY:
            return _Again(line, code, text)
        if is_forbidden(answer):
            self._owners.forbid(line, code, text)
            # A script ends where it comes to what it may not do; what it had done by then is done.
            return ShardAwayError(text, ambiguous=call.command[0] == "EVALSHA")
        return answer

    async def _asked(self, host: Host, call: Call, *, durable: bool) -> Any:
        """Run one call where its slot is on its way to."""
        line = self._owners.line(host)
        try:
            _, answer = await line.ask((_ASKING, packed(call.command)), durable=durable)
        except UnreachableError as error:
            return _Again(line, "ASK", str(error))
        except LostError as error:
            return ShardAwayError(str(error), ambiguous=True)
        if type(answer) is AnswerError and answer.code in (*_PRICE, *_AWAY, "NOSCRIPT"):
            return _Again(line, "ASK", f"{host}: {answer}")
        return answer


def _named(answer: AnswerError, asked: Host) -> Host:
    """Return the server that a MOVED or ASK names."""
    name, _, port = str(answer).split()[2].rpartition(":")
    return Host(name.strip("[]") or asked.name, int(port))
