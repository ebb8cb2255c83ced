"""The example's own test. Run it where the plugin is installed: `pip install -e . && pytest`."""

from pathlib import Path

import pytest
from openclaw_hello_plugin import Options, Spool

from openclaw_exporter.plugin import QueueDepth


def test_the_files_are_counted(tmp_path: Path) -> None:
    """Two files are a depth of two."""
    (tmp_path / "one").touch()
    (tmp_path / "two").touch()
    found = list(Spool(Options(tmp_path, "letters")).collect())
    assert found == [QueueDepth("letters", 2)]  # noqa: S101 - a test


def test_a_missing_directory_is_unknown_and_not_zero(tmp_path: Path) -> None:
    """To raise is how a collector says that it does not know."""
    with pytest.raises(FileNotFoundError):
        list(Spool(Options(tmp_path / "none")).collect())
