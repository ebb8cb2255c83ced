"""Three ways in which queues of tasks lie in Redis, as they are found in the wild.

Each has the queues `task` (from the planner to the workers) and `review` (from the workers to the judge). A
message is a JSON object with `created_at`, so that its age can be told from outside.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Protocol

import redis

_WAIT = 1
"""Seconds that one call waits for a message: a consumer gives a sign at least so often."""


@dataclass(frozen=True, slots=True)
class Message:
    """A task or a result; `entry` is its id in a stream."""

    text: str
    created_at: str
    priority: int = 1
    entry: str = ""

    def encoded(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self))


def now() -> str:
    """Return the time as RFC 3339."""
    return datetime.now(UTC).isoformat()


class Layout(Protocol):
    """Queues of messages."""

    def put(self, queue: str, message: Message) -> None:
        """Queue a message."""

    def take(self, queue: str, name: str) -> Message | None:
        """Take a message in the name of a member, or None after a while."""

    def done(self, queue: str, message: Message) -> None:
        """Say that a message was worked off."""

    def close(self) -> None:
        """Close the connection."""


class _Redis:
    """What all three have in common."""

    def __init__(self, url: str) -> None:
        self._redis: Any = redis.Redis.from_url(url, decode_responses=True)

    def done(self, queue: str, message: Message) -> None:
        """Nothing: who took the message has removed it."""

    def close(self) -> None:
        """Close the connection."""
        self._redis.close()


class Lists(_Redis):
    """RPUSH and BLPOP on `task_queue` and `review_queue`."""

    def put(self, queue: str, message: Message) -> None:
        """Append the message."""
        self._redis.rpush(f"{queue}_queue", message.encoded())

    def take(self, queue: str, name: str) -> Message | None:
        """Take the first one. Who took it is not written down; a worker that dies takes it along."""
        del name
        found = self._redis.blpop(f"{queue}_queue", _WAIT)
        return Message(**json.loads(found[1])) if found else None


class SortedSets(_Redis):
    """ZADD and BZPOPMAX on `tenant:acme:queue:task` and `tenant:acme:queue:review`: by priority."""

    def put(self, queue: str, message: Message) -> None:
        """Add the message under its priority."""
        self._redis.zadd(f"tenant:acme:queue:{queue}", {message.encoded(): message.priority})

    def take(self, queue: str, name: str) -> Message | None:
        """Take the one with the highest priority."""
        del name
        found = self._redis.bzpopmax(f"tenant:acme:queue:{queue}", _WAIT)
        return Message(**json.loads(found[1])) if found else None


class Streams(_Redis):
    """XADD, XREADGROUP and XACK on `chimera:task` and `chimera:review`, each with one group."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        for queue in ("task", "review"):
            try:
                self._redis.xgroup_create(f"chimera:{queue}", "chimera_workers", id="0", mkstream=True)
            except redis.ResponseError as error:
                if "BUSYGROUP" not in str(error):  # another member was first
                    raise

    def put(self, queue: str, message: Message) -> None:
        """Append an entry. Those that are done stay in the stream, up to a limit."""
        self._redis.xadd(f"chimera:{queue}", {"message": message.encoded()}, maxlen=100_000)

    def take(self, queue: str, name: str) -> Message | None:
        """Take the next entry; it is pending under the member's name until `done`."""
        read = {f"chimera:{queue}": ">"}
        found = self._redis.xreadgroup("chimera_workers", name, read, count=1, block=_WAIT * 1_000)
        if not found:
            return None
        ((_, ((entry, fields),)),) = found
        return replace(Message(**json.loads(fields["message"])), entry=entry)

    def done(self, queue: str, message: Message) -> None:
        """Acknowledge the entry."""
        self._redis.xack(f"chimera:{queue}", "chimera_workers", message.entry)


LAYOUTS: dict[str, type[Lists | SortedSets | Streams]] = {
    "list": Lists,
    "sorted-set": SortedSets,
    "stream": Streams,
}
