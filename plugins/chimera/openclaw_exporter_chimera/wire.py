"""Batches of commands over kept connections: each batch takes one round trip.

Redis' answers come as RESP2 has them: bytes, integers, lists; an error of one command is an answer like
others.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from openclaw_exporter_chimera.connection import AuthenticationError, Command, Connection, packed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from openclaw_exporter_chimera.connection import Settings


class AwayError(Exception):
    """Nobody that could tell answers; the text says who was asked."""


class Line:
    """A connection that is opened when it is needed, and again where the kept one has broken."""

    def __init__(self, settings: Settings) -> None:
        self._connection = Connection(settings)

    @property
    def open(self) -> bool:
        """Whether it was opened and not closed since."""
        return self._connection.open

    def send(self, commands: Sequence[Command]) -> None:
        """Send a batch.

        Raises:
            ConnectionError: The other end is away.
            TimeoutError: It did not answer in time.
            AuthenticationError: It refuses user or password.
        """
        self._connection.send(b"".join(map(_KEPT, commands)))

    def receive(self, commands: Sequence[Command]) -> list[Any]:
        """Receive the answers to a batch. Raises as `send` does."""
        return [self._connection.receive() for _ in commands]

    def ask(self, commands: Sequence[Command]) -> list[Any]:
        """Send a batch and receive its answers; once more where the kept connection turns out to be closed.

        Raises:
            OSError: As in `send`.
            AuthenticationError: As in `send`.
        """
        (answers,) = ask_all({self: commands}).values()
        if isinstance(answers, Exception):
            raise answers
        return answers

    def close(self) -> None:
        """Close it; the next batch opens it again."""
        self._connection.close()


def ask_all(batches: Mapping[Line, Sequence[Command]]) -> dict[Line, list[Any] | Exception]:
    """Send every batch before the first answer is read; answers, or the failure, of each line.

    A batch whose kept connection was closed from the other end (a restart) goes out once more.
    """
    kept = {line for line in batches if line.open}
    outcome = _exchange(batches)
    again = {
        line: batches[line]
        for line, answers in outcome.items()
        if line in kept and isinstance(answers, ConnectionError)
    }
    return outcome | _exchange(again) if again else outcome


def _exchange(batches: Mapping[Line, Sequence[Command]]) -> dict[Line, list[Any] | Exception]:
    outcome: dict[Line, list[Any] | Exception] = {}
    try:
        for line, commands in batches.items():
            try:
                line.send(commands)
            except (AuthenticationError, OSError) as error:
                outcome[line] = error
        for line, commands in batches.items():
            if line in outcome:
                continue
            try:
                outcome[line] = line.receive(commands)
            except (AuthenticationError, OSError) as error:
                outcome[line] = error
    finally:
        for line in batches:
            if not isinstance(outcome.get(line), list):
                line.close()  # half-read answers must not meet the next batch
    return outcome


_KEPT: Final = lru_cache(maxsize=16_384)(packed)
"""Packs a command. Most are the same in each collection."""


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of `host:port`, where an IPv6 address may stand in brackets."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)
