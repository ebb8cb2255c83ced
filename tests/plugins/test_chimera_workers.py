"""Workers of a Chimera: real processes, consumers of streams and clients that block, some of them killed."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from openclaw_exporter.errors import ConfigError
from openclaw_exporter.plugin import Capacity
from openclaw_exporter.plugin.host import load_plugins
from openclaw_exporter.plugin.options import read_table
from openclaw_exporter_chimera import Options, Workers
from openclaw_exporter_chimera.streams import Consumer, Stream, stream_commands
from support.chimera import Bench, capacity, depths
from support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.redis import RedisServer

CONSUMER = """
import sys, redis, time
port, name, done = int(sys.argv[1]), sys.argv[2], sys.argv[3] == "done"
with redis.Redis(port=port) as r:
    while True:
        for _, entries in r.xreadgroup("g", name, {"s": ">"}, count=1, block=200):
            while not done:
                time.sleep(1)
            r.xack("s", "g", entries[0][0])
"""


@pytest.fixture
def bench(redis_server: RedisServer) -> Iterator[Bench]:
    bench = Bench(redis_server)
    bench.client.xgroup_create("s", "g", id="0", mkstream=True)
    yield bench
    bench.close()


@contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a Python program until the block ends."""
    process = subprocess.Popen((sys.executable, *arguments))
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_processes_are_counted_by_their_command_line() -> None:
    mark = uuid4().hex
    workers = Workers(Options(worker_processes=rf"--role worker-\d+ {mark}"))
    assert list(workers.collect()) == [Capacity("workers", 0), Capacity("available_slots", 0)]
    with ExitStack() as stack:
        sleep = ("-c", "import time; time.sleep(60)", "--role")
        one = stack.enter_context(running(*sleep, "worker-1", mark))
        stack.enter_context(running(*sleep, "worker-2", mark))
        stack.enter_context(running(*sleep, "judge", mark))
        wait_until(lambda: next(workers.collect()) == Capacity("workers", 2), what="two workers")
        one.kill()
        # Until somebody reaps it, it is still in the process table; it works no more.
        wait_until(lambda: next(workers.collect()) == Capacity("workers", 1), what="one worker")


class Crew:
    """Consumers in processes of their own."""

    def __init__(self, bench: Bench, stack: ExitStack, *, idle: float) -> None:
        self.queues = bench.queues(queues={"worker": ["s"]}, worker_consumers=["worker"], consumer_idle=idle)
        self._bench, self._stack = bench, stack

    def add(self, name: str, *, done: bool = True) -> subprocess.Popen[bytes]:
        """Start a consumer that works entries off, or one that keeps its first for ever."""
        place = (str(self._bench.server.port), name, "done" if done else "never")
        return self._stack.enter_context(running("-c", CONSUMER, *place))

    def shows(self, workers: int, slots: int, *, feed: bool = True) -> None:
        """Wait for these capacities, while entries come in or not."""

        def look() -> bool:
            if feed:
                self._bench.client.xadd("s", {"n": 1})
            return capacity(self.queues) == {"workers": workers, "available_slots": slots}

        wait_until(look, what=f"{workers} workers, {slots} slots, not {capacity(self.queues)}")


def test_consumers_are_workers_and_those_with_pending_entries_are_busy(bench: Bench) -> None:
    with ExitStack() as stack:
        crew = Crew(bench, stack, idle=60)
        crew.shows(0, 0, feed=False)
        crew.add("a")
        crew.add("b")
        crew.shows(2, 2)
        crew.add("c", done=False)
        crew.shows(3, 2)


def test_a_killed_consumer_is_gone_though_redis_keeps_it(bench: Bench) -> None:
    with ExitStack() as stack:
        crew = Crew(bench, stack, idle=1)
        crew.add("a")
        killed = crew.add("b")
        crew.shows(2, 2)
        killed.kill()
        crew.shows(1, 1)
        assert len(bench.client.xinfo_consumers("s", "g")) == 2


def test_consumers_that_wait_for_work_are_there_and_are_gone_when_work_waits_for_them(bench: Bench) -> None:
    with ExitStack() as stack:
        crew = Crew(bench, stack, idle=1)
        both = [crew.add("a"), crew.add("b")]
        crew.shows(2, 2)
        quiet = time.monotonic() + 2
        wait_until(lambda: time.monotonic() > quiet, what="two seconds without work")
        crew.shows(2, 2, feed=False)
        for process in both:
            process.kill()
            process.wait()
        bench.client.xadd("s", {"n": 1})
        crew.shows(0, 0, feed=False)


