"""What `[plugins.rabbitmq]` may say."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypeAlias
from urllib.parse import urlsplit

from msgspec import Meta

from openclaw_exporter_rabbitmq.patterns import is_pattern

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


@dataclass(frozen=True, kw_only=True)
class Options:
    r"""The table `[plugins.rabbitmq]`.

    Attributes:
        url: Where RabbitMQ is, and how it is asked. `http://host:15672` or `https://…` asks the management
            API: one request for some dozen queues, whose figures are up to 5 s old; it knows patterns,
            unacknowledged messages and the oldest message's age. `amqp://host:5672` or `amqps://…` asks
            each queue by a passive declare: exact, cheaper for the server, and a user who may `read`
            these queues will do (who may nothing, before RabbitMQ 4.2.6; 4.2.6 and 4.3.0 themselves ask
            for `configure`); it needs the package `amqp` (the extra `[amqp]`).
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
        patterns = [name for names in self.queues.values() for name in names if is_pattern(name)]
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
