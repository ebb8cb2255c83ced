"""One receiver, or one Redis, for the tests that do not need one of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import redis
from receiver.scene import receiver_settings, running

from openclaw_exporter.receiver import protocol
from support.redis import RedisServer
from support.redis_cluster import RedisCluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from receiver.scene import Node, Running

    from support.pki import Pki
    from support.redis import Engine


@pytest.fixture(scope="module")
def calm(pki: Pki, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A running receiver with the deadlines it has by default, shared by a module's tests."""
    with running(pki, receiver_settings(pki, tmp_path_factory.mktemp("receiver"))) as started:
        yield started


@pytest.fixture(scope="module")
def hasty(pki: Pki, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One with short deadlines, for tests of those: any other could miss them on a crowded machine."""
    deadlines = {"handshake_timeout": 0.5, "header_timeout": 0.5, "body_timeout": 0.5}
    settings = receiver_settings(pki, tmp_path_factory.mktemp("receiver"), limits=deadlines)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocol, "LINGER_SECONDS", 0.1)
        with running(pki, settings) as started:
            yield started


@pytest.fixture(scope="module")
def scene(calm: Running) -> Running:
    """The receiver that a module's tests share; a module may say which."""
    return calm


@pytest.fixture
def node(scene: Running) -> Node:
    """A new node of the shared receiver."""
    return scene.node()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A running Redis, shared by a module's tests."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def client(server: RedisServer) -> Iterator[redis.Redis]:
    """A client of the shared Redis, which is empty."""
    with redis.Redis(port=server.port) as client:
        client.flushall()
        yield client


@pytest.fixture(params=["redis", "valkey"])
def engine(request: pytest.FixtureRequest) -> Engine:
    """Everything that a test says of it is true of both."""
    name: Engine = request.param
    return name


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RedisCluster]:
    """Three masters, each with a replica."""
    cluster = RedisCluster(tmp_path, replicas=1, node_timeout=3000)
    cluster.start()
    yield cluster
    cluster.stop()
