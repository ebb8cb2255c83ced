"""The agent's tables, read as the configuration reads them."""

from __future__ import annotations

from typing import Any

import pytest

from openclaw_exporter.agent.settings import CollectionSettings, NodeSettings, PressureSettings, Threshold
from openclaw_exporter.errors import ConfigError
from openclaw_exporter.plugin.options import describe, read_table
from openclaw_exporter.telemetry.settings import TelemetrySettings


@pytest.mark.parametrize("cls", [NodeSettings, CollectionSettings, PressureSettings, TelemetrySettings])
def test_every_key_is_documented(cls: type) -> None:
    keys = describe(cls)
    assert keys
    assert [info.key for info in keys if not info.description] == []


def test_a_whole_table_is_read() -> None:
    table: dict[str, Any] = {
        "hostname": "node-1.example",
        "version": "2.4.1",
        "region": "us-east-1",
        "environment": "prod",
        "tags": ["swarm:blue", "swarm:blue"],
        "workers": 24,
    }
    node = read_table(NodeSettings, table, key="node")
    assert node.all_tags == ("region:us-east-1", "env:prod", "swarm:blue")
    assert node.workers == 24
    pressure = read_table(
        PressureSettings,
        {"topics": {"task_queue": {"soft": 10, "hard": 20}}, "when_unknown": "withhold"},
        key="pressure",
    )
    assert pressure.topics == {"task_queue": Threshold(soft=10, hard=20)}


@pytest.mark.parametrize(
    ("cls", "table", "key"),
    [
        (NodeSettings, {"hostname": "under_score"}, "node.hostname"),
        (NodeSettings, {"hostname": "trailing.dot."}, "node.hostname"),
        (NodeSettings, {"version": "x" * 65}, "node.version"),
        (NodeSettings, {"tags": ["a\nb"]}, "node.tags[0]"),
        (NodeSettings, {"tags": ["ü" * 100]}, "node"),
        (NodeSettings, {"tags": [f"t:{n}" for n in range(33)]}, "node.tags"),
        (NodeSettings, {"tags": [f"t:{n}" for n in range(32)], "region": "here"}, "node"),
        (NodeSettings, {"workers": -1}, "node.workers"),
        (CollectionSettings, {"interval": 1, "deadline": 2}, "node"),
        (CollectionSettings, {"process": {"memory_limit": 1}}, "node.process.memory_limit"),
        (PressureSettings, {"topics": {"bad topic": {"soft": 1, "hard": 2}}}, "node.topics.bad topic"),
        (PressureSettings, {"topics": {"worker": {"soft": 2, "hard": 2}}}, "node.topics.worker"),
        (PressureSettings, {"topics": {"worker": {"hard": 2}}}, "node.topics.worker.soft"),
    ],
)
def test_mistakes_name_their_key(cls: type, table: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_table(cls, table, key="node")
    assert [problem.key for problem in caught.value.problems] == [key]
