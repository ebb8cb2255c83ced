"""A Prometheus 3 that scrapes nothing, for its parser."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.prometheus import PrometheusServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any


@pytest.fixture(scope="session")
def parse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], dict[str, Any]]]:
    """Prometheus' own parser: a query's text → its syntax tree."""
    with PrometheusServer(tmp_path_factory.mktemp("parser"), "scrape_configs: []") as server:
        yield lambda expression: server.get("parse_query", query=expression)
