"""Task queues by the name of their system: Celery, RQ and BullMQ fill a real Redis, and their workers work.

arq wants an older redis-py than the plugin, so its one key is written here as arq 0.28 writes it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from openclaw_exporter.errors import ConfigError
from openclaw_exporter.plugin.options import read_table
from openclaw_exporter_chimera import Options
from openclaw_exporter_chimera.systems import Prefixes, sources
from support.chimera import Bench, ages, capacity, depths
from support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.redis import RedisServer

CELERY = """
import os, time
from celery import Celery

app = Celery("tasks", broker=os.environ["URL"])
app.conf.update(task_acks_late=True, worker_prefetch_multiplier=1, broker_connection_retry_on_startup=False)

@app.task
def wait(seconds):
    time.sleep(seconds)
"""
RQ = """
import os, time
import redis, rq

queue = rq.Queue("review", connection=redis.Redis.from_url(os.environ["URL"]))
"""
BULLMQ = """
import asyncio, os
from bullmq import Queue, Worker

place = {"connection": os.environ["URL"]}

async def add(*options):
    queue = Queue("judge", place)
    for each in options:
        await queue.add("task", {}, each)
    await queue.close()

async def work():
    async def wait(job, token):
        await asyncio.sleep(60)
    worker = Worker("judge", wait, place)
    await asyncio.sleep(60)
