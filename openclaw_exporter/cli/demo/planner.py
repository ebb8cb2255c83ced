"""A planner: it fills a list with goals and splits them into tasks of a sorted set.

Run as `python -m openclaw_exporter.cli.demo.planner PREFIX`, with the Redis in OPENCLAW_DEMO_REDIS.
"""

from __future__ import annotations

import json
import math
import os
import random
import sys
import time
from typing import Any, Final

from openclaw_exporter.cli.demo.ending import end_quietly
from openclaw_exporter.cli.demo.keys import URL_VARIABLE, Keys

_STEP: Final = 0.1
_WAVE: Final = 12.0
"""Seconds from one rush of goals to the next."""


def main() -> None:
    """Plan until the demo ends."""
    import redis  # noqa: PLC0415 - comes with the extra `demo`; whoever starts this has looked

    end_quietly()
    keys = Keys(sys.argv[1])
    chance = random.Random()  # noqa: S311 - the load of a demo
    with redis.Redis.from_url(os.environ[URL_VARIABLE]) as server:
        number = 0
        while True:
            rush = 1 + math.sin(2 * math.pi * time.monotonic() / _WAVE)
            for _ in range(chance.randrange(1 + round(4 * rush))):
                number += 1
                server.lpush(keys.goals, json.dumps({"goal": number, "created_at": time.time()}))
            taken: Any = server.rpop(keys.goals, chance.randrange(6))
            for text in taken or ():
                tasks = {
                    f"{text.decode()}#{part}": chance.random() for part in range(1 + chance.randrange(3))
                }
                server.zadd(keys.tasks, tasks)
            time.sleep(_STEP)


if __name__ == "__main__":
    main()
