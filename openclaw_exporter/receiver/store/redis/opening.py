"""Opening a connection: TLS, who we are, which database, and what to do where the server does not want us."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Final

from openclaw_exporter.errors import CredentialError
from openclaw_exporter.receiver.store.redis.connection import (
    AnswerError,
    Connection,
    Greeting,
    LostError,
    UnreachableError,
    packed,
)
from openclaw_exporter.receiver.store.redis.files import read_secret, tls_context

if TYPE_CHECKING:
    from openclaw_exporter.receiver.store.redis.address import Host, Target

NAME: Final = "openclaw-receiver"
"""What CLIENT LIST shows."""
_NO_TLS: Final = "; if it speaks no TLS, write redis://"


async def connect(host: Host, target: Target, *, of_sentinel: bool = False) -> Connection:
    """Open a connection, introduce ourselves, and choose the database.

    Args:
        host: The server.
        target: How it is spoken to.
        of_sentinel: Whether it is a Sentinel, with user and password of its own.

    Raises:
        UnreachableError: It is away, or does not want us; the text names the remedy.
    """
    connection = Connection(str(host), target.timeout)
    try:
        async with asyncio.timeout(target.timeout):
            await _open(connection, host, target)
            connection.greeting = await _introduce(connection, host, target, of_sentinel=of_sentinel)
            if target.database and not of_sentinel:
                await _select(connection, host, target.database)
    except BaseException as error:
        connection.close()
        reason = _reason(error, host, target)
        if reason is None:
            raise
        raise reason from None
    return connection


async def _open(connection: Connection, host: Host, target: Target) -> None:
    loop = asyncio.get_running_loop()
    if not host.port:
        await loop.create_unix_connection(lambda: connection, host.name)
        return
    context = tls_context(target) if target.tls else None
    await loop.create_connection(lambda: connection, host.name, host.port, ssl=context)


async def _introduce(connection: Connection, host: Host, target: Target, *, of_sentinel: bool) -> Greeting:
    name = "sentinel_password_file" if of_sentinel else "password_file"
    file = target.sentinel_password_file if of_sentinel else target.password_file
    user = target.sentinel_username if of_sentinel else target.username
    secret = "" if file is None else read_secret(name, file)
    credentials = ("AUTH", user or "default", secret) if user or secret else ()
    (answer,) = await connection.ask(packed(("HELLO", 2, *credentials, "SETNAME", NAME)), 1)
    if isinstance(answer, AnswerError):
        raise _unwelcome(host, answer, f"receiver.store.{name}")
    said = {answer[index].decode(): answer[index + 1] for index in range(0, len(answer), 2)}
    version = tuple(int(part) for part in said["version"].decode().split(".")[:3] if part.isdecimal())
    role = said.get("role", b"master")
    return Greeting(said["server"].decode(), version, said["mode"].decode(), role == b"master")


async def _select(connection: Connection, host: Host, database: int) -> None:
    (answer,) = await connection.ask(packed(("SELECT", database)), 1)
    if isinstance(answer, AnswerError):
        raise UnreachableError(f"{host}: database {database}: {answer}", refused=True)


def _unwelcome(host: Host, answer: AnswerError, key: str) -> UnreachableError:
    if answer.code == "WRONGPASS":
        return UnreachableError(f"{host}: user or password is wrong; see {key}", refused=True)
    if answer.code == "NOAUTH":
        return UnreachableError(f"{host}: it asks for a password; name its file in {key}", refused=True)
    if "unknown command" in str(answer):
        return UnreachableError(f"{host}: the server is older than Redis 6.2", refused=True)
    # Such as too many clients, or protected mode, which says itself what to do.
    return UnreachableError(f"{host}: {answer}", refused=answer.code in {"NOPERM", "DENIED"})


def _hint(host: Host, target: Target) -> str:
    """Return what a server may want that closes a connection as soon as it is spoken to."""
    if not target.tls:
        return "; if it wants TLS, write rediss://" if host.port else ""
    return "; if it wants a certificate, name one in receiver.store.certificate" if not target.key else ""


def _reason(error: BaseException, host: Host, target: Target) -> UnreachableError | None:
    """Return an error of ours for what went wrong; None where it is none of the network's."""
    if isinstance(error, TimeoutError):
        # A Redis without TLS waits for the end of what it takes for a command.
        hint = _NO_TLS if target.tls else ""
        return UnreachableError(f"{host}: no answer within {target.timeout:g} s{hint}")
    if isinstance(error, CredentialError):
        return UnreachableError(str(error), refused=True)
    if isinstance(error, LostError):
        return UnreachableError(f"{error}{_hint(host, target)}")
    if isinstance(error, ssl.SSLError):
        said = getattr(error, "verify_message", "") or error.reason or str(error)
        hint = _NO_TLS if "VERSION" in said or "RECORD" in said else ""
        if isinstance(error, ssl.SSLCertVerificationError):
            hint = "; see receiver.store.ca"
        return UnreachableError(f"{host}: TLS: {said}{hint}", refused=True)
    if isinstance(error, OSError):
        return UnreachableError(f"{host}: {error.strerror or error}")
    return None
