"""Other programs that fill and drain queues: processes of their own, run as `python queues.py URL VERB …`.

They stand for a Chimera's planner and workers; a list, a sorted set and a stream with a consumer group.
"""

from __future__ import annotations

import subprocess
import sys

import redis

LIST, SORTED, STREAM, GROUP = (
    "task_queue",
    "tenant:a:queue:task",
    "chimera:task_queue:judge",
    "chimera_workers",
)


def run(url: str, verb: str, *numbers: int) -> None:
    """Run a verb in a process of its own, and wait for it."""
    subprocess.run((sys.executable, "-P", __file__, url, verb, *map(str, numbers)), check=True)


def fill(server: redis.Redis, tasks: int, priorities: int, entries: int) -> None:
    """Queue so many messages in each of the three."""
    for number in range(tasks):
        server.lpush(LIST, f"task {number}")
    for number in range(priorities):
        server.zadd(SORTED, {f"task {number}": number})
    for number in range(entries):
        server.xadd(STREAM, {"task": str(number)})


def drain(server: redis.Redis, tasks: int, priorities: int, entries: int) -> None:
    """Work off so many; a stream's entries are acknowledged and stay in the stream."""
    for _ in range(tasks):
        server.rpop(LIST)
    if priorities:
        server.zpopmin(SORTED, priorities)
    for _ in range(entries):
        ((_, ((entry, _),)),) = server.xreadgroup(GROUP, "worker-1", {STREAM: ">"}, count=1)
        server.xack(STREAM, GROUP, entry)


def main() -> None:
    """Do what the command line says."""
    url, verb, *numbers = sys.argv[1:]
    server = redis.Redis.from_url(url)
    if not server.exists(STREAM):
        server.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
    {"fill": fill, "drain": drain}[verb](server, *map(int, numbers))
    server.close()


if __name__ == "__main__":
    main()
