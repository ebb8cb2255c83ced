"""Fixtures of the agent's tests."""

from __future__ import annotations

import io
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from agent.factory import BUNDLED_OFF, Factory
from client.stub import Answer, StubReceiver

from openclaw_exporter.agent.agent import Agent
from openclaw_exporter.agent.notify import Notifier
from openclaw_exporter.agent.settings import AgentConfig, CollectionSettings
from openclaw_exporter.client import ClientSettings, TlsSettings, TokenSettings
from openclaw_exporter.telemetry.settings import PrometheusSettings, TelemetrySettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.pki import Pki


@pytest.fixture
def factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Factory:
    """Where a test writes its plugins."""
    return Factory(tmp_path / "plugins", monkeypatch)


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What the project logs, at INFO and above."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logger = logging.getLogger("openclaw_exporter")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield stream
    logger.setLevel(logging.NOTSET)
    logger.removeHandler(handler)


@pytest.fixture
def receiver(pki: Pki) -> Iterator[StubReceiver]:
    """A real HTTPS server that takes heartbeats."""
    with StubReceiver(pki) as receiver:
        receiver.default = Answer(body=b"")
        yield receiver


@pytest.fixture
def config(pki: Pki, receiver: StubReceiver, tmp_path: Path) -> AgentConfig:
    """A node that publishes to `receiver`, collects every second, and has no plugin of the bundled ones."""
    node_id = str(uuid4())
    files = pki.node(node_id)
    return AgentConfig(
        collection=CollectionSettings(interval=1.0, deadline=1.0, first_results=10.0),
        client=ClientSettings(
            endpoint=receiver.url,
            hostname="chimera-01.test",
            interval=1,
            min_interval=1,
            max_interval=120,
            state_dir=tmp_path / "state",
            tls=TlsSettings(ca=pki.ca, certificate=files.certificate, key=files.key),
            token=TokenSettings(key=pki.token_key, kid=pki.key_id, issuer=pki.issuer, audience=pki.audience),
        ),
        telemetry=TelemetrySettings(prometheus=PrometheusSettings(enabled=False)),
        plugins=dict(BUNDLED_OFF),
    )


@pytest.fixture
def start(config: AgentConfig) -> Iterator[Callable[..., Agent]]:
    """Start agents, with parts of the configuration changed as asked; all are stopped in the end."""
    started: list[Agent] = []

    def begin(**changes: Any) -> Agent:
        agent = Agent(replace(config, **changes), notifier=Notifier({}))
        started.append(agent)
        agent.start()
        return agent

    yield begin
    for agent in started:
        agent.stop(draining=False, timeout=2.0)
