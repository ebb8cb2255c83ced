"""How many messages wait in RabbitMQ's queues, told by the management API or by AMQP 0-9-1.

A queue of RabbitMQ does not vanish when it is drained, so one that is not there is an error of its topic
and never a zero. A pattern is a search: where it finds no queue, none waits, and its depth is 0.
"""

from __future__ import annotations

import re
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple, Protocol, TypeAlias
from urllib.parse import quote, urlsplit

import msgspec
from msgspec import Meta

from openclaw_exporter.plugin import Capacity, Observation, QueueDepth, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import httpx

Topic: TypeAlias = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9_.:-]{1,64}\Z", description="1 to 64 characters of A-Z a-z 0-9 _ . : -")
]
Url: TypeAlias = Annotated[
    str,
    Meta(
        pattern=r"^(https?|amqps?)://.",
        description="http://host:15672, https://…, amqp://host:5672 or amqps://…",
    ),
]
QueueName: TypeAlias = Annotated[str, Meta(min_length=1, max_length=255)]

_PAGE_SIZE: Final = 500
"""The most that the management API gives in one page."""

_URL_BUDGET: Final = 6_000
"""Characters of names in one request's URL; the API's web server takes a request line of 8 000."""

_COLUMNS: Final = "name,type,state,messages_ready,messages_unacknowledged,consumers,head_message_timestamp"
_DOWN: Final = frozenset({"down", "crashed", "stopped", "terminated", "nodedown", "minority", "noproc"})
_CLOCK_SLACK: Final = 60.0


@dataclass(frozen=True, kw_only=True)
class Options:
    r"""The table `[plugins.rabbitmq]`.

    Attributes:
        url: Where RabbitMQ is, and how it is asked. `http://host:15672` or `https://…` asks the management
            API: one request for all queues, whose figures are up to 5 s old; it knows patterns,
            unacknowledged messages and the oldest message's age. `amqp://host:5672` or `amqps://…` asks
            each queue by a passive declare: exact, cheaper for the server, and a user without
            permissions will do; it needs the package `amqp` (the extra `[amqp]`).
        username: The user. The management API wants the user tag `monitoring` or `management`, and some
            permission in the virtual host, of which empty patterns (`^$`) are enough.
        password_file: A file that holds the password. It has to be there for any user but `guest`.
        ca: A file with the CA certificates that the server is checked against; without it, the system's.
        vhost: The virtual host.
        queues: Topics and their queues: `worker = ["task_queue"]`, `planner = ["planner.*"]`. A name with
            `*` or `?` is a pattern (a backslash before it makes it plain). The depths of all of a topic's
            queues are added up. A plain name without a queue makes its topic unknown; a pattern without one
            is 0. A stream has no depth, because it keeps what was read; AMQP cannot tell it from a queue.
        count_unacknowledged: Count messages, too, that a consumer has and has not acknowledged yet.
        workers_from: A topic whose consumers are this node's workers, as far as one can tell: a consumer
            with an unacknowledged message counts as busy. For a topic that other nodes consume as well it
            would tell of all of them.
        timeout: Seconds to wait for one answer.
        max_queues: Queues that the patterns may find.
    """

    url: Url = "http://127.0.0.1:15672"
    username: Annotated[str, Meta(min_length=1, max_length=255)] = "guest"
    password_file: Path | None = None
    ca: Path | None = None
    vhost: Annotated[str, Meta(min_length=1, max_length=255)] = "/"
    queues: Annotated[
        dict[Topic, Annotated[tuple[QueueName, ...], Meta(min_length=1)]], Meta(max_length=32)
    ] = field(default_factory=dict)
    count_unacknowledged: bool = False
    workers_from: Topic | None = None
    timeout: Annotated[float, Meta(gt=0, le=60)] = 2.0
    max_queues: Annotated[int, Meta(ge=1, le=100_000)] = 1_000

    def __post_init__(self) -> None:
        """Check what goes together; the text of the URL must not come up, because it may hold a password."""
        parts = urlsplit(self.url)
        try:
            usable = bool(parts.hostname) and parts.port != 0 and not parts.query
        except ValueError:  # the port is no number, or too high
            usable = False
        if not usable:
            raise ValueError("url has no usable host or port")
        if "@" in parts.netloc:
            raise ValueError("url holds a user or password: they belong into username and password_file")
        if self.password_file is None and self.username != "guest":
            raise ValueError("username needs a password_file")
        if self.workers_from is not None and self.workers_from not in self.queues:
            raise ValueError(f"workers_from is {self.workers_from!r}, which is no topic in queues")
        if self.amqp:
            self._check_amqp(parts.path)

    def _check_amqp(self, path: str) -> None:
        patterns = [name for names in self.queues.values() for name in names if _is_pattern(name)]
        if path.strip("/"):
            raise ValueError("url has a path: the virtual host belongs into vhost")
        if patterns:
            raise ValueError(f"the pattern {patterns[0]!r} needs the management API, an http or https url")
        if self.count_unacknowledged:
            raise ValueError("count_unacknowledged needs the management API, an http or https url")

    @property
    def amqp(self) -> bool:
        """Whether RabbitMQ is asked over AMQP."""
        return self.url.startswith("amqp")

    @property
    def place(self) -> str:
        """The server, for error texts."""
        return f"RabbitMQ at {self.url.rstrip('/')}"

    def password(self) -> str:
        """Read the password; the default user's is the default."""
        if self.password_file is None:
            return "guest"
        try:
            return self.password_file.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise PermissionError(f"password_file {self.password_file} cannot be read: {reason}") from None


