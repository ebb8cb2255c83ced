"""What one collection of each bundled collector costs, at the real thing.

    python tests/benchmarks/bench_collectors.py

Prints CPU for one collection (medians of five rounds of twenty, with the host's checks) and the resident
memory that each plugin adds to a process that has the plugin host. Redis, RabbitMQ and PostgreSQL are started
here; what is not installed is left out (Debian: redis-server, rabbitmq-server, postgresql).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import pytest
from interpreter import announce

from support.pki import Pki
from support.postgresql import PostgresServer
from support.rabbitmq import RabbitServer
from support.redis import RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable

_PAGE = {"workers": 8, "available_slots": 3, "queue_depth": {"task_queue": 7, "review_queue": 1}}
_COLLECTION = """
import json, statistics, sys, time
from pathlib import Path
from openclaw_exporter.plugin.guard import Guard
from openclaw_exporter.plugin.host import load_plugins

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024

name, table = sys.argv[1], json.loads(sys.argv[2])
before = resident()
rows = []
for loaded in load_plugins({name: table}, only=[name]).collectors:
    guard, collector = Guard(loaded.series_budget), loaded.collector

    def collect(collector=collector):
        spared = collector.absent() if hasattr(collector, "absent") else None
        return collector.collect() if spared is None else spared

    count = len(guard.check(collect()).observations)
    rounds = []
    for _ in range(5):
        started = time.process_time()
        for _ in range(20):
            guard.check(collect())
        rounds.append((time.process_time() - started) / 20)
    rows.append([loaded.name, count, statistics.median(rounds) * 1e6])
print(json.dumps([rows, resident() - before]))
"""


def row(name: str, table: dict[str, Any]) -> None:
    """Measure one plugin in a process of its own and print a line for each of its collectors."""
    command = (sys.executable, "-c", _COLLECTION, name, json.dumps(table))
    rows, memory = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    for number, (collector, count, microseconds) in enumerate(rows):
        added = f"   {memory:.1f} MiB" if number == 0 else ""
        print(f"{name + '/' + collector:26}{count:14}{microseconds:10.0f}{added}", flush=True)


def redis(folder: Path, stack: ExitStack) -> dict[str, Any]:
    """Start a Redis and return the table of `chimera`."""
    server = RedisServer(folder)
    server.start()
    stack.callback(server.stop)
    queues = {"worker": ["task_queue"], "planner": ["planner:queue"], "judge": ["review_queue"]}
    return {"url": server.url, "queues": queues, "workers": 8}


def rabbit(folder: Path, stack: ExitStack) -> dict[str, Any]:
    """Start a RabbitMQ and return the table of `rabbitmq`."""
    server = RabbitServer(Pki(folder))
    stack.callback(server.close)
    server.start()
    return {"url": server.url, "queues": {"planner": ["planner.*"]}}


def postgresql(folder: Path, stack: ExitStack) -> dict[str, Any]:
    """Start a PostgreSQL with a table of tasks and return the table of `postgresql`."""
    server = PostgresServer(Pki(folder))
    stack.callback(server.close)
    server.start()
    server.execute(
        "CREATE TABLE tasks (id serial, status text)",
        "CREATE ROLE reader LOGIN PASSWORD 'right'",
        "GRANT SELECT ON tasks TO reader",
    )
    secret = folder / "password"
    secret.write_text("right\n")
    query = "SELECT count(*) FROM tasks WHERE status = 'pending'"
    return {"dsn": server.dsn(), "password_file": str(secret), "queries": {"worker": query}}


class _Page(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = json.dumps(_PAGE).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def page(_folder: Path, stack: ExitStack) -> dict[str, Any]:
    """Serve a status page and return the table of `http_json`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    stack.callback(server.server_close)
    stack.callback(server.shutdown)
    url = f"http://127.0.0.1:{server.server_address[1]}/"
    return {"sources": {"swarm": {"url": url, "capacity": {"workers": "/workers"}}}}


def files(folder: Path, _stack: ExitStack) -> dict[str, Any]:
    """Drop three files and return the table of `textfile`."""
    for number in range(3):
        lines = [f'app_jobs{{kind="k{line}",file="{number}"}} {line}' for line in range(10)]
        (folder / f"f{number}.prom").write_text("\n".join(("# TYPE app_jobs gauge", *lines, "")))
    return {"directory": str(folder)}


def nothing(_folder: Path, _stack: ExitStack) -> dict[str, Any]:
    """Return an empty table."""
    return {}


TABLES: dict[str, Callable[[Path, ExitStack], dict[str, Any]]] = {
    "system": nothing,
    "chimera": redis,
    "gpu": nothing,
    "rabbitmq": rabbit,
    "postgresql": postgresql,
    "http_json": page,
    "textfile": files,
}


def main() -> None:
    """Measure every plugin and print."""
    print(f"{'collector':26}{'observations':>14}{'CPU µs':>10}   memory that the plugin adds")
    for name, start in TABLES.items():
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            try:
                table = start(Path(folder), stack)
            except pytest.skip.Exception as missing:
                print(f"{name}: left out: {missing}")
                continue
            time.sleep(0.1)
            row(name, table)


if __name__ == "__main__":
    announce()
    main()
