"""What `[plugins.postgresql]` may say."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, TypeAlias
from urllib.parse import urlsplit

from msgspec import Meta

Topic: TypeAlias = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9_.:-]{1,64}\Z", description="1 to 64 characters of A-Z a-z 0-9 _ . : -")
]
Resource: TypeAlias = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_.]{0,62}\Z")]
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