class TopicError(Exception):
    """One topic cannot be read; the text names the queue."""


class Figures(NamedTuple):
    """What the server tells of one queue; None is unknown."""

    ready: int | None
    unacknowledged: int | None = None
    consumers: int | None = None
    head: float | None = None
    state: str = ""
    kind: str = ""


class Found(NamedTuple):
    """The queues that are there, by name, and why the patterns' queues are not among them."""

    queues: Mapping[str, Figures | TopicError]
    patterns_error: TopicError | None = None


class Source(Protocol):
    """One way to ask the server."""

    def read(self) -> Found:
        """Ask for all queues."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


@hookimpl
def openclaw_collectors(options: Options) -> list[Queues]:
    """Return the collector, where topics are configured.

    Raises:
        ModuleNotFoundError: The URL wants AMQP, and its client is not installed.
    """
    if not options.queues:
        return []
    if options.amqp and find_spec("amqp") is None:
        raise ModuleNotFoundError(
            "an amqp url needs the package amqp: install openclaw-exporter-rabbitmq[amqp]"
        )
    return [Queues(options)]


class Queues:
    """The depth of every configured topic, and the workers where a topic tells them."""

    name = "queues"

    def __init__(self, options: Options) -> None:
        self._options = options
        self._topics: dict[str, list[str | re.Pattern[str]]] = {
            topic: [_compiled(name) if _is_pattern(name) else _plain(name) for name in names]
            for topic, names in options.queues.items()
        }
        names = dict.fromkeys(name for names in options.queues.values() for name in names)
        patterns = [name for name in names if _is_pattern(name)]
        plain = [_plain(name) for name in names if name not in patterns]
        self._source: Source = (
            _Amqp(options, plain) if options.amqp else _Management(options, plain, patterns)
        )

    def collect(self) -> list[Observation | Exception]:
        """Return the depth of each topic, and an error for each that cannot be read.

        Raises:
            PermissionError: RabbitMQ refuses the user, or the password's file cannot be read.
            TimeoutError: RabbitMQ did not answer in time.
            ConnectionError: RabbitMQ cannot be reached, or none of the topics can be read.
        """
        found = self._source.read()
        outcome: list[Observation | Exception] = []
        for topic, names in self._topics.items():
            try:
                queues = self._members(names, found)
                outcome.append(_depth(topic, queues, unacknowledged=self._options.count_unacknowledged))
                if topic == self._options.workers_from:
                    outcome.extend(_workers(queues))
            except TopicError as error:
                outcome.append(TopicError(f"topic {topic!r}: {error}"))
        if all(isinstance(result, Exception) for result in outcome):
            raise ConnectionError(f"no topic of {self._options.place} can be read: {outcome[0]}")
        return outcome

    def close(self) -> None:
        """Close the connection."""
        self._source.close()

    def _members(self, names: Sequence[str | re.Pattern[str]], found: Found) -> dict[str, Figures]:
        """Return a topic's queues, each once however many patterns find it."""
        matches: list[str] = []
        for name in names:
            if isinstance(name, str):
                matches.append(name)
            elif found.patterns_error is not None:
                raise found.patterns_error
            else:
                matches.extend(queue for queue in found.queues if name.fullmatch(queue))
        members: dict[str, Figures] = {}
        for match in matches:
            figures = found.queues.get(match)
            if figures is None:
                raise TopicError(
                    f"there is no queue {match!r} in virtual host {self._options.vhost!r}: declare it, or "
                    "name it by a pattern where it may come and go"
                )
            if isinstance(figures, TopicError):
                raise figures
            members[match] = figures
        return members


