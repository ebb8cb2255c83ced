"""What goes away on a node leaves no series: not in the next scrape, and not in the next export."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from telemetry.otlp_collectors import HttpCollector

from openclaw_exporter.telemetry.settings import OtlpSettings, PrometheusSettings, TelemetrySettings
from support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from agent.factory import Factory

    from openclaw_exporter.agent.agent import Agent

# What a node has is what stands in a file: so the test takes a queue or a GPU away for real.
THINGS = """
class C:
    name = "things"

    def collect(self):
        with open({path!r}) as file:
            for line in file.read().splitlines():
                kind, name = line.split()
                if kind == "queue":
                    yield QueueDepth(name, 3, 1.5)
                elif kind == "gpu":
                    labels = {{"hw.id": name, "hw.name": "card", "hw.vendor": "v", "hw.type": "gpu"}}
                    yield Measurement("hw.gpu.memory.usage", 5.0, "By", "updowncounter", labels)
                    yield Measurement("hw.energy", 9.0, "J", "counter", labels)
                else:
                    raise OSError("the bus is gone")
"""


class Outputs:
    """Both outputs of one agent."""

    def __init__(self, agent: Agent, collector: HttpCollector) -> None:
        self._agent = agent
        self._collector = collector

    def holding(self, word: str) -> tuple[set[str], set[str]]:
        """Return the names of metrics with a series that has this attribute value: scraped, and pushed."""
        lines = self._agent.telemetry.exposition().decode().splitlines()
        scraped = {line.partition("{")[0] for line in lines if f'="{word}"' in line}
        self._agent.telemetry.export()
        pushed = {
            name
            for name, series in self._collector.metrics()
            if any(word in dict(attributes).values() for attributes in series)
        }
        return scraped, pushed


@pytest.fixture
def things(tmp_path: Path) -> Path:
    return tmp_path / "things"


@pytest.fixture
def outputs(factory: Factory, start: Callable[..., Agent], things: Path) -> Iterator[Outputs]:
    """An agent of one collector that sees two queues and two GPUs."""
    things.write_text("queue first\nqueue second\ngpu gpu-0\ngpu gpu-1\n")
    factory.write("things", THINGS.format(path=str(things)))
    collector = HttpCollector()
    telemetry = TelemetrySettings(
        otlp=OtlpSettings(enabled=True, endpoint=collector.endpoint, interval=3600),
        prometheus=PrometheusSettings(port=0),
    )
    outputs = Outputs(start(telemetry=telemetry), collector)
    for word in ("first", "second", "gpu-0", "gpu-1"):
        wait_until(lambda word=word: all(outputs.holding(word)), what=f"{word} in both outputs")  # type: ignore[misc]
    yield outputs
    collector.close()


QUEUE = (
    {"openclaw_node_queue_depth", "openclaw_node_queue_oldest_message_age_seconds"},
    {"openclaw.node.queue.depth", "openclaw.node.queue.oldest_message.age"},
)
GPU = (
    {"hw_gpu_memory_usage_bytes", "hw_energy_joules_total"},
    {"hw.gpu.memory.usage", "hw.energy"},
)
NOTHING: tuple[set[str], set[str]] = (set(), set())


def test_a_queue_and_a_gpu_that_are_gone(outputs: Outputs, things: Path) -> None:
    wait_until(lambda: outputs.holding("first") == QUEUE, what="the first queue")
    wait_until(lambda: outputs.holding("gpu-0") == GPU, what="the first GPU")
    things.write_text("queue second\ngpu gpu-1\n")
    wait_until(lambda: outputs.holding("first") == NOTHING, what="the end of the first queue")
    wait_until(lambda: outputs.holding("gpu-0") == NOTHING, what="the end of the first GPU")
    wait_until(lambda: outputs.holding("second") == QUEUE, what="the second queue, which stays")
    wait_until(lambda: outputs.holding("gpu-1") == GPU, what="the second GPU, which stays")
    things.write_text("queue first\nqueue second\ngpu gpu-0\ngpu gpu-1\n")
    wait_until(lambda: outputs.holding("first") == QUEUE, what="the first queue, back again")
    wait_until(lambda: outputs.holding("gpu-0") == GPU, what="the first GPU, back again")


def test_a_collector_that_fails_has_no_series_but_its_own(outputs: Outputs, things: Path) -> None:
    things.write_text("queue first\nbus fault\n")
    for word in ("first", "second", "gpu-0", "gpu-1"):
        wait_until(lambda word=word: outputs.holding(word) == NOTHING, what=f"the end of {word}")  # type: ignore[misc]
    scraped, pushed = outputs.holding("things")
    assert "openclaw_collector_healthy" in scraped
    assert "openclaw.collector.errors" in pushed


def test_a_collector_that_is_switched_off_has_none(outputs: Outputs) -> None:
    agent = outputs._agent
    scraped, pushed = outputs.holding("things")
    assert "openclaw_collector_series" in scraped
    assert "openclaw.collector.last_success.timestamp" in pushed
    agent.reload(replace(agent.config, plugins={**agent.config.plugins, "things": {"enabled": False}}))
    for word in ("first", "gpu-1"):
        wait_until(lambda word=word: outputs.holding(word) == NOTHING, what=f"the end of {word}")  # type: ignore[misc]

    def left() -> tuple[set[str], set[str]]:
        scraped, pushed = outputs.holding("things")
        # A histogram is a total: it stays, as counters that the exporter counts itself do.
        return (
            {name for name in scraped if not name.startswith("openclaw_collector_duration")},
            pushed - {"openclaw.collector.duration"},
        )

    wait_until(lambda: left() == NOTHING, what="the end of the collector's own series")
