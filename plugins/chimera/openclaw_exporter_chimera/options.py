"""What `[plugins.chimera]` may say."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, TypeAlias
from urllib.parse import parse_qs, urlsplit

from msgspec import Meta

from openclaw_exporter_chimera.systems import Prefixes, Source, plain, sources

Topic: TypeAlias = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9_.:-]{1,64}\Z", description="1 to 64 characters of A-Z a-z 0-9 _ . : -")
]
Url: TypeAlias = Annotated[
    str,
    Meta(
        pattern=r"^(redis|rediss|unix)://.",
        description="redis://host:port/number, rediss://… or unix:///path",
    ),
]
Address: TypeAlias = Annotated[str, Meta(pattern=r"^.+:[0-9]{1,5}\Z", description="host:port")]
Key: TypeAlias = Annotated[str, Meta(min_length=1, max_length=512)]
Keys: TypeAlias = Annotated[tuple[Key, ...], Meta(min_length=1)]
SystemQueue: TypeAlias = Annotated[
    str,
    Meta(
        pattern=r"^(celery|rq|arq|bullmq):.{1,256}\Z",
        description="celery:NAME, rq:NAME, arq:NAME or bullmq:NAME",
    ),
]

MAX_TOPICS = 32
"""Topics that one heartbeat carries."""


@dataclass(frozen=True, kw_only=True)
class Options:
    r"""The table `[plugins.chimera]`.

    Attributes:
        url: Where Redis is: `redis://host:6379/0`, `rediss://…` for TLS, or `unix:///path`. With `mode` this
            is where a Sentinel or a node of the cluster is.
        mode: What stands at `url`: one Redis (`single`), a Sentinel that knows where Redis is (`sentinel`),
            or a node of a Redis Cluster (`cluster`).
        nodes: Further Sentinels or nodes of the cluster, `host:port`, asked where the one in `url` is away.
        service: The name under which the Sentinels know the Redis.
        username: The ACL user, where it is not the default one.
        password_file: A file that holds the password; read again after Redis has refused it.
        sentinel_username: The ACL user at the Sentinels.
        sentinel_password_file: A file that holds the password for the Sentinels.
        ca: A file with the CA certificates that a `rediss` server is checked against.
        client_certificate: A file with the certificate to show to a `rediss` server that asks for one.
        client_key: The file with that certificate's private key.
        queues: Topics and their keys: `worker = ["task_queue"]`, `planner = ["planner:queue:*"]`. A key with
            `*`, `?` or `[` is a pattern (a backslash before it makes it plain). The depths of all of
            a topic's keys are added up.
        systems: Topics and the task queues behind them by system and name: `worker = ["celery:celery"]`,
            `judge = ["rq:review"]`, `arq:arq:queue`, `bullmq:judge`. The plugin knows these systems' keys.
            A topic may stand here and in `queues`.
        celery_prefix: Celery's `global_keyprefix`.
        bullmq_prefix: BullMQ's `prefix`.
        groups: Consumer groups to read in streams; without any, the group that is furthest behind counts.
        created_at: Fields of a message that tell when it was queued, for the oldest message's age: the first
            of them that a JSON message has counts, as Unix seconds or milliseconds or RFC 3339; a dot leads
            into an object (`meta.created_at`). One message at each end of a list or sorted set is read then,
            and none where this is empty. Streams, RQ, arq and BullMQ tell the age without it.
        workers: How many workers this node runs, where that is fixed.
        worker_processes: A regular expression: each process of this machine whose command line (arguments
            joined by spaces) it is found in is a worker. For workers in other containers it sees none.
        worker_consumers: Topics whose streams' consumers are the workers.
        consumer_names: A regular expression that the names of this node's consumers begin with.
        consumer_idle: Seconds without a sign of a consumer after which it counts as gone. Take more than one
            task lasts, or than a consumer blocks in XREADGROUP, whichever is longer. Before Redis 7.2 a
            consumer that waits at an empty stream gives none, so one that dies there counts until there is
            work again.
        busy_from: Topics whose messages in work tell how many workers are busy, so that `available_slots` is
            workers less busy ones: consumers of a stream that hold unacknowledged entries, what RQ or BullMQ
            has started, and Celery's unacknowledged tasks of all queues in its Redis database (right with
            `task_acks_late` and `worker_prefetch_multiplier = 1`; else they are those that workers have
            reserved). Except for consumers, whose names can be told apart, this counts the work of all nodes:
            use it where this node is the only one.
        blocked_hint: Whether `available_slots` is at most the number of clients that block in Redis. A hint:
            a judge and the workers of other nodes block as well.
        drain_window: Seconds of depths that a topic's drain estimate is made from (the last 32 collections at
            most); 0 for none.
        socket_timeout: Seconds to wait for one answer from Redis.
        scan_count: About how many keys of the database one SCAN call looks at.
        scan_limit: SCAN calls for one search at most; what needs more is unknown.
        max_keys: Keys that one pattern may find.
    """

    url: Url = field(default="redis://127.0.0.1:6379/0", repr=False)
    mode: Literal["single", "sentinel", "cluster"] = "single"
    nodes: tuple[Address, ...] = ()
    service: Key = "mymaster"
    username: str | None = None
    password_file: Path | None = None
    sentinel_username: str | None = None
    sentinel_password_file: Path | None = None
    ca: Path | None = None
    client_certificate: Path | None = None
    client_key: Path | None = None
    queues: Annotated[dict[Topic, Keys], Meta(max_length=MAX_TOPICS)] = field(default_factory=dict)
    systems: Annotated[
        dict[Topic, Annotated[tuple[SystemQueue, ...], Meta(min_length=1)]], Meta(max_length=MAX_TOPICS)
    ] = field(default_factory=dict)
    celery_prefix: Annotated[str, Meta(max_length=256)] = ""
    bullmq_prefix: Key = "bull"
    groups: tuple[Key, ...] = ()
    created_at: tuple[Key, ...] = ()
    workers: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    worker_processes: Key | None = None
    worker_consumers: tuple[Topic, ...] = ()
    consumer_names: str = ""
    consumer_idle: Annotated[float, Meta(ge=1, le=86_400)] = 60.0
    busy_from: tuple[Topic, ...] = ()
    blocked_hint: bool = False
    drain_window: Annotated[float, Meta(ge=0, le=3_600)] = 60.0
    socket_timeout: Annotated[float, Meta(gt=0, le=60)] = 2.0
    scan_count: Annotated[int, Meta(ge=100, le=100_000)] = 5_000
    scan_limit: Annotated[int, Meta(ge=1, le=10_000)] = 100
    max_keys: Annotated[int, Meta(ge=1, le=100_000)] = 1_000

    def __post_init__(self) -> None:
        """Check what keys say together, and the URL, whose text must not show: it may hold a password."""
        self._check_place()
        self._check_workers()
        self._check_topics()
        self._check_expressions()
        if len(self.topics) > MAX_TOPICS:
            raise ValueError(f"queues and systems name {len(self.topics)} topics; {MAX_TOPICS} are allowed")

    @property
    def place(self) -> str:
        """The URL without user and password, for error texts."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    @property
    def database(self) -> str:
        """The number of the database as the URL has it; empty where it has none."""
        parts = urlsplit(self.url)
        own = "" if parts.scheme == "unix" else parts.path.strip("/")
        return parse_qs(parts.query).get("db", [own])[-1]

    @property
    def topics(self) -> dict[str, None]:
        """The topics, in their order."""
        return dict.fromkeys((*self.queues, *self.systems))

    @property
    def patterns(self) -> dict[str, None]:
        """The keys in `queues` that are patterns."""
        return {key: None for keys in self.queues.values() for key in keys if is_pattern(key)}

    @property
    def redis_tells_slots(self) -> bool:
        """Whether `available_slots` needs an answer from Redis."""
        return bool(self.worker_consumers or self.busy_from or self.blocked_hint)

    def sources(self, topic: str) -> tuple[Source, ...]:
        """The topic's keys that are no patterns."""
        prefixes = Prefixes(self.celery_prefix, self.bullmq_prefix)
        named = (name for queue in self.systems.get(topic, ()) for name in sources(queue, prefixes))
        keys = (key for key in self.queues.get(topic, ()) if not is_pattern(key))
        return (*(Source(plain(key)) for key in keys), *named)

    def _check_place(self) -> None:
        parts = urlsplit(self.url)
        try:
            usable = bool(parts.path) if parts.scheme == "unix" else bool(parts.hostname) and parts.port != 0
        except ValueError:  # the port is no number, or too high
            usable = False
        if not usable:
            raise ValueError("url has no usable host, port or path")
        if parse_qs(parts.query).keys() - {"db"}:
            raise ValueError("url has a query: nothing but db=NUMBER may stand after the question mark")
        if not re.fullmatch("[0-9]{0,9}", self.database):
            raise ValueError("url does not end in the number of a database")
        if parts.password and self.password_file:
            raise ValueError("the password stands in url and in password_file: keep one")
        if self.mode != "single" and parts.scheme == "unix":
            raise ValueError(f"mode {self.mode} needs a redis:// or rediss:// url")
        if self.mode == "single" and self.nodes:
            raise ValueError("nodes are for the modes sentinel and cluster")
        if self.mode == "cluster" and self.database not in {"", "0"}:
            raise ValueError("a Redis Cluster has no database but 0")

    def _check_workers(self) -> None:
        """Check that the workers are told once, and by what is there."""
        ways = {
            "workers": self.workers is not None,
            "worker_processes": self.worker_processes is not None,
            "worker_consumers": bool(self.worker_consumers),
        }
        told = [name for name, used in ways.items() if used]
        if len(told) > 1:
            raise ValueError(f"{' and '.join(told)} both tell the workers: keep one")
        for name in ("busy_from", "blocked_hint"):
            if getattr(self, name) and not told:
                raise ValueError(f"{name} needs workers, worker_processes or worker_consumers")
        if self.blocked_hint and not self.topics:
            raise ValueError("blocked_hint needs queues or systems")

    def _check_topics(self) -> None:
        for name in ("worker_consumers", "busy_from"):
            for topic in getattr(self, name):
                if topic not in self.topics:
                    raise ValueError(f"{name} names {topic!r}, which is no topic of queues or systems")
        for topic in self.busy_from:
            if any(queue.startswith("arq:") for queue in self.systems.get(topic, ())):
                raise ValueError(f"busy_from names {topic!r}, and arq does not count what is in work")

    def _check_expressions(self) -> None:
        for name in ("worker_processes", "consumer_names"):
            try:
                re.compile(getattr(self, name) or "")
            except re.error as error:
                raise ValueError(f"{name} is no regular expression: {error}") from None


def is_pattern(key: str) -> bool:
    """Whether a key of `queues` is a pattern."""
    return re.search(r"(?<!\\)[*?\[]", key) is not None
