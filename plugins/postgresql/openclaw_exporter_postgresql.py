"""How many tasks wait in tables of PostgreSQL: one query of the operator's own for each topic.

Each query runs in a read-only transaction of its own with a statement timeout, so that a slow or wrong one
costs its own topic and nothing else. One that would write is refused by the server; even so, give the user
no more than SELECT on what it reads.
"""

from __future__ import annotations

import math
import os
import re
import socket
import threading
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple, Self, TypeAlias
from urllib.parse import urlsplit

from msgspec import Meta

from openclaw_exporter.plugin import Capacity, Observation, QueueDepth, hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    import psycopg

Topic: TypeAlias = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9_.:-]{1,64}\Z", description="1 to 64 characters of A-Z a-z 0-9 _ . : -")
]
Resource: TypeAlias = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_.]{0,62}\Z")]
Rows: TypeAlias = list[tuple[Any, ...]]
Sql: TypeAlias = Annotated[
    str,
    Meta(
        max_length=8_192,
        # Other statements return no figure, and COPY would leave the session in the middle of itself.
        pattern=r"(?is)^(?:\s|--[^\n]*\n|/\*.*?\*/|\()*(?:select|with|values|table)\b",
        description="one SELECT statement",
    ),
]

_PASSWORD: Final = re.compile(r"(?:^|[\s?&])(?:ssl)?password\s*=", re.IGNORECASE)
_REFUSED: Final = re.compile(
    r"authentication failed|no password supplied|pg_hba\.conf|role .* does not exist"
)
_TELLING: Final = frozenset({"0A", "25", "40", "42", "53", "54", "55", "57", "58"})
"""Classes of SQLSTATE whose messages name settings and objects of the schema, never a row's value."""

_CANCELLED: Final = "57014"
_NO_PRIVILEGE: Final = "42501"
_PLACE: Final = ("service", "host", "hostaddr", "port", "dbname")
_LEAST: Final = 0.005
_GRACE: Final = 0.25
"""Seconds that a server may take to cancel a query by itself, before its connection is shut down."""

