"""One connection to one Redis, over which a batch of commands takes one round trip.

Redis' answers come as RESP2 has them: bytes, integers, lists; an error of one command is an answer like
others. It is redis-py's connection, without its client: that one's pipeline and callbacks take most of a
collection's CPU time.
"""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from openclaw_exporter_chimera.options import Options

Command: TypeAlias = tuple[bytes | int, ...]


class AwayError(Exception):
    """Nobody that could tell answers; the text says who was asked."""


class Line:
    """A connection that is opened when it is needed, and again where the kept one has broken."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        import redis.connection  # noqa: PLC0415 - 150 ms that the agent's start need not wait for

        settings = dict(settings)
        make = settings.pop("connection_class", redis.connection.Connection)
        self._connection = make(**settings)

    @property
    def open(self) -> bool:
        """Whether it was opened and not closed since."""
        return self._connection._sock is not None  # noqa: SLF001 - older redis-py has no public word for it

    def send(self, commands: Sequence[Command]) -> None:
        """Send a batch.

        Raises:
            redis.ConnectionError: The other end is away, or refuses the password (`AuthenticationError`).
            redis.TimeoutError: It did not answer in time.
        """
        self._connection.send_packed_command([b"".join(map(packed, commands))])

    def receive(self, commands: Sequence[Command]) -> list[Any]:
        """Receive the answers to a batch.

        Raises:
            redis.ConnectionError: As in `send`.
            redis.TimeoutError: As in `send`.
        """
        from redis import ResponseError  # noqa: PLC0415 - loaded already, by the constructor

        answers: list[Any] = []
        for _ in commands:
            try:
                answers.append(self._connection.read_response())
            except ResponseError as error:
                answers.append(error)
        return answers

    def ask(self, commands: Sequence[Command]) -> list[Any]:
        """Send a batch and receive its answers; once more where the kept connection turns out to be closed.

        Raises:
            redis.ConnectionError: As in `send`.
            redis.TimeoutError: As in `send`.
        """
        (answers,) = ask_all({self: commands}).values()
        if isinstance(answers, Exception):
            raise answers
        return answers

    def close(self) -> None:
        """Close it; the next batch opens it again."""
        with suppress(Exception):
            self._connection.disconnect()


def ask_all(batches: Mapping[Line, Sequence[Command]]) -> dict[Line, list[Any] | Exception]:
    """Send every batch before the first answer is read; answers, or the failure, of each line.

    A batch whose kept connection was closed from the other end (a restart) goes out once more.
    """
    from redis import ConnectionError as RedisConnectionError  # noqa: PLC0415 - loaded already, by Line

    kept = {line for line in batches if line.open}
    outcome = _exchange(batches)
    again = {
        line: batches[line]
        for line, answers in outcome.items()
        if line in kept and isinstance(answers, RedisConnectionError)
    }
    return outcome | _exchange(again) if again else outcome


def _exchange(batches: Mapping[Line, Sequence[Command]]) -> dict[Line, list[Any] | Exception]:
    from redis import RedisError  # noqa: PLC0415 - loaded already, by Line

    outcome: dict[Line, list[Any] | Exception] = {}
    try:
        for line, commands in batches.items():
            try:
                line.send(commands)
            except (RedisError, OSError) as error:
                outcome[line] = error
        for line, commands in batches.items():
            if line in outcome:
                continue
            try:
                outcome[line] = line.receive(commands)
            except (RedisError, OSError) as error:
                outcome[line] = error
    finally:
        for line in batches:
            if not isinstance(outcome.get(line), list):
                line.close()  # half-read answers must not meet the next batch
    return outcome


@lru_cache(maxsize=16_384)
def packed(command: Command) -> bytes:
    """Return a command as RESP has it. Most are the same in each collection, so they are kept."""
    words = [word if isinstance(word, bytes) else b"%d" % word for word in command]
    return b"*%d\r\n%b" % (len(words), b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words))


def connection_settings(options: Options) -> dict[str, Any]:
    """Return what redis-py's connection needs, with the password as its file has it now.

    Raises:
        PermissionError: The password's file, or one for TLS, cannot be read.
    """
    from redis.backoff import NoBackoff  # noqa: PLC0415 - comes with redis
    from redis.connection import parse_url  # noqa: PLC0415 - comes with redis
    from redis.retry import Retry  # noqa: PLC0415 - comes with redis

    settings: dict[str, Any] = {
        "socket_timeout": options.socket_timeout,
        "client_name": "openclaw-exporter",
        "retry": Retry(NoBackoff(), 0),
        **parse_url(options.url),  # type: ignore[no-untyped-call] # redis-py has no types there
        "protocol": 2,  # needs no HELLO, which Redis before 6 does not know
        "decode_responses": False,
    }
    if not options.url.startswith("unix:"):
        settings["socket_connect_timeout"] = options.socket_timeout
    if options.username is not None:
        settings["username"] = options.username
    if options.password_file is not None:
        settings["password"] = password(options.password_file)
    return settings | (_tls_settings(options) if options.url.startswith("rediss:") else {})


def _tls_settings(options: Options) -> dict[str, Any]:
    names = {"ca": "ssl_ca_certs", "client_certificate": "ssl_certfile", "client_key": "ssl_keyfile"}
    settings: dict[str, Any] = {}
    for name, theirs in names.items():
        path: Path | None = getattr(options, name)
        if path is not None:
            _read(name, path)  # OpenSSL would not say which of them it misses
            settings[theirs] = str(path)
    return settings


def password(path: Path) -> str:
    """Return a file's one line.

    Raises:
        PermissionError: It cannot be read.
    """
    return _read("password_file", path).rstrip("\r\n")


def _read(name: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise PermissionError(f"{name} {path} cannot be read: {reason}") from None


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of `host:port`, where an IPv6 address may stand in brackets."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)
