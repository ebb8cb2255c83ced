"""Every query of every panel and rule, on all three paths: a valid query that returns data.

On each path a real receiver, an agent with real queues and the trees of two GPUs, and nodes that go late,
expire and return; receiver, agent and the process of a collector end and come back once.
"""

from __future__ import annotations

import contextlib
import html
import json
import re
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import pytest

from dashboards import look
from dashboards.asking import Prometheus, all_asked, expanded, panels_of
from dashboards.lint import selectors
from support import queues
from support.gpu_plugin import GpusHere
from support.metric_paths import PATHS, MetricPath
from support.nodes import PlayedNode
from support.redis import RedisServer
from support.rule_files import every_second, rule_groups
from support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.metric_paths import PathName
    from support.pki import Pki
    from support.prometheus import PrometheusServer

FOLDER = Path(__file__).parents[2] / "dashboards"
NO_CGROUP_LIMIT = "a limit of the agent's cgroup, which has none outside of a container"
EMPTY = {
    ("node", "cgroup_cpu_throttled_time_seconds_total"): NO_CGROUP_LIMIT,
    ("node", "cgroup_cpu_limit"): NO_CGROUP_LIMIT,
}
"""Dashboard and part of a query that may return nothing, with the reason."""

Asked = tuple[str, str, str]


class Scene(MetricPath):
    """One path with everything that the dashboards look at."""

    def __init__(self, name: PathName, directory: Path, pki: Pki, redis: str) -> None:
        super().__init__(name, directory, pki, redis, agents=1, rules=every_second())
        self.gpus = GpusHere(directory)
        self._nodes = [PlayedNode(pki, self.receiver.url, interval=1) for _ in range(3)]
        (agent,) = self.agents
        agent.command.environment["PYTHONPATH"] = str(self.gpus.path)
        with Path(agent.command.arguments[-1]).open("a") as config:
            config.write(self.gpus.table)
        self._ending = threading.Event()
        self._beating: threading.Thread | None = None

    def live(self) -> None:
        """Let nodes expire and return; let receiver, agent and a collector end and come back; once."""
        if self._beating is not None:
            return
        for _ in range(5):
            self._beat_once()
        heard = 'sum(openclaw_registry_heartbeat_received_total{openclaw_result="recorded"}) > 15'
        wait_until(lambda: self.prometheus.query(heard), what="a count that a restart sets back")
        self.receiver.stop()
        failures = 'openclaw_publish_failure_total{error_type!=""} > 2'
        wait_until(lambda: self.prometheus.query(failures), what="failed publishes")
        self.receiver.start()
        self.receiver.ready()
        (agent,) = self.agents
        agent.command.stop()
        agent.command.start()
        assert agent.command.process is not None
        process = psutil.Process(agent.command.process.pid)
        wait_until(process.children, what="the process of the GPUs' collector")[0].kill()
        self._beating = threading.Thread(target=self._beat, daemon=True)
        self._beating.start()

    def stop(self) -> None:
        self._ending.set()
        if self._beating is not None:
            self._beating.join(120)
        for node in self._nodes:
            node.close()
        super().stop()

    def _beat(self) -> None:
        errors = 1
        while not self._ending.is_set():
            self._beat_once()
            errors += 1
            self.gpus.set_uncorrected_errors(errors)
            self._ending.wait(6)

    def _beat_once(self) -> None:
        """Beat once for a few nodes with an interval of a second; by the next time they are expired."""
        for node in self._nodes:
            _, request = node.next_request(tags=("region:elsewhere", "env:test", "swarm:blue"))
            with contextlib.suppress(httpx.TransportError):
                node.client.post(node.url, **request)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory, pki: Pki) -> Iterator[dict[PathName, Scene]]:
    directory = tmp_path_factory.mktemp("scenes")
    redis = RedisServer(directory)
    made: dict[PathName, Scene] = {}
    with ExitStack() as ending:
        redis.start()
        ending.callback(redis.stop)
        queues.run(redis.url, "fill", 7, 5, 9)
        for name in PATHS:
            made[name] = scene = Scene(name, directory / name, pki, redis.url)
            ending.callback(scene.stop)
            scene.start()
        yield made


def dashboards() -> list[Asked]:
    return [
        (path.stem, asked.where, asked.expression)
        for path in sorted(FOLDER.glob("*.json"))
        for asked in all_asked(json.loads(path.read_text()))
    ]


def excused(board: str, expression: str) -> bool:
    return any(board == where and part in expression for where, part in EMPTY)