@pytest.mark.parametrize(("more", "idle"), [((), 0.0), ((b"inactive", 9_000), 9.0)])
def test_silence_at_an_empty_stream_counts_where_redis_notes_who_asks(
    more: tuple[object, ...], idle: float
) -> None:
    """Redis 7.2's answer, as its documentation has it, beside that of 7.0; the machine has one of them."""
    commands = [(b"TYPE", b"s"), *stream_commands(b"s", {b"g": b"1-0"}, consumers=True)]
    group = [b"name", b"g", b"consumers", 1, b"pending", 0, b"last-delivered-id", b"1-0", b"lag", 0]
    consumer = [b"name", b"a", b"pending", 0, b"idle", 9_000, *more]
    answers = [b"stream", 1, [group], [0, None, None, None], [], [consumer]]
    assert Stream.read(commands, answers, ()).consumers == (Consumer(b"a", 0, idle),)


def test_a_consumer_of_many_streams_is_one_worker_and_names_tell_nodes_apart(bench: Bench) -> None:
    for stream in ("s", "s:a", "s:b"):
        if stream != "s":
            bench.client.xgroup_create(stream, "g", id="0", mkstream=True)
        for name in ("here-1", "here-2", "there-1"):
            bench.client.xgroup_createconsumer(stream, "g", name)
    bench.client.xadd("s:b", {"n": 1})
    bench.client.xreadgroup("g", "here-2", {"s:b": ">"})
    everywhere = bench.queues(queues={"worker": ["s", "s:*"]}, worker_consumers=["worker"])
    assert capacity(everywhere) == {"workers": 3, "available_slots": 2}
    here = bench.queues(queues={"worker": ["s", "s:*"]}, worker_consumers=["worker"], consumer_names="here-")
    assert capacity(here) == {"workers": 2, "available_slots": 1}


def test_configured_workers_less_the_consumers_that_are_busy(bench: Bench) -> None:
    queues = bench.queues(queues={"worker": ["s"]}, workers=8, busy_from=["worker"])
    for number in range(3):
        bench.client.xadd("s", {"n": number})
    bench.client.xreadgroup("g", "a", {"s": ">"}, count=1)
    bench.client.xreadgroup("g", "b", {"s": ">"}, count=2)
    assert capacity(queues) == {"available_slots": 6}


def test_clients_that_block_are_a_hint_at_free_workers(bench: Bench) -> None:
    queues = bench.queues(queues={"worker": ["l"]}, workers=8, blocked_hint=True)
    assert capacity(queues) == {"available_slots": 0}
    waiting = [threading.Thread(target=bench.client.blpop, args=("l", 30)) for _ in range(2)]
    for thread in waiting:
        thread.start()
    wait_until(lambda: capacity(queues) == {"available_slots": 2}, what="two clients that block")
    bench.client.rpush("l", 1, 2)
    for thread in waiting:
        thread.join()
    assert capacity(queues) == {"available_slots": 0}


def test_slots_that_redis_tells_are_unknown_while_it_is_away(bench: Bench) -> None:
    table = {"url": bench.server.url, "queues": {"worker": ["s"]}, "workers": 8, "busy_from": ["worker"]}
    loaded = load_plugins({"chimera": table}, only={"chimera"})
    queues, workers = (each.collector for each in loaded.collectors)
    assert [o for o in queues.collect() if isinstance(o, Capacity)] == [Capacity("available_slots", 8)]
    assert list(workers.collect()) == [Capacity("workers", 8)]
    bench.server.stop()
    with pytest.raises(ConnectionError):
        list(queues.collect())
    assert list(workers.collect()) == [Capacity("workers", 8)]
    queues.close()


def test_workers_that_cannot_be_read_are_said_and_the_depths_stand(bench: Bench) -> None:
    rights = "+client +select +type +xlen +xinfo|groups"
    bench.client.execute_command("ACL", "SETUSER", "small", "on", ">word", "~*", *rights.split())
    url = bench.server.url.replace("://", "://small:word@")
    queues = bench.queues(url=url, queues={"worker": ["s"]}, worker_consumers=["worker"])
    found = queues.collect()
    (error,) = [item for item in found if isinstance(item, Exception)]
    assert str(error).startswith("available_slots: key 's': ")
    assert depths(bench.queues(queues={"worker": ["s"]})) == {"worker": 0}
    assert not [item for item in found if isinstance(item, Capacity)]


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ({"workers": 1, "worker_processes": "x"}, "keep one"),
        ({"worker_processes": "("}, "no regular expression"),
        ({"worker_consumers": ["x"], "queues": {"y": ["q"]}}, "no topic"),
        ({"workers": 1, "blocked_hint": True}, "needs queues"),
        ({"queues": {"y": ["q"]}, "blocked_hint": True}, "needs workers"),
        ({"nodes": ["a:1"]}, "modes sentinel and cluster"),
        ({"mode": "cluster", "url": "redis://h:1/3"}, "no database but 0"),
        ({"mode": "sentinel", "url": "unix:///x"}, "needs a redis"),
    ],
)
def test_a_wrong_table_is_named(table: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        read_table(Options, table, key="")
