"""The kit, and a Redis of the tests' own with keys as Celery's transport writes them."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import redis

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytest_plugins = ["openclaw_exporter.plugin.testing"]

PASSWORD = "correct horse"  # noqa: S105 - of a server that lives as long as one test
SEPARATOR = "\x06\x16"


class Redis:
    """One redis-server on a loopback port."""

    def __init__(self, directory: Path, *, password: str = "") -> None:
        self.directory = directory
        self.password = password
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The broker's URL."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it and wait until it answers."""
        program = shutil.which("redis-server")
        if program is None:
            pytest.skip("redis-server is not installed (Debian package redis-server)")
        options = [
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--dir",
            str(self.directory),
            "--save",
            "",
        ]
        secret = ["--requirepass", self.password] if self.password else []
        self._process = subprocess.Popen([program, *options, *secret], stdout=subprocess.DEVNULL)  # noqa: S603
        deadline = time.monotonic() + 120
        while True:
            try:
                with self.client() as client:
                    client.ping()
            except redis.ConnectionError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @contextmanager
    def away(self) -> Iterator[None]:
        """Stop it, and start it again with the same keys."""
        with self.client() as client:
            keys = {key: client.dump(key) for key in client.scan_iter()}
        self.stop()
        yield
        self.start()
        with self.client() as client:
            for key, value in keys.items():
                client.restore(key, 0, value)

    def client(self) -> redis.Redis:
        """Return a client."""
        return redis.Redis(port=self.port, password=self.password or None)

    def fill(self, queue: str, count: int, *, priority: int = 0) -> None:
        """Queue messages as `task.apply_async(queue=…, priority=…)` does."""
        key = f"{queue}{SEPARATOR}{priority}" if priority else queue
        with self.client() as client:
            client.lpush(key, *[f'{{"id": "{number}"}}' for number in range(count)])
            client.sadd(f"_kombu.binding.{queue}", f"{queue}{SEPARATOR}{SEPARATOR}{queue}")

    def take(self, count: int) -> None:
        """Take messages as a worker does, without acknowledging them."""
        with self.client() as client:
            client.hset("unacked", mapping={f"tag-{number}": "[]" for number in range(count)})

    @contextmanager
    def worker(self, name: str) -> Iterator[None]:
        """Be a worker: bind a mailbox and listen to it."""
        member = f"{SEPARATOR}{SEPARATOR}{name}.celery.pidbox"
        with self.client() as client, client.pubsub() as mailbox:
            client.sadd("_kombu.binding.celery.pidbox", member)
            mailbox.psubscribe("/0.celery.pidbox")
            mailbox.get_message(timeout=5)
            yield
            client.srem("_kombu.binding.celery.pidbox", member)

    def leave_mailbox(self, name: str) -> None:
        """Leave the binding of a worker that was killed."""
        with self.client() as client:
            client.sadd("_kombu.binding.celery.pidbox", f"{SEPARATOR}{SEPARATOR}{name}.celery.pidbox")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Redis]:
    """A broker without a password."""
    server = Redis(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def locked_broker(tmp_path: Path) -> Iterator[Redis]:
    """A broker with a password."""
    server = Redis(tmp_path, password=PASSWORD)
    server.start()
    yield server
    server.stop()
