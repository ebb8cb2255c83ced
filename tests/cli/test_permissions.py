"""Commands of somebody who may not read or write where they are told to."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def plainly(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command to which permissions matter, whoever runs the tests."""
    words = [sys.executable, "-m", "openclaw_exporter", *map(str, arguments)]
    if os.geteuid() == 0:
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            pytest.skip("needs setpriv (util-linux), as root")
        words = [setpriv, "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all", *words]
    return subprocess.run(words, capture_output=True, text=True, timeout=180, check=False)


@pytest.fixture
def shut(tmp_path: Path) -> Iterator[Path]:
    """A directory that nobody may look into."""
    directory = tmp_path / "shut"
    directory.mkdir(mode=0)
    yield directory
    directory.chmod(0o700)


WRITERS = ("pki init {} --host localhost", "plugins new acme --directory {}", "dashboards export {}")


@pytest.mark.parametrize("command", WRITERS)
def test_a_place_that_nobody_may_look_into_is_named(shut: Path, command: str) -> None:
    place = shut / "x"
    result = plainly(*command.format(place).split())
    assert (result.returncode, result.stdout) == (2, "")
    assert f"{place}" in result.stderr
    assert result.stderr.endswith("cannot be written: Permission denied\n")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", WRITERS)
def test_a_place_whose_name_is_too_long_is_named(tmp_path: Path, command: str) -> None:
    place = tmp_path / ("x" * 300) / "y"
    result = plainly(*command.format(place).split())
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.endswith("cannot be written: File name too long\n")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "command", ["agent --config", "receiver --config", "collect --config", "plugins --config", "check-config"]
)
def test_a_configuration_that_nobody_may_look_at_is_named(shut: Path, command: str) -> None:
    file = shut / "a.toml"
    result = plainly(*command.split(), file)
    assert result.returncode == 2
    assert result.stderr.endswith(f"{file}: cannot be read: Permission denied\n")
    assert len(result.stderr.splitlines()) == 1
