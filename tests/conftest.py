"""Fixtures for every room, and the rule that CI skips nothing that could run there."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from support.pki import Pki
from support.redis import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# How long a draw takes says something of a crowded machine only.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

_NO_SKIP = "TESTS_NO_SKIP"
_skipped: list[str] = []


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


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note each skipped test that should have run; one that needs hardware may be skipped."""
    if report.skipped and not hasattr(report, "wasxfail") and "hardware" not in report.keywords:
        _skipped.append(report.nodeid)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail a run in which a test was skipped although it should run there."""
    if os.environ.get(_NO_SKIP) and _skipped and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the tests that failed a run by being skipped."""
    if os.environ.get(_NO_SKIP) and _skipped:
        terminalreporter.section("skipped, but should run here")
        for nodeid in _skipped:
            terminalreporter.line(nodeid)
