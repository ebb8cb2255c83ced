"""Whether our user may do in Redis all that it will have to: found out at the start, not by a heartbeat."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from openclaw_exporter.errors import StateError
from openclaw_exporter.receiver.store.redis.calls import Call
from openclaw_exporter.receiver.store.redis.packing import CLOCK

if TYPE_CHECKING:
    from openclaw_exporter.receiver.store.redis.link import Link

READS: Final = (
    ("HGETALL",),
    ("HMGET", "number"),
    ("HSCAN", 0),
    ("XRANGE", "-", "+"),
    ("XREVRANGE", "+", "-"),
)
"""What is read without a script: the command, and what follows its key."""


async def try_rights(link: Link) -> None:
    """Do everything once, on a key that is gone then.

    Args:
        link: The way to Redis.

    Raises:
        StateError: Our user may not.
    """
    key = link.key(CLOCK, "rights")
    calls = [Call(CLOCK, ("EVALSHA", link.script("rights"), 1, key))]
    calls += [Call(CLOCK, (name, key, *words)) for name, *words in READS]
    calls.append(Call(CLOCK, ("XREAD", "STREAMS", key, "0-0")))
    for answer in await link.run(calls):
        if isinstance(answer, Exception):
            raise StateError(
                f'receiver.store.url: Redis cannot be used: {answer}; see "A registry in Redis" in '
                "docs/operations.md for the rights it needs"
            )
