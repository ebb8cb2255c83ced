"""The collector `queues`: depths, ages and workers out of what the server tells."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from openclaw_exporter.plugin import Capacity, Observation, QueueDepth
from openclaw_exporter_rabbitmq.figures import Figures, Found, TopicError
from openclaw_exporter_rabbitmq.patterns import compiled, is_pattern, plain_name

if TYPE_CHECKING:
    import re
    from collections.abc import Iterator, Mapping, Sequence

    from openclaw_exporter_rabbitmq.figures import Source
    from openclaw_exporter_rabbitmq.options import Options


_DOWN: Final = frozenset({"down", "crashed", "stopped", "terminated", "nodedown", "minority", "noproc"})
_CLOCK_SLACK: Final = 60.0


class Queues:
    """The depth of every configured topic, and the workers where a topic tells them."""

    name = "queues"

    def __init__(self, options: Options) -> None:
        self._options = options
        self._topics: dict[str, list[str | re.Pattern[str]]] = {
            topic: [compiled(name) if is_pattern(name) else plain_name(name) for name in names]
            for topic, names in options.queues.items()
        }
        names = dict.fromkeys(name for names in options.queues.values() for name in names)
        patterns = [name for name in names if is_pattern(name)]
        plain = [plain_name(name) for name in names if name not in patterns]
        self._source = _source(options, plain, patterns)

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


def _source(options: Options, plain: Sequence[str], patterns: Sequence[str]) -> Source:
    """Return what asks the server; an agent has only the one that it needs."""
    if options.amqp:
        from openclaw_exporter_rabbitmq.declare import Amqp  # noqa: PLC0415

        return Amqp(options, plain)
    from openclaw_exporter_rabbitmq.management import Management  # noqa: PLC0415

    return Management(options, plain, patterns)


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