def _depth(topic: str, queues: Mapping[str, Figures], *, unacknowledged: bool) -> QueueDepth:
    depth, now = 0, time.time()
    ages: list[float | None] = []
    for name, queue in queues.items():
        if queue.state in _DOWN:
            raise TopicError(f"queue {name!r} is {queue.state}: look after its node")
        if queue.kind == "stream":
            raise TopicError(f"{name!r} is a stream, which keeps what was read: its length is no backlog")
        if queue.ready is None or (unacknowledged and queue.unacknowledged is None):
            raise TopicError(
                f"RabbitMQ has no figures of queue {name!r} yet (a new queue's take up to 5 s), or "
                f"management_agent.disable_metrics_collector is set"
            )
        depth += queue.ready + (queue.unacknowledged or 0 if unacknowledged else 0)
        if queue.ready:
            ages.append(_age(queue.head, now))
    known = [age for age in ages if age is not None]
    return QueueDepth(topic, depth, max(known) if known and len(known) == len(ages) else None)


def _age(head: float | None, now: float) -> float | None:
    """Return a message's age. Its time is the publisher's word, so one from the future tells nothing."""
    if head is None or head <= 0 or head > now + _CLOCK_SLACK:
        return None
    return max(0.0, now - head)


def _workers(queues: Mapping[str, Figures]) -> Iterator[Capacity]:
    workers = free = 0
    for name, queue in queues.items():
        if queue.consumers is None:
            raise TopicError(f"RabbitMQ does not tell the consumers of queue {name!r}")
        workers += queue.consumers
        free += queue.consumers - min(queue.consumers, queue.unacknowledged or 0)
    yield Capacity("workers", workers)
    yield Capacity("available_slots", free)


class _Item(msgspec.Struct):
    name: str
    type: str = ""
    state: str = ""
    messages_ready: int | None = None
    messages_unacknowledged: int | None = None
    consumers: int | None = None
    head_message_timestamp: object = None  # null or an empty text where it is unknown

    def figures(self) -> Figures:
        head = self.head_message_timestamp
        return Figures(
            self.messages_ready,
            self.messages_unacknowledged,
            self.consumers,
            float(head) if isinstance(head, int) else None,
            self.state,
            self.type,
        )


class _Page(msgspec.Struct):
    items: list[_Item]
    filtered_count: int
    page_count: int


