r"""Celery's queues and workers, read from its broker in Redis; Celery itself is not needed.

The keys are those of kombu's Redis transport, which Celery uses:

- a queue is a list of its name; messages with a priority lie in a list with `\x06\x16` and the priority's
  step after the name (0 has none);
- a message that a worker has taken, and not acknowledged, is a field of the hash `unacked`;
- a worker binds its mailbox as a member of the set `_kombu.binding.celery.pidbox`, and listens by a
  subscription of its own. It takes the binding away when it stops; one that was killed cannot.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from openclaw_exporter.plugin import Capacity, Collector, Measurement, Observation, QueueDepth, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator

OPENCLAW_PLUGIN_API = 1

_SEPARATOR = "\x06\x16"
_MAILBOXES = "_kombu.binding.celery.pidbox"
_UNACKED = "unacked"


@dataclass(frozen=True, kw_only=True)
class Options:
    """The table `[plugins.celery]`.

    Attributes:
        url: The broker's URL, as in Celery's `broker_url`, without a password.
        username: The user of Redis' access control list.
        password_file: A file with the password; read again after Redis has refused it.
        queues: Celery's queues, each a topic of its own.
        priority_steps: Celery's `priority_steps`.
        key_prefix: Celery's `global_keyprefix`.
        concurrency: Tasks that one worker runs at a time; 0 where they differ, then no capacity is told.
        timeout: Seconds to wait for Redis.
    """

    url: str = "redis://127.0.0.1:6379/0"
    username: str = ""
    password_file: Path | None = None
    queues: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=32)] = ("celery",)
    priority_steps: tuple[Annotated[int, msgspec.Meta(ge=0, le=255)], ...] = (0, 3, 6, 9)
    key_prefix: str = ""
    concurrency: Annotated[int, msgspec.Meta(ge=0)] = 0
    timeout: Annotated[float, msgspec.Meta(gt=0, le=60)] = 2.0


class Broker:
    """Everything that one pipelined round trip to the broker tells.

    Where Redis is away, `collect()` raises: every depth is unknown then, and none is zero.
    """

    name = "broker"

    def __init__(self, options: Options) -> None:
        self._options = options
        self._client: Any = None

    def collect(self) -> Iterator[Observation | Exception]:
        """Yield depths, unacknowledged messages and workers.

        Raises:
            redis.RedisError: The broker does not answer, or refuses.
        """
        import redis  # noqa: PLC0415 - a large module that the agent's start need not wait for

        try:
            *lengths, unacked, mailboxes, clients = self._ask(redis)
        except redis.RedisError:
            self.close()
            raise
        yield from self._depths(lengths)
        yield Measurement("celery.message.unacked", unacked, "{message}", "updowncounter")
        if isinstance(clients, Exception):
            yield clients  # the user may not list clients: the workers are unknown, the rest stands
        else:
            yield from self._workers(mailboxes, clients)

    def close(self) -> None:
        """Close the connection; the next collection makes a new one, with the password of then."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _ask(self, redis: Any) -> list[Any]:
        """Ask everything in one round trip. Only the answer about clients may be an exception."""
        if self._client is None:
            self._client = redis.Redis.from_url(
                self._options.url,
                username=self._options.username or None,
                password=self._password(),
                socket_timeout=self._options.timeout,
                socket_connect_timeout=self._options.timeout,
                decode_responses=True,
            )
        prefix = self._options.key_prefix
        pipeline = self._client.pipeline(transaction=False)
        for queue in self._options.queues:
            for step in self._options.priority_steps:
                pipeline.llen(f"{prefix}{queue}{_SEPARATOR}{step}" if step else f"{prefix}{queue}")
        pipeline.hlen(f"{prefix}{_UNACKED}")
        pipeline.smembers(f"{prefix}{_MAILBOXES}")
        pipeline.client_list(_type="pubsub")
        *answers, clients = pipeline.execute(raise_on_error=False)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return [*answers, clients]

    def _password(self) -> str | None:
        path = self._options.password_file
        return path.read_text().strip() if path is not None else None

    def _depths(self, lengths: list[int]) -> Iterator[QueueDepth]:
        steps = len(self._options.priority_steps)
        for index, queue in enumerate(self._options.queues):
            yield QueueDepth(queue, sum(lengths[index * steps : (index + 1) * steps]))

    def _workers(self, mailboxes: set[str], clients: list[dict[str, str]]) -> Iterator[Observation]:
        """Yield how many workers there can be: not more than have a mailbox, nor than listen."""
        listening = sum(int(client.get("psub", 0)) > 0 for client in clients)
        workers = min(len(mailboxes), listening)
        yield Measurement("celery.worker.count", workers, "{worker}", "updowncounter")
        if self._options.concurrency:
            yield Capacity("workers", workers * self._options.concurrency)


@hookimpl
def openclaw_collectors(options: Options) -> list[Collector]:
    """Return the one collector."""
    return [Broker(options)]
