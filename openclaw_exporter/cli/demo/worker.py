"""A worker and its judge: tasks leave the sorted set, results pass through a stream with a consumer group.

Run as `python -m openclaw_exporter.cli.demo.worker PREFIX`, with the Redis in OPENCLAW_DEMO_REDIS.
"""

from __future__ import annotations

import os
import random
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from openclaw_exporter.cli.demo.ending import end_quietly
from openclaw_exporter.cli.demo.keys import GROUP, URL_VARIABLE, Keys

if TYPE_CHECKING:
    import redis

_STEP: Final = 0.1
_MOST: Final = 11
"""A step does fewer than this: a little more on average than the planner makes."""
_KEPT: Final = 1_000
"""Entries of the stream that are kept: judged ones stay in it, as Redis has it, and are no backlog."""


def main() -> None:
    """Work and judge until the demo ends."""
    import redis  # noqa: PLC0415 - comes with the extra `demo`; whoever starts this has looked

    end_quietly()
    keys = Keys(sys.argv[1])
    chance = random.Random()  # noqa: S311 - the load of a demo
    with redis.Redis.from_url(os.environ[URL_VARIABLE]) as server:
        while True:
            _work(server, keys, chance.randrange(_MOST))
            _judge(server, keys, chance.randrange(_MOST))
            time.sleep(_STEP)


def _work(server: redis.Redis, keys: Keys, count: int) -> None:
    done: Any = server.zpopmax(keys.tasks, count) if count else ()
    for task, _ in done:
        server.xadd(keys.results, {"task": task}, maxlen=_KEPT)


def _judge(server: redis.Redis, keys: Keys, count: int) -> None:
    if not count:
        return
    read: Any = server.xreadgroup(GROUP, "judge", {keys.results: ">"}, count=count)
    for _, entries in read:
        server.xack(keys.results, GROUP, *(entry for entry, _ in entries))


if __name__ == "__main__":
    main()
