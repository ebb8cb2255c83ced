"""Where a Redis is, and who asks: what a store's URL says.

    redis://[user@]host[:port][,host[:port]…][/database]
    redis+sentinel://[user@]host[:port][,host[:port]…]/service[/database]
    unix:///path[?database=number]

`rediss` for TLS; `valkey` and `valkeys` mean the same. Of several hosts any that answers will do: it tells
where the others of its cluster are. A URL holds no password: `ps` and logs would show it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, unquote

SCHEMES: Final = ("redis", "rediss", "valkey", "valkeys", "redis+sentinel", "rediss+sentinel", "unix")
_PORT: Final = 6379
_SENTINEL_PORT: Final = 26379
_MAX_PORT: Final = 65535

_is_url = re.compile(
    r"(?P<scheme>[a-z+]+)://(?:(?P<user>[^@/?#]*)@)?(?P<hosts>[^@/?#]*)(?P<path>/[^?#]*)?(?:\?(?P<query>[^#]*))?"
).fullmatch
_is_host = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.%a-z]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::(?P<port>[0-9]{1,5}))?"
).fullmatch


class Host(NamedTuple):
    """One server's address.

    Attributes:
        name: Host name or address; of a Unix socket its path.
        port: TCP port; 0: a Unix socket.
    """

    name: str
    port: int

    def __str__(self) -> str:
        """As people write it."""
        if not self.port:
            return self.name
        return f"[{self.name}]:{self.port}" if ":" in self.name else f"{self.name}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A Redis, Redis Cluster or Valkey, and how it is spoken to.

    Attributes:
        hosts: Servers to begin with: of a cluster any nodes, or the Sentinels.
        service: The name under which Sentinels know the master; None: there are no Sentinels.
        database: The database's number; a cluster has only 0.
        username: The ACL user, where it is not the default one.
        password_file: File with the password; read at every new connection.
        sentinel_username: The ACL user at the Sentinels.
        sentinel_password_file: File with the password for the Sentinels.
        tls: Whether connections are encrypted.
        ca: PEM file with the authorities that sign the servers' certificates; None: the system's.
        certificate: PEM file with a client certificate.
        key: PEM file with its private key.
        timeout: Seconds without any answer after which a server counts as away.
        partitions: Over how many partitions the nodes are spread.
        replicas: How many replicas must have a durable write; None: one, as long as there is one.
        prefix: What all keys begin with.
    """

    hosts: tuple[Host, ...]
    service: str | None = None
    database: int = 0
    username: str | None = None
    password_file: Path | None = None
    sentinel_username: str | None = None
    sentinel_password_file: Path | None = None
    tls: bool = False
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    timeout: float = 2.0
    partitions: int = 16
    replicas: int | None = None
    prefix: str = "openclaw"


class Parts(NamedTuple):
    """What a URL says.

    Attributes:
        hosts: Servers to begin with.
        tls: Whether connections are encrypted.
        service: The Sentinels' name of the master.
        database: The database's number.
        username: The ACL user.
        options: What stands behind the question mark.
    """

    hosts: tuple[Host, ...]
    tls: bool
    service: str | None
    database: int
    username: str | None
    options: dict[str, str]


def is_redis(url: str) -> bool:
    """Whether a store's URL is one of a Redis."""
    return url.partition("://")[0] in SCHEMES


def parse(url: str) -> Parts:
    """Read a URL.

    Raises:
        ValueError: It is not one; the text does not repeat it.
    """
    match = _is_url(url)
    if match is None or match["scheme"] not in SCHEMES:
        raise ValueError("is no URL of a Redis")
    if match["user"] is not None and ":" in match["user"]:
        raise ValueError("holds a password, which the process list and logs would show")
    options = _options(match["query"] or "")
    scheme, path = match["scheme"], unquote(match["path"] or "")
    username = unquote(match["user"] or "") or None
    if scheme == "unix":
        if match["hosts"] or len(path) <= 1:
            raise ValueError("names no socket")
        return Parts((Host(path, 0),), False, None, _database(options.pop("database", "")), username, options)
    of_sentinels = scheme.endswith("+sentinel")
    default = _SENTINEL_PORT if of_sentinels else _PORT
    hosts = tuple(_host(text, default) for text in match["hosts"].split(","))
    service, path = _service(path) if of_sentinels else (None, path)
    tls = scheme.removesuffix("+sentinel") in {"rediss", "valkeys"}
    return Parts(hosts, tls, service, _database(path.removeprefix("/")), username, options)


def _options(query: str) -> dict[str, str]:
    try:
        return dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
    except ValueError:
        raise ValueError("ends in options that are none") from None


def _host(text: str, default: int) -> Host:
    match = _is_host(text)
    if match is None or int(match["port"] or 1) not in range(1, _MAX_PORT + 1):
        raise ValueError("names a host that is none" if text else "names no host")
    return Host(match["v6"] or match["name"], int(match["port"] or default))


def _service(path: str) -> tuple[str, str]:
    service, _, rest = path.removeprefix("/").partition("/")
    if not service:
        raise ValueError("does not say under which name the Sentinels know the master")
    return service, rest


def _database(text: str) -> int:
    if text and not (text.isascii() and text.isdecimal()):
        raise ValueError("ends in what is no number of a database")
    return int(text or 0)
