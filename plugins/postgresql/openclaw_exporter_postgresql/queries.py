"""The collector `queries`: each query in a read-only transaction of its own."""

from __future__ import annotations

import re
import time
from contextlib import closing, suppress
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from openclaw_exporter_postgresql.figures import QueryError, capacity_of, depth_of
from openclaw_exporter_postgresql.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import psycopg

    from openclaw_exporter.plugin import Observation
    from openclaw_exporter_postgresql.figures import Rows
    from openclaw_exporter_postgresql.options import Options


_REFUSED: Final = re.compile(
    r"authentication failed|no password supplied|pg_hba\.conf|role .* does not exist"
)
_TELLING: Final = frozenset({"0A", "25", "40", "42", "53", "54", "55", "57", "58"})
"""Classes of SQLSTATE whose messages name settings and objects of the schema, never a row's value."""

_CANCELLED: Final = "57014"
_NO_PRIVILEGE: Final = "42501"
_PLACE: Final = ("service", "host", "hostaddr", "port", "dbname")
_LEAST: Final = 0.005

_SETTINGS: Final = (
    "SELECT set_config('statement_timeout', %s, true), set_config('lock_timeout', %s, true), "
    "set_config('idle_in_transaction_session_timeout', %s, true)"
)


class _Job(NamedTuple):
    """One query: whose it is, in words, and what becomes of its rows."""

    what: str
    sql: str
    observe: Callable[[Rows], Observation]


class Queries:
    """The depth of every configured topic, and the amount of every configured resource."""

    name = "queries"

    def __init__(self, options: Options) -> None:
        self._options = options
        self._jobs: list[_Job] = [
            *(
                _Job(f"topic {topic!r}", sql, partial(depth_of, topic))
                for topic, sql in options.queries.items()
            ),
            *(
                _Job(f"capacity {resource!r}", sql, partial(capacity_of, resource))
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
        with Watch(self._connection.fileno(), deadline) as watch:
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


def _one_line(error: object) -> str:
    return " ".join(str(error).split())


def _password(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise PermissionError(f"password_file {path} cannot be read: {reason}") from None
