r"""Where Celery, RQ, arq and BullMQ keep a queue's tasks in Redis.

What these write was looked at with Celery 5.7 (Kombu 5.7), RQ 3.0, arq 0.28 and BullMQ 3.4 for Python:

| system | waiting | in work | when queued |
|---|---|---|---|
| Celery | list `NAME`; of a priority above 0 list `NAME\x06\x16DIGIT` | hash `unacked`, of all queues | |
| RQ | list `rq:queue:NAME` | sorted set `rq:wip:NAME` | `enqueued_at` of `rq:job:ID` |
| arq | sorted set `NAME` (`arq:queue`) by the time it is due | | the score, in ms |
| BullMQ | lists `bull:NAME:wait`, `:paused`; set `:prioritized` | list `:active` | in `bull:NAME:ID` |

Celery's workers reserve tasks: those leave the list before they are worked on. A delayed job (BullMQ's
`:delayed`, RQ's `rq:scheduled:NAME`) does not wait for a worker yet, and arq's set holds those that are due
later beside the others: they count there.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import msgspec

_SEPARATOR: Final = "\x06\x16"
"""Between a queue's name and a priority; Kombu's `sep`."""
_PRIORITIES: Final = range(1, 10)
"""Celery's priorities beside 0. Which are in use is the swarm's configuration (`priority_steps`)."""


class Prefixes(NamedTuple):
    """What stands before the keys of systems that can be told to."""

    celery: str = ""
    bullmq: str = "bull"


class Source(msgspec.Struct, frozen=True):
    """A key, and what is known of it beside its type.

    Attributes:
        key: The key.
        stamp: A pattern `HASH:*->FIELD` for SORT that leads from a message to the time it was queued.
        last: Whether the oldest message is the last one of the list.
        due: Whether a sorted set's scores are times in milliseconds, and the lowest is the oldest message.
        work: Whether its length is the number of messages in work, so that it belongs to no depth.
        consumers: Whether a stream's consumers are asked for.
    """

    key: bytes
    stamp: bytes = b""
    last: bool = False
    due: bool = False
    work: bool = False
    consumers: bool = False


def sources(queue: str, prefixes: Prefixes) -> tuple[Source, ...]:
    """Return the keys of a queue that is given as `SYSTEM:NAME`."""
    system, _, name = queue.partition(":")
    match system:
        case "celery":
            base = f"{prefixes.celery}{name}"
            keys = (base, *(f"{base}{_SEPARATOR}{priority}" for priority in _PRIORITIES))
            work = Source(f"{prefixes.celery}unacked".encode(), work=True)
            return (*(Source(key.encode()) for key in keys), work)
        case "rq":
            waiting = Source(f"rq:queue:{name}".encode(), stamp=b"rq:job:*->enqueued_at")
            return (waiting, Source(f"rq:wip:{name}".encode(), work=True))
        case "arq":
            return (Source(name.encode(), due=True),)
    base = f"{prefixes.bullmq}:{name}"
    stamp = f"{base}:*->timestamp".encode()
    return (
        Source(f"{base}:wait".encode(), stamp=stamp, last=True),
        Source(f"{base}:paused".encode(), stamp=stamp, last=True),
        Source(f"{base}:prioritized".encode(), stamp=stamp),
        Source(f"{base}:active".encode(), work=True),
    )


def plain(key: str) -> bytes:
    """Return a key without the backslashes that make it no pattern."""
    return re.sub(r"\\(.)", r"\1", key).encode()
