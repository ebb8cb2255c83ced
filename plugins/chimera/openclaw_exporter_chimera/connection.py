"""One socket to one Redis: opened, introduced, and spoken to in RESP2.

The protocol is the business of hiredis, Redis' own parser. redis-py brings a client, a pool and asyncio
along: 10 MiB and a quarter of an agent's start, and a batch of commands needs none of it.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast
from urllib.parse import unquote, urlsplit

import hiredis
import msgspec

if TYPE_CHECKING:
    import ssl

    from openclaw_exporter_chimera.options import Options

_NAME: Final = b"openclaw-exporter"
_PORT: Final = 6_379
_CHUNK: Final = 65_536
_MORE: Final = object()
_UNNAMED: Final = ("NOPERM", "unknown command", "Unknown subcommand")
"""What a Redis says that lets a client have no name; nothing depends on it."""


Command: TypeAlias = tuple[bytes | int, ...]


class AnswerError(Exception):
    """An error that Redis answered to one command."""


class AuthenticationError(Exception):
    """Redis refuses user or password, or asks for them where none are configured."""


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """The files of a TLS connection; without `ca` the system's authorities are trusted."""

    ca: Path | None
    certificate: Path | None
    key: Path | None

    def context(self) -> ssl.SSLContext:
        """Return a context that checks the server's certificate and name.

        Raises:
            OSError: A file cannot be used.
        """
        import ssl  # noqa: PLC0415 - only for rediss

        context = ssl.create_default_context(cafile=self.ca)
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.key)
        return context


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Where a Redis is and who asks.

    Attributes:
        host: Its host.
        port: Its TCP port.
        path: Its Unix socket; host and port do not count then.
        database: The number of the database.
        username: The ACL user, where it is not the default one.
        password: The password, where there is one.
        timeout: Seconds to wait for one answer.
        tls: The files for TLS; None for a plain connection.
    """

    host: str = ""
    port: int = 0
    path: str = ""
    database: int = 0
    username: str | None = None
    password: str | None = None
    timeout: float
    tls: Tls | None = None

    @property
    def place(self) -> str:
        """The address, for error texts."""
        return self.path or f"{self.host}:{self.port}"


def settings_of(options: Options) -> Settings:
    """Return how to connect, with the password as its file has it now.

    Raises:
        PermissionError: The password's file, or one for TLS, cannot be read.
    """
    parts = urlsplit(options.url)
    is_unix = parts.scheme == "unix"
    own = unquote(parts.password) if parts.password else None
    return Settings(
        host=unquote(parts.hostname or ""),
        port=parts.port or (26_379 if options.mode == "sentinel" else _PORT),
        path=unquote(parts.path) if is_unix else "",
        database=int(options.database or 0),
        username=options.username or (unquote(parts.username) if parts.username else None),
        password=own if options.password_file is None else password(options.password_file),
        timeout=options.socket_timeout,
        tls=_tls(options) if parts.scheme == "rediss" else None,
    )


def _tls(options: Options) -> Tls:
    for name in ("ca", "client_certificate", "client_key"):
        path: Path | None = getattr(options, name)
        if path is not None:
            _read(name, path)  # OpenSSL would not say which of them it misses
    return Tls(ca=options.ca, certificate=options.client_certificate, key=options.client_key)


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


class Connection:
    """A connection that is opened when it is first spoken to.

    Every call may raise `ConnectionError` where the other end is away or closes, `TimeoutError` where it does
    not answer in time, and `AuthenticationError`.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._socket: socket.socket | None = None
        self._reader = _reader()

    @property
    def open(self) -> bool:
        """Whether it was opened and not closed since."""
        return self._socket is not None

    def send(self, batch: bytes) -> None:
        """Send packed commands."""
        self._opened().sendall(batch)

    def receive(self) -> Any:
        """Return the next answer: bytes, a number, a list, None, or an `AnswerError`."""
        while (answer := self._answer()) is _MORE:
            chunk = self._opened().recv(_CHUNK)
            if not chunk:
                raise ConnectionResetError(f"{self._settings.place} closed the connection")
            self._reader.feed(chunk)
        if isinstance(answer, AnswerError) and str(answer).startswith("NOAUTH"):
            raise AuthenticationError(str(answer))
        return answer

    def close(self) -> None:
        """Close it, and forget what was not read yet."""
        opened, self._socket = self._socket, None
        self._reader = _reader()
        if opened is not None:
            with suppress(OSError):
                opened.close()

    def _answer(self) -> Any:
        try:
            return self._reader.gets()
        except hiredis.ProtocolError:
            raise ConnectionError(f"{self._settings.place} does not speak Redis' protocol") from None

    def _opened(self) -> socket.socket:
        if self._socket is None:
            self._socket = self._connect()
            self._introduce()
        return self._socket

    def _connect(self) -> socket.socket:
        settings = self._settings
        try:
            context = None if settings.tls is None else settings.tls.context()
            plain = self._plain()
            try:
                return plain if context is None else context.wrap_socket(plain, server_hostname=settings.host)
            except BaseException:
                plain.close()
                raise
        except TimeoutError:
            raise
        except OSError as error:
            raise ConnectionError(f"{settings.place}: {error.strerror or error}") from None

    def _plain(self) -> socket.socket:
        settings = self._settings
        if not settings.path:
            # As bytes: for a text Python loads its tables of Unicode, half a MiB.
            host = cast("str", settings.host.encode()) if settings.host.isascii() else settings.host
            plain = socket.create_connection((host, settings.port), settings.timeout)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            return plain
        plain = socket.socket(socket.AF_UNIX)
        plain.settimeout(settings.timeout)
        try:
            plain.connect(settings.path)
        except BaseException:
            plain.close()
            raise
        return plain

    def _introduce(self) -> None:
        """Authenticate, tell our name and choose the database, in one round trip."""
        settings = self._settings
        commands: list[Command] = [(b"CLIENT", b"SETNAME", _NAME)]
        if settings.password is not None:
            user = () if settings.username is None else (settings.username.encode(),)
            commands.insert(0, (b"AUTH", *user, settings.password.encode()))
        if settings.database:
            commands.append((b"SELECT", b"%d" % settings.database))
        self.send(b"".join(map(packed, commands)))
        for name, *_ in commands:
            answer = self.receive()
            if not isinstance(answer, AnswerError) or _is_only_the_name(name, answer):
                continue
            if name == b"AUTH" and not str(answer).startswith(("DENIED", "LOADING", "max number")):
                raise AuthenticationError(str(answer))
            raise ConnectionError(f"{settings.place}: {answer}")


def packed(command: Command) -> bytes:
    """Return a command as RESP has it."""
    whole: bytes = hiredis.pack_command(command)  # type: ignore[arg-type] # its stub knows one word only
    return whole


def _is_only_the_name(command: bytes | int, answer: AnswerError) -> bool:
    return command == b"CLIENT" and any(word in str(answer) for word in _UNNAMED)


def _reader() -> hiredis.Reader:
    return hiredis.Reader(replyError=_answer_error, notEnoughData=_MORE)


def _answer_error(text: str) -> AnswerError:
    return AnswerError(text.removeprefix("ERR "))
