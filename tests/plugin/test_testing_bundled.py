"""The bundled plugins against the kit, each on the real source that it reads.

RabbitMQ and PostgreSQL have theirs in tests/plugins, beside their servers; system and gpu, which need no
server, in tests/cli.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import redis

from openclaw_exporter.plugin.testing import check_plugin
from support.ports import free_port
from support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.redis import RedisServer


def conforms(name: str, table: dict[str, Any], break_source: Any) -> None:
    """Hold that a plugin has nothing to be told, and that its source was really taken away."""
    report = check_plugin(name, {name: table}, runs=16, break_source=break_source)
    everything = [*report.findings, *(one for found in report.collectors.values() for one in found)]
    assert not [str(one) for one in everything if one.severity in ("warning", "failure")]
    assert [one.severity for one in everything if one.check == "source"] == ["passed"] * len(
        report.collectors
    )
    assert report.passed
    assert report.collectors


def test_chimera_in_all_three_layouts(redis_server: RedisServer) -> None:
    def fill() -> None:
        with redis.Redis(port=redis_server.port) as client:
            client.rpush("task_queue", "a", "b")
            client.zadd("tenant:one:queue:task", {"a": 1})
            client.xadd("review", {"task": "a"})
            client.xgroup_create("review", "judges", id="0")

    @contextmanager
    def killed() -> Iterator[None]:
        redis_server.stop()
        yield
        redis_server.start()
        fill()

    fill()
    queues = {"worker": ["task_queue"], "planner": ["tenant:*:queue:task"], "judge": ["review"]}
    conforms("chimera", {"url": redis_server.url, "queues": queues}, killed)


def test_http_json_on_a_page_of_another_process(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "status").write_text(json.dumps({"workers": 4, "queues": {"tasks": 7}, "up": 12.5}))
    processes: list[subprocess.Popen[bytes]] = []

    def answers() -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
        try:
            connection.request("GET", "/status")
            return connection.getresponse().status == http.client.OK
        except OSError:
            return False
        finally:
            connection.close()

    def serve() -> None:
        command = (sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1")
        processes.append(
            subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        )
        wait_until(answers, what="the page")

    def end() -> None:
        processes[-1].kill()
        processes[-1].wait()

    @contextmanager
    def killed() -> Iterator[None]:
        end()
        yield
        serve()

    serve()
    source = {
        "url": f"http://127.0.0.1:{port}/status",
        "capacity": {"workers": "/workers"},
        "queue_depth": {"worker": "/queues/tasks"},
        "uptime": "/up",
    }
    try:
        conforms("http_json", {"sources": {"chimera": source}}, killed)
    finally:
        end()


def test_textfile_on_a_directory_that_is_taken_away(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    (spool / "chimera.jsonl").write_text(
        '{"queue": "tasks", "depth": 5}\n{"capacity": "workers", "amount": 8}\n'
    )

    @contextmanager
    def taken_away() -> Iterator[None]:
        aside = spool.rename(tmp_path / "aside")
        yield
        aside.rename(spool)

    conforms("textfile", {"directory": str(spool)}, taken_away)