"""


@pytest.fixture
def bench(redis_server: RedisServer) -> Iterator[Bench]:
    bench = Bench(redis_server)
    yield bench
    bench.close()


class Program:
    """A module that other processes run lines of, with the Redis' URL in their environment."""

    def __init__(self, directory: Path, server: RedisServer, text: str) -> None:
        (directory / "tasks.py").write_text(text)
        self._directory = directory
        self._environment = os.environ | {"URL": server.url}

    def run(self, line: str) -> None:
        """Run one line and wait for it."""
        with self.running("-c", f"from tasks import *\n{line}") as process:
            assert process.wait(120) == 0

    @contextmanager
    def running(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a Python program until the block ends."""
        log = self._directory / "program.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                (sys.executable, "-W", "ignore", *arguments),
                cwd=self._directory,
                env=self._environment,
                stdout=output,
                stderr=output,
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def test_celery_with_priorities_and_a_busy_worker(bench: Bench, tmp_path: Path) -> None:
    celery = Program(tmp_path, bench.server, CELERY)
    queues = bench.queues(systems={"worker": ["celery:celery"]}, workers=1, busy_from=["worker"])
    assert depths(queues) == {"worker": 0}
    celery.run("for priority in (None, 0, 3, 5, 9): wait.apply_async((60,), priority=priority)")
    assert {key.decode() for key in bench.client.keys("celery*")} == {
        "celery",
        "celery\x06\x163",
        "celery\x06\x169",
    }
    assert depths(queues) == {"worker": 5}
    assert capacity(queues) == {"available_slots": 1}
    quiet = ("--pool", "solo", "--without-gossip", "--without-mingle", "--without-heartbeat")
    with celery.running("-m", "celery", "-A", "tasks", "worker", *quiet):
        wait_until(lambda: depths(queues) == {"worker": 4}, what="a task in work")
        # Celery takes a task off its list first and writes it down as taken afterwards.
        wait_until(lambda: capacity(queues) == {"available_slots": 0}, what="a busy worker")


def test_rq_tells_depth_age_and_busy_workers(bench: Bench, tmp_path: Path) -> None:
    rq = Program(tmp_path, bench.server, RQ)
    queues = bench.queues(systems={"judge": ["rq:review"]}, workers=4, busy_from=["judge"])
    rq.run("for _ in range(3): queue.enqueue(time.sleep, 60)")
    assert depths(queues) == {"judge": 3}
    (age,) = ages(queues).values()
    assert age is not None
    assert 0 <= age < 60
    oldest = bench.client.lindex("rq:queue:review", 0).decode()
    bench.client.hset(f"rq:job:{oldest}", "enqueued_at", "2026-01-01T00:00:00.000000Z")
    (age,) = ages(queues).values()
    assert age == pytest.approx(time.time() - 1_767_225_600, abs=60)
    with rq.running(
        "-c", "from tasks import *\nrq.SimpleWorker([queue], connection=queue.connection).work()"
    ):
        wait_until(lambda: depths(queues) == {"judge": 2}, what="a job in work")
        wait_until(lambda: capacity(queues) == {"available_slots": 3}, what="a busy worker")


def test_bullmq_with_priorities_paused_and_busy(bench: Bench, tmp_path: Path) -> None:
    bullmq = Program(tmp_path, bench.server, BULLMQ)
    queues = bench.queues(systems={"judge": ["bullmq:judge"]}, workers=4, busy_from=["judge"])
    bullmq.run("asyncio.run(add({}, {}, {'priority': 5}, {'delay': 600_000}))")
    assert depths(queues) == {"judge": 3}
    bench.client.hset("bull:judge:1", "timestamp", int((time.time() - 500) * 1_000))
    (age,) = ages(queues).values()
    assert age == pytest.approx(530, abs=30.1)
    with bullmq.running("-c", "from tasks import *\nasyncio.run(work())"):
        wait_until(lambda: depths(queues) == {"judge": 2}, what="a job in work")
        wait_until(lambda: capacity(queues) == {"available_slots": 3}, what="a busy worker")
    # Before version 5, BullMQ renames the list of a paused queue.
    bench.client.rename("bull:judge:wait", "bull:judge:paused")
    assert depths(queues) == {"judge": 2}


def test_arq_tells_depth_and_age_by_its_scores(bench: Bench) -> None:
    queues = bench.queues(systems={"worker": ["arq:arq:queue"]})
    due = {"a": (time.time() - 70) * 1_000, "b": (time.time() + 600) * 1_000}
    bench.client.zadd("arq:queue", due)
    assert depths(queues) == {"worker": 2}
    assert ages(queues) == {"worker": pytest.approx(100, abs=30.1)}
    bench.client.zrem("arq:queue", "a")
    assert ages(queues) == {"worker": 0.0}


def test_a_topic_may_have_keys_and_systems(bench: Bench) -> None:
    queues = bench.queues(queues={"worker": ["task_queue"]}, systems={"worker": ["rq:a", "celery:b"]})
    bench.client.rpush("task_queue", 1)
    bench.client.rpush("rq:queue:a", 1, 2)
    bench.client.rpush("b\x06\x169", 1, 2, 3)
    assert depths(queues) == {"worker": 6}


def test_prefixes_stand_before_the_keys() -> None:
    prefixes = Prefixes(celery="app:", bullmq="{x}")
    celery = [source.key for source in sources("celery:c", prefixes)]
    assert celery[:2] == [b"app:c", b"app:c\x06\x161"]
    assert celery[-2:] == [b"app:c\x06\x169", b"app:unacked"]
    bullmq = [source.key for source in sources("bullmq:b", prefixes)]
    assert bullmq == [b"{x}:b:wait", b"{x}:b:paused", b"{x}:b:prioritized", b"{x}:b:active"]


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ({"systems": {"w": ["kafka:x"]}}, "celery:NAME"),
        ({"systems": {"w": ["celery:"]}}, "celery:NAME"),
        ({"systems": {"w": ["arq:q"]}, "workers": 1, "busy_from": ["w"]}, "arq does not count"),
        ({"systems": {"w": ["rq:q"]}, "busy_from": ["w"]}, "busy_from needs workers"),
        ({"systems": {"w": ["rq:q"]}, "workers": 1, "busy_from": ["x"]}, "no topic"),
        (
            {
                "systems": {f"a{n}": ["rq:q"] for n in range(20)},
                "queues": {f"b{n}": ["q"] for n in range(20)},
            },
            "40 topics",
        ),
    ],
)
def test_a_wrong_table_is_named(table: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        read_table(Options, table, key="")
