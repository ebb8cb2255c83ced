"""Real queues for the demo: a Redis, and the processes that fill and drain it."""

from __future__ import annotations

import contextlib
import importlib.util
import secrets
import shutil
import socket
import time
from typing import TYPE_CHECKING, Final

from openclaw_exporter.cli.demo.keys import GROUP, URL_VARIABLE, Keys
from openclaw_exporter.cli.demo.ports import free_port
from openclaw_exporter.cli.demo.processes import Child
from openclaw_exporter.errors import UserError
from openclaw_exporter.plugin.redaction import redact

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path

_WAIT: Final = 60.0


class Queues:
    """A swarm's queues in a Redis.

    Attributes:
        url: The Redis.
        keys: The swarm's keys.
        children: The processes.
    """

    def __init__(self, url: str, keys: Keys, children: list[Child]) -> None:
        self.url = url
        self.keys = keys
        self.children = children

    @property
    def place(self) -> str:
        """The URL without credentials."""
        return redact(self.url)

    @classmethod
    def start(cls, url: str | None, *, directory: Path, logs: Path, stack: ExitStack) -> Queues | str:
        """Start a Redis, unless one is given, and the swarm; the stack ends them and deletes the keys.

        Returns:
            The queues, or why there are none.

        Raises:
            UserError: The Redis that was given cannot be used.
        """
        if importlib.util.find_spec("redis") is None:
            return "no queues: Python's redis is not installed; it comes with openclaw-exporter[demo]"
        children: list[Child] = []
        if url is None:
            program = shutil.which("redis-server")
            if program is None:
                return "no queues: there is no redis-server on this machine; name one with --redis URL"
            url = _start_redis(program, directory, logs, stack, children)
        keys = Keys(f"openclaw-demo:{secrets.token_hex(4)}")
        _prepare(url, keys, stack)
        for role in ("planner", "worker"):
            module = f"openclaw_exporter.cli.demo.{role}"
            environment = {URL_VARIABLE: url}
            children.append(Child.python(role, module, keys.prefix, logs=logs, environment=environment))
            stack.callback(children[-1].stop)
        return cls(url, keys, children)


def _start_redis(program: str, directory: Path, logs: Path, stack: ExitStack, children: list[Child]) -> str:
    port = free_port()
    options = ("--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(directory))
    server = Child("redis-server", (program, *options), logs)
    stack.callback(server.stop)
    children.append(server)
    deadline = time.monotonic() + _WAIT
    while time.monotonic() < deadline:
        server.check()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return f"redis://127.0.0.1:{port}/0"
        time.sleep(0.05)
    raise UserError(f"the redis-server that was started does not listen:\n{server.tail()}")


def _prepare(url: str, keys: Keys, stack: ExitStack) -> None:
    """See that the Redis answers, make the stream's group, and have the keys deleted at the end."""
    import redis  # noqa: PLC0415 - comes with the extra `demo`

    try:
        server = redis.Redis.from_url(url, socket_timeout=20.0, socket_connect_timeout=5.0)
        server.xgroup_create(keys.results, GROUP, id="0", mkstream=True)
    except (redis.RedisError, ValueError) as error:
        raise UserError(f"the Redis at {redact(url)} cannot be used: {redact(str(error))}") from error

    def delete() -> None:
        with contextlib.suppress(redis.RedisError), server:
            server.delete(keys.goals, keys.tasks, keys.results)

    stack.callback(delete)
