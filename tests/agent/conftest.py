"""Fixtures of the agent's tests."""

from __future__ import annotations

import io
import logging
from typing import TYPE_CHECKING

import pytest
from agent.factory import Factory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


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
