"""Fixtures for every room."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.pki import Pki
from support.redis import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    """A certificate authority with token keys, made once a run."""
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A running redis-server of the test's own."""
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.stop()