class _Management:
    """Asks the management API for a page of the queues whose names match one regular expression."""

    def __init__(self, options: Options, plain: Sequence[str], patterns: Sequence[str]) -> None:
        self._options = options
        self._limit = options.max_queues + len(plain)
        expressions = [re.escape(name) for name in plain]
        self._plain = _batches(expressions)
        self._all = _batches([*expressions, *map(_expression, patterns)])
        self._client: httpx.Client | None = None
        self._urls: dict[tuple[str, int], httpx.URL] = {}

    def read(self) -> Found:
        """Return the figures: one request, unless there are very many names or found queues."""
        try:
            return Found(self._list(self._all))
        except TopicError as error:
            return Found(self._list(self._plain), error)

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _list(self, batches: Sequence[str]) -> dict[str, Figures]:
        found: dict[str, Figures] = {}
        for batch in batches:
            number = pages = 1
            while number <= pages:
                page = self._page(batch, number)
                if page.filtered_count > self._limit:
                    limit = self._options.max_queues
                    raise TopicError(f"the patterns find more than max_queues = {limit} queues")
                found |= {item.name: item.figures() for item in page.items}
                number, pages = number + 1, page.page_count
        return found

    def _page(self, expression: str, number: int) -> _Page:
        import httpx  # noqa: PLC0415 - the agent's start need not wait for it

        options = self._options
        try:
            answer = self._http(httpx).get(
                self._url(httpx, expression, number), auth=(options.username, options.password())
            )
        except httpx.TimeoutException:
            raise _silence(options) from None
        except httpx.HTTPError as error:
            raise _loss(options, error) from None
        _check_status(answer.status_code, options)
        try:
            return msgspec.json.decode(answer.content, type=_Page)
        except msgspec.MsgspecError:
            raise ConnectionError(f"{options.place}: the answer is not the management API's") from None

    def _url(self, module: Any, expression: str, number: int) -> httpx.URL:
        """Return the address of a page; each is kept, because parsing one costs more than the rest."""
        key = (expression, number)
        if key not in self._urls:
            query = {
                "page": number,
                "page_size": _PAGE_SIZE,
                "name": expression,
                "use_regex": "true",
                "columns": _COLUMNS,
            }
            vhost = quote(self._options.vhost, safe="")
            self._urls[key] = module.URL(f"{self._options.url.rstrip('/')}/api/queues/{vhost}", params=query)
        return self._urls[key]

    def _http(self, module: Any) -> httpx.Client:
        if self._client is None:
            self._client = module.Client(
                verify=_context(self._options),
                timeout=self._options.timeout,
                trust_env=False,
                # Longer than an interval; the API's web server closes a connection after 60 s.
                limits=module.Limits(keepalive_expiry=50),
            )
        return self._client


