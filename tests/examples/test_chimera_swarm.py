"""The example's swarm in each of its layouts, seen through a real agent's heartbeats at a real receiver."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
import pytest

from support.command import Command, ReceiverCommand
from support.nodes import mutual_tls_client
from support.ports import free_port
from support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.pki import Pki
    from support.redis import RedisServer

EXAMPLE = Path(__file__).parents[2] / "examples" / "chimera"
WORKERS = 3


class Swarm:
    """The example's processes on a Redis of the test's own."""

    def __init__(self, layout: str, url: str, log: Path, *pace: str) -> None:
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                (sys.executable, "-m", "swarm", "--layout", layout, "--url", url, *pace),
                cwd=EXAMPLE,
                stdout=output,
                stderr=output,
            )

    def kill(self, name: str) -> None:
        """Kill one member (SIGKILL) once it is there."""
        os.kill(int(self._says(rf"{name} runs as process (\d+)")), signal.SIGKILL)
        self._says(rf"{name} (ended) with status -9")

    def stop(self) -> None:
        """End all of them, where they have not ended by themselves."""
        self.process.terminate()
        try:
            self.process.wait(120)
        finally:
            self.process.kill()
            self.process.wait()

    def _says(self, pattern: str) -> str:
        found = wait_until(lambda: re.search(pattern, self._log.read_text()), what=pattern)
        return found[1]


class Scene:
    """Redis, swarm, agent and receiver side by side."""

    def __init__(self, directory: Path, pki: Pki, redis: RedisServer, layout: str, *pace: str) -> None:
        self.redis = redis
        self.node_id = str(uuid4())
        self.receiver = ReceiverCommand(directory, pki, extra="min_interval = 1")
        self.agent = Command(
            ("agent", "--config", str(EXAMPLE / f"{layout}.toml")),
            directory / "agent.log",
            self._environment(directory, pki, layout),
        )
        self.api = mutual_tls_client(
            pki.ca, pki.reader(self.node_id), base_url=f"{self.receiver.url}/openclaw/nodes/"
        )
        self.swarm = Swarm(layout, redis.url, directory / "swarm.log", "--workers", str(WORKERS), *pace)

    def start(self) -> None:
        """Start receiver and agent."""
        self.receiver.start()
        self.receiver.ready()
        self.agent.start()

    def stop(self) -> None:
        """Stop all but Redis."""
        self.api.close()
        try:
            self.swarm.stop()
        finally:
            for command in (self.agent, self.receiver):
                if command.process is not None:
                    command.stop()

    def heartbeat(self) -> dict[str, Any]:
        """Return capacity and depths of the node's last heartbeat, in one table."""
        answer = self.api.get(self.node_id)
        if answer.status_code != httpx.codes.OK:
            return {}
        stored: dict[str, Any] = answer.json()["heartbeat"]
        return {**stored["capacity"], **stored["queue_depth"]}

    def shows(self, what: str, seen: Callable[[dict[str, Any]], bool]) -> None:
        """Wait until the heartbeat shows something, for as long as the swarm's operators would."""
        last: list[dict[str, Any]] = []

        def look() -> bool:
            last[:] = [self.heartbeat()]
            return bool(last[0]) and seen(last[0])

        try:
            wait_until(look, what=what)
        except AssertionError:
            pytest.fail(f"{what} did not show; last heartbeat: {last}\n{self.agent.text()[-2000:]}")

    def _environment(self, directory: Path, pki: Pki, layout: str) -> dict[str, str]:
        """Change the example's configuration for a short test: places, keys, intervals."""
        files = pki.node(self.node_id)
        ours = {
            "ENABLED": "true",
            "ENDPOINT": self.receiver.url,
            "INTERVAL": "1",
            "MIN_INTERVAL": "1",
            "STATE_DIR": str(directory / "state"),
            "TLS_CA": str(pki.ca),
            "TLS_CERTIFICATE": str(files.certificate),
            "TLS_KEY": str(files.key),
            "TOKEN_KEY": str(pki.token_key),
            "TOKEN_KID": pki.key_id,
            "TOKEN_ISSUER": pki.issuer,
            "TOKEN_AUDIENCE": pki.audience,
            "COLLECTION_INTERVAL": "0.5",
            "COLLECTION_DEADLINE": "0.5",
            "TELEMETRY_PROMETHEUS_PORT": str(free_port()),
            "PLUGINS_SYSTEM_ENABLED": "false",
            "PLUGINS_GPU_ENABLED": "false",
            "PLUGINS_CHIMERA_URL": self.redis.url,
        }
        plugin = tomllib.loads((EXAMPLE / f"{layout}.toml").read_text())["plugins"]["chimera"]
        if "worker_processes" in plugin:  # another run of this test may be under way on this machine
            mine = f"{plugin['worker_processes']} .*{re.escape(self.redis.url)} "
            ours["PLUGINS_CHIMERA_WORKER_PROCESSES"] = mine
        if "consumer_idle" in plugin:
            ours["PLUGINS_CHIMERA_CONSUMER_IDLE"] = "3"
        return {f"OPENCLAW_{name}": value for name, value in ours.items()}


@pytest.fixture
def make_scene(tmp_path: Path, pki: Pki, redis_server: RedisServer) -> Iterator[Callable[..., Scene]]:
    made: list[Scene] = []

    def make(layout: str, *pace: str) -> Scene:
        made.append(Scene(tmp_path, pki, redis_server, layout, *pace))
        made[-1].start()
        return made[-1]

    yield make
    for scene in made:
        scene.stop()


@pytest.mark.parametrize("layout", ["list", "sorted-set", "stream"])
def test_killed_workers_and_a_crashed_judge_show_in_the_heartbeat(
    make_scene: Callable[..., Scene], layout: str
) -> None:
    scene = make_scene(layout, "--rate", "20", "--work", "0.02")
    scene.shows("a swarm that keeps up", lambda seen: seen["workers"] == WORKERS and "judge" in seen)
    scene.shows("free workers", lambda seen: seen["available_slots"] > 0)
    scene.shows("an empty review queue", lambda seen: seen["judge"] <= 1)

    scene.swarm.kill("judge")
    scene.shows("a review queue that grows", lambda seen: seen["judge"] > 5)

    scene.swarm.kill("worker-1")
    scene.swarm.kill("worker-3")
    scene.shows("one worker", lambda seen: seen["workers"] == 1 and seen["available_slots"] <= 1)

    scene.swarm.kill("worker-2")
    scene.shows("no worker", lambda seen: seen["workers"] == 0 and seen["available_slots"] == 0)
    scene.shows("a task queue that grows", lambda seen: seen["worker"] > 20)

    scene.redis.stop()
    scene.shows("unknown queues", lambda seen: not {"worker", "judge"} & seen.keys())


def test_busy_consumers_of_a_stream_are_no_available_slots(make_scene: Callable[..., Scene]) -> None:
    scene = make_scene("stream", "--rate", "20", "--work", "0.5")
    scene.shows("no free worker", lambda seen: seen["workers"] == WORKERS and seen["available_slots"] == 0)


def test_every_layout_has_a_configuration_and_the_readme_names_it() -> None:
    readme = (EXAMPLE / "README.md").read_text()
    for layout in ("list", "sorted-set", "stream"):
        assert f"[{layout}.toml]({layout}.toml)" in readme
        assert (EXAMPLE / f"{layout}.toml").is_file()
