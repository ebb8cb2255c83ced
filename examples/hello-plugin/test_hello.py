"""The example's own test. Run it where the plugin is installed: `pip install -e . && pytest`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from openclaw_hello_plugin import Options, Spool

from openclaw_exporter.plugin import QueueDepth
from openclaw_exporter.plugin.testing import Collected, assert_conforms, assert_observation


@pytest.fixture
def collector(tmp_path: Path) -> Spool:
    """The collector under test: a spool directory with two files."""
    spool = tmp_path / "spool"
    spool.mkdir()
    for name in ("one", "two"):
        (spool / name).touch()
    return Spool(Options(spool, "letters"))


def test_the_files_are_counted(collected: Collected) -> None:
    """Two files are a depth of two."""
    assert_observation(collected, QueueDepth("letters", 2))


def test_it_conforms_and_a_missing_directory_is_unknown_and_not_zero(collector: Spool) -> None:
    """To raise is how a collector says that it does not know."""

    @contextmanager
    def taken_away() -> Iterator[None]:
        aside = collector.options.directory.rename(collector.options.directory.with_name("aside"))
        yield
        aside.rename(collector.options.directory)

    assert_conforms(collector, break_source=taken_away)