class _Amqp:
    """Asks each queue by a passive declare, on a connection that is kept."""

    def __init__(self, options: Options, names: Sequence[str]) -> None:
        self._options = options
        self._names = names
        self._connection: Any = None
        self._channel: Any = None

    def read(self) -> Found:
        """Return the figures: one round trip for each queue."""
        amqp: Any = import_module("amqp")  # has no types
        options = self._options
        failures = (amqp.AMQPError, OSError)
        password = options.password()
        try:
            if self._connection is not None:
                # A restart of the server has closed the kept connection, which is worth a second try.
                try:
                    return Found(self._declare(amqp))
                except TimeoutError:
                    raise
                except failures:
                    self._drop()
            self._connect(amqp, password)
            return Found(self._declare(amqp))
        except TimeoutError:
            raise _silence(options) from None
        except (amqp.AccessRefused, amqp.NotAllowed) as error:
            vhost = f" in virtual host {options.vhost!r}" if isinstance(error, amqp.NotAllowed) else ""
            raise _refusal(options, vhost) from None
        except failures as error:
            raise _loss(options, error) from None
        finally:
            if self._channel is None:
                self._drop()

    def close(self) -> None:
        if self._connection is not None:
            with suppress(Exception):
                self._connection.close()
        self._drop()

    def _connect(self, amqp: Any, password: str) -> None:
        options = self._options
        parts = urlsplit(options.url)
        tls = parts.scheme == "amqps"
        host = parts.hostname or ""
        port = parts.port or (5671 if tls else 5672)
        secured = {"server_hostname": host, "cert_reqs": ssl.CERT_REQUIRED}
        if options.ca is not None:
            secured["ca_certs"] = str(options.ca)
        self._connection = amqp.Connection(
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
            userid=options.username,
            password=password,
            login_method="PLAIN",
            virtual_host=options.vhost,
            ssl=secured if tls else False,
            connect_timeout=options.timeout,
            read_timeout=options.timeout,
            write_timeout=options.timeout,
            client_properties={"connection_name": "openclaw-exporter"},
        )
        self._connection.connect()
        self._connection.sock.settimeout(options.timeout)
        self._channel = self._connection.channel()

    def _declare(self, amqp: Any) -> dict[str, Figures | TopicError]:
        found: dict[str, Figures | TopicError] = {}
        channel, self._channel = self._channel, None  # set again where the connection proves usable
        for name in self._names:
            try:
                _, ready, consumers = channel.queue_declare(name, passive=True)
                found[name] = Figures(ready=ready, consumers=consumers)
            except amqp.ChannelError as error:
                channel = self._connection.channel()  # the server has closed the other
                if not isinstance(error, amqp.NotFound):
                    found[name] = TopicError(f"queue {name!r}: {error.reply_text}")
        self._channel = channel
        return found

    def _drop(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            with suppress(Exception):
                connection.collect()


def _refusal(options: Options, what: str = "") -> PermissionError:
    tag = "" if options.amqp else ", and the user's tag 'monitoring' or 'management'"
    return PermissionError(
        f"{options.place} refuses user {options.username!r}{what}: check username, password_file and "
        f"permissions{tag}"
    )


def _silence(options: Options) -> TimeoutError:
    seconds = f"timeout = {options.timeout:g} s"
    return TimeoutError(
        f"{options.place} gave no answer within {seconds}: look after the server, or allow it more"
    )


def _loss(options: Options, error: object) -> ConnectionError:
    text = " ".join(str(error).split()) or type(error).__name__
    return ConnectionError(f"{options.place} cannot be read ({text}): check url, and that the server runs")


def _check_status(status: int, options: Options) -> None:
    if status in (401, 403):
        raise _refusal(options)
    if status == 404:  # noqa: PLR2004 - an HTTP status
        raise ConnectionError(
            f"{options.place} has no virtual host {options.vhost!r} or no management API: check vhost and url"
        )
    if status != 200:  # noqa: PLR2004 - an HTTP status
        raise ConnectionError(f"{options.place} answered with HTTP status {status}")


def _context(options: Options) -> ssl.SSLContext:
    """Return a TLS context; one for plain HTTP is never used, and costs no loading of the system's CAs."""
    if not options.url.startswith("https:"):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        return ssl.create_default_context(cafile=options.ca)
    except OSError as error:
        raise ConnectionError(f"ca {options.ca} cannot be used: {error.strerror or error}") from None


def _batches(expressions: Sequence[str]) -> list[str]:
    """Join expressions into as few as fit into a URL each."""
    batches: list[list[str]] = []
    room = 0
    for expression in expressions:
        size = len(quote(expression, safe="")) + 3
        if size > room:
            batches.append([])
            room = _URL_BUDGET
        batches[-1].append(expression)
        room -= size
    return [f"^(?:{'|'.join(batch)})$" for batch in batches]


def _expression(pattern: str) -> str:
    """Return a regular expression for the server that finds at least what the pattern finds.

    The server compares bytes and without case; what it finds is compared again here.
    """
    return "".join({"*": ".*", "?": ".+"}.get(part, re.escape(_plain(part))) for part in _parts(pattern))


def _compiled(pattern: str) -> re.Pattern[str]:
    parts = ({"*": ".*", "?": "."}.get(part, re.escape(_plain(part))) for part in _parts(pattern))
    return re.compile("".join(parts), re.DOTALL)


def _parts(pattern: str) -> list[str]:
    return re.findall(r"\\.|[^\\]|\\\Z", pattern, re.DOTALL)


def _plain(name: str) -> str:
    return re.sub(r"\\(.)", r"\1", name)


def _is_pattern(name: str) -> bool:
    return any(part in ("*", "?") for part in _parts(name))