_SETTINGS: Final = (
    "SELECT set_config('statement_timeout', %s, true), set_config('lock_timeout', %s, true), "
    "set_config('idle_in_transaction_session_timeout', %s, true)"
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """The table `[plugins.postgresql]`.

    Attributes:
        dsn: Where PostgreSQL is, as a connection string of libpq without a password:
            `host=db port=5432 dbname=chimera user=exporter sslmode=verify-full sslrootcert=/etc/db-ca.pem`, a
            `postgresql://…` URI, or `service=chimera`. libpq's own password and service files, client
            certificates and lists of hosts work too. Only `sslmode=verify-full` checks who the server is.
        password_file: A file that holds the password; read again for each new connection.
        queries: Topics and their queries: `worker = "SELECT count(*) FROM tasks WHERE status = 'pending'"`.
            A query returns one row with one whole number, and where it likes the oldest task's age as the
            second column, in seconds or as an interval: `SELECT count(*), now() - min(created_at) FROM …`.
        capacity: Resources and their queries, each returning one number:
            `available_slots = "SELECT count(*) FROM workers WHERE host = 'node-7' AND task IS NULL"`.
        statement_timeout: Seconds that one query may take; it may wait half of that for a lock.
        timeout: Seconds that all of a collection may take. A query that it leaves no time for is unknown.
    """

    dsn: str = field(default="", repr=False)
    password_file: Path | None = None
    queries: Annotated[dict[Topic, Sql], Meta(max_length=32)] = field(default_factory=dict)
    capacity: Annotated[dict[Resource, Sql], Meta(max_length=32)] = field(default_factory=dict)
    statement_timeout: Annotated[float, Meta(ge=0.01, le=60)] = 1.0
    timeout: Annotated[float, Meta(ge=0.1, le=300)] = 4.0

    def __post_init__(self) -> None:
        """Refuse a password in the connection string, whose text must not come up in an error."""
        try:
            written = "://" in self.dsn and urlsplit(self.dsn).password is not None
        except ValueError:  # libpq will say what is wrong with it
            written = False
        if written or _PASSWORD.search(self.dsn):
            raise ValueError("dsn holds a password: it belongs into password_file, or into libpq's passfile")


class QueryError(Exception):
    """One query gives no figure; the text says why, without a row's value."""


class _Job(NamedTuple):
    """One query: whose it is, in words, and what becomes of its rows."""

    what: str
    sql: str
    observe: Callable[[Rows], Observation]


@hookimpl
def openclaw_collectors(options: Options) -> list[Queries]:
    """Return the collector, where queries are configured."""
    return [Queries(options)] if options.queries or options.capacity else []


class Queries:
    """The depth of every configured topic, and the amount of every configured resource."""

    name = "queries"

    def __init__(self, options: Options) -> None:
        self._options = options
        self._jobs: list[_Job] = [
            *(
                _Job(f"topic {topic!r}", sql, partial(_depth, topic))
                for topic, sql in options.queries.items()
            ),
            *(
                _Job(f"capacity {resource!r}", sql, partial(_capacity, resource))
                for resource, sql in options.capacity.items()
            ),
        ]
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None
        self._place = "PostgreSQL"

    def collect(self) -> list[Observation | Exception]:
        """Return what each query tells, and an error for each that tells nothing.

        Raises:
            PermissionError: PostgreSQL refuses user or password, or the password's file cannot be read.
            TimeoutError: PostgreSQL did not answer in time.
            ConnectionError: PostgreSQL cannot be reached, or none of the queries tells anything.
        """
        import psycopg  # noqa: PLC0415 - 400 ms that the agent's start need not wait for

        deadline = time.monotonic() + self._options.timeout
        kept = self._connection is not None
        try:
            try:
                outcome = self._read(psycopg, deadline)
            except psycopg.OperationalError:
                if not kept:
                    raise
                # A restart of the server has closed the kept connection, which is worth a second try.
                self.close()
                outcome = self._read(psycopg, deadline)
        except TimeoutError:
            self.close()
            raise TimeoutError(
                f"{self._place} gave no answer within timeout = {self._options.timeout:g} s: look after the "
                "server, or allow it more"
            ) from None
        except psycopg.Error as error:
            self.close()
            raise ConnectionError(
                f"{self._place} cannot be read ({_one_line(error)}): check dsn, and that the server runs"
            ) from None
        if all(isinstance(result, Exception) for result in outcome):
            raise ConnectionError(f"no query at {self._place} gives a figure: {outcome[0]}")
        return outcome

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):
                connection.close()

    def _read(self, module: Any, deadline: float) -> list[Observation | Exception]:
        if self._connection is None:
            self._connection = self._connect(module)
        with _Watch(self._connection.fileno(), deadline) as watch:
            try:
                return [self._ask(module, self._connection, job, deadline) for job in self._jobs]
            except module.Error:
                if watch.fired:
                    raise TimeoutError from None
                raise

    def _ask(self, module: Any, connection: Any, job: _Job, deadline: float) -> Observation | Exception:
        """Run one query in a transaction of its own.

        Raises:
            psycopg.Error: The connection is lost.
        """
        seconds = min(self._options.statement_timeout, deadline - time.monotonic())
        if seconds < _LEAST:
            return QueryError(f"{job.what}: timeout = {self._options.timeout:g} s left no time for its query")
        try:
            # Once this has taken the transaction's snapshot, nothing in the query can make it read-write.
            connection.execute(
                _SETTINGS, [f"{1000 * part:.0f}" for part in (seconds, seconds / 2, seconds + 1)]
            )
            # One row at a time, so that a query without count() does not bring its whole table here.
            with closing(connection.cursor().stream(job.sql, binary=True)) as rows:
                first = list(islice(rows, 2))
            return job.observe(first)
        except QueryError as error:
            return QueryError(f"{job.what}: {error}")
        except module.Error as error:
            if connection.closed:
                raise
            return QueryError(f"{job.what}: {self._reason(error)}")
        finally:
            if not connection.closed:
                connection.rollback()

    def _reason(self, error: psycopg.Error) -> str:
        """Return why a query failed, in one line that holds no row's value."""
        code = error.sqlstate
        if code is None:
            return f"the query cannot be run this way ({type(error).__name__}): it has to be one SELECT"
        message = _one_line(error.diag.message_primary or "")
        if code == _CANCELLED:
            message += f" (statement_timeout = {self._options.statement_timeout:g} s)"
        elif code == _NO_PRIVILEGE:
            message += ": grant SELECT on it"
        elif code[:2] not in _TELLING:
            message = f"{type(error).__name__}, whose text is withheld because it may hold a row's value"
        return f"{message} [{code}]"

    def _connect(self, module: Any) -> psycopg.Connection[tuple[Any, ...]]:
        options = self._options
        parameters = self._parameters(module)
        if options.password_file is not None:
            parameters["password"] = _password(options.password_file)
        try:
            # Without prepared statements, so that a connection pooler may stand between.
            connection: psycopg.Connection[tuple[Any, ...]] = module.connect(
                **parameters, prepare_threshold=None
            )
        except module.errors.ConnectionTimeout:
            raise TimeoutError from None
        except module.OperationalError as error:
            text = _one_line(error)
            if _REFUSED.search(text):
                raise PermissionError(
                    f"{self._place} refuses the user: check user in dsn and password_file ({text})"
                ) from None
            raise
        connection.read_only = True
        return connection

    def _parameters(self, module: Any) -> dict[str, Any]:
        """Return the connection string's parameters with our own defaults beneath them."""
        try:
            given = module.conninfo.conninfo_to_dict(self._options.dsn)
        except module.ProgrammingError:  # its text may repeat a part of the connection string
            raise ConnectionError("dsn is no connection string that libpq can read") from None
        shown = " ".join(f"{key}={given[key]}" for key in _PLACE if given.get(key))
        self._place = f"PostgreSQL at {shown}" if shown else "PostgreSQL at libpq's default place"
        return {
            "fallback_application_name": "openclaw-exporter",
            "connect_timeout": max(2, int(self._options.timeout)),  # libpq's least is 2
            "gssencmode": "disable",  # else each connection looks for Kerberos tickets first
            **given,
        }