def empty(prometheus: PrometheusServer, asked: list[Asked]) -> list[Asked]:
    return [one for one in asked if not prometheus.query(expanded(one[2]))]


@pytest.mark.parametrize("path", PATHS)
def test_every_panel_and_annotation_has_data(scenes: dict[PathName, Scene], path: PathName) -> None:
    scenes[path].live()  # now, for a restart is no longer one after a while
    prometheus = scenes[path].prometheus
    waiting = [one for one in dashboards() if not excused(one[0], one[2])]

    def all_answered() -> bool:
        waiting[:] = empty(prometheus, waiting)
        return not waiting

    try:
        wait_until(all_answered)
    except AssertionError:
        assert waiting == []


@pytest.mark.parametrize("path", PATHS)
def test_every_variable_has_values(scenes: dict[PathName, Scene], path: PathName) -> None:
    scene = scenes[path]
    (agent,) = scene.agents
    for board in FOLDER.glob("*.json"):
        for variable in json.loads(board.read_text())["templating"]["list"]:
            if variable["type"] != "query":
                continue
            values = wait_until(
                lambda variable=variable: values_of(scene.prometheus, variable),  # type: ignore[misc]
                what=f"values of {variable['name']} of {board.stem}",
            )
            if variable["name"] == "node":
                assert values == {agent.node_id}
            if variable["name"] == "job":
                assert values == {"openclaw-exporter", "openclaw-receiver"}


def values_of(prometheus: PrometheusServer, variable: dict[str, Any]) -> set[str]:
    """Return what a variable offers, as Grafana finds it."""
    call, _, inner = variable["definition"].removesuffix(")").partition("(")
    if call == "label_values":
        selector, _, label = inner.rpartition(", ")
        found = prometheus.query(f"count by ({label}) ({expanded(selector)})")
        return {labels[label] for labels, _ in found if label in labels}
    assert call == "query_result"
    pattern = re.compile(variable["regex"].strip("/").replace("(?<", "(?P<"))
    lines = (
        ",".join(f'{name}="{value}"' for name, value in sorted(labels.items()))
        for labels, _ in prometheus.query(expanded(inner))
    )
    return {match["value"] for line in lines if (match := pattern.search(line))}


@pytest.mark.parametrize("path", PATHS)
def test_what_is_excused_is_valid_all_the_same(scenes: dict[PathName, Scene], path: PathName) -> None:
    for _, _, expression in (one for one in dashboards() if excused(one[0], one[2])):
        scenes[path].prometheus.query(expanded(expression))


@pytest.mark.parametrize("board", ["exporter", "fleet", "gpu", "node", "receiver"])
def test_the_look_draws_every_panel(scenes: dict[PathName, Scene], board: str) -> None:
    scenes["scrape"].live()
    document = json.loads((FOLDER / f"{board}.json").read_text())
    prometheus = Prometheus(scenes["scrape"].prometheus.url)
    drawn = wait_until(
        lambda: page if "No data" not in (page := look.page(document, prometheus, seconds=120)) else "",
        what="data in every panel",
    )
    assert all(f"<b>{html.escape(panel['title'])}</b>" in drawn for panel in panels_of(document))


@pytest.mark.parametrize("path", PATHS)
def test_every_rule_is_evaluated_and_what_it_reads_is_there(
    scenes: dict[PathName, Scene], path: PathName, parse: Callable[[str], dict[str, Any]]
) -> None:
    """An alert returns data only when it fires: here each of the series that it reads has to be there."""
    scenes[path].live()
    prometheus = scenes[path].prometheus
    read = {
        selector_of(node)
        for group in rule_groups()
        for rule in group["rules"]
        for node, _ in selectors(parse(rule["expr"]))
    }
    missing = set(read)

    def all_there() -> bool:
        missing.difference_update({one for one in missing if prometheus.query(f"last_over_time({one}[5m])")})
        return not missing

    try:
        wait_until(all_there)
    except AssertionError:
        assert missing == set()
    rules = prometheus.rules()
    assert len(rules) == sum(len(group["rules"]) for group in rule_groups())
    assert [rule for rule in rules if rule["health"] != "ok"] == []


def selector_of(node: dict[str, Any]) -> str:
    """Return a selector of the tree as text, without its range and offset."""
    matchers = [
        f"{one['name']}{one['type']}{json.dumps(one['value'])}"
        for one in node["matchers"]
        if one["name"] != "__name__"
    ]
    return f"{node['name']}{{{', '.join(matchers)}}}"