class _Watch:
    """Shuts a connection down under a client that waits for an answer beyond the deadline.

    libpq waits for an answer for as long as it takes; the server's own timeouts say nothing about a server
    that is frozen, or a network that is silent.
    """

    def __init__(self, descriptor: int, deadline: float) -> None:
        self.fired = False
        self._socket = socket.socket(fileno=os.dup(descriptor))
        self._timer = threading.Timer(max(0.0, deadline + _GRACE - time.monotonic()), self._shut)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        self._timer.join()
        self._socket.close()

    def _shut(self) -> None:
        self.fired = True
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)


def _depth(topic: str, rows: Rows) -> QueueDepth:
    row = _row(rows, columns=(1, 2))
    depth = _number(row[0], "the first column")
    if depth != int(depth):
        raise QueryError("the first column is no whole number: count messages with count(*)")
    if len(row) == 1 or row[1] is None:
        return QueueDepth(topic, int(depth))
    age = row[1].total_seconds() if isinstance(row[1], timedelta) else row[1]
    return QueueDepth(topic, int(depth), max(0.0, float(_number(age, "the second column", least=None))))


def _capacity(resource: str, rows: Rows) -> Capacity:
    (value,) = _row(rows, columns=(1,))
    amount = _number(value, "the column")
    return Capacity(resource, int(amount) if amount == int(amount) else float(amount))


def _row(rows: Rows, *, columns: tuple[int, ...]) -> tuple[Any, ...]:
    if len(rows) != 1:
        number = "no row" if not rows else "more than one row"
        raise QueryError(f"the query returned {number}; it has to return one, as count(*) does")
    if len(rows[0]) not in columns:
        wanted = " or ".join(map(str, columns))
        raise QueryError(f"the query returned {len(rows[0])} columns; it has to return {wanted}")
    return rows[0]


def _number(value: object, what: str, *, least: int | None = 0) -> int | float | Decimal:
    """Check a number. Error texts name its type only, because it may be anything that a row holds."""
    if value is None:
        raise QueryError(f"{what} is NULL: use coalesce(…, 0) where that means zero")
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        raise QueryError(f"{what} is a {type(value).__name__}, not a number")
    if not math.isfinite(value):
        raise QueryError(f"{what} is not finite")
    if least is not None and value < least:
        raise QueryError(f"{what} is negative")
    return value


def _one_line(error: object) -> str:
    return " ".join(str(error).split())


def _password(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise PermissionError(f"password_file {path} cannot be read: {reason}") from None
