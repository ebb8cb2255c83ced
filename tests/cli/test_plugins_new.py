from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING

import pytest

from openclaw_exporter import __version__

if TYPE_CHECKING:
    from pathlib import Path


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (sys.executable, "-m", "openclaw_exporter", *arguments),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        cwd=cwd,
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The distribution that `plugins new` writes."""
    folder = tmp_path_factory.mktemp("new")
    result = run("plugins", "new", "render-farm", cwd=folder)
    assert (result.returncode, "Traceback" in result.stderr) == (0, False), result.stderr
    return folder / "openclaw-exporter-render-farm"


def test_a_distribution_of_one_module_with_its_test_is_written(made: Path) -> None:
    written = sorted(str(path.relative_to(made)) for path in made.rglob("*") if path.is_file())
    assert written == [
        "README.md",
        "openclaw_exporter_render_farm.py",
        "pyproject.toml",
        "tests/conftest.py",
        "tests/test_openclaw_exporter_render_farm.py",
    ]
    assert not any("$" in (made / name).read_text() for name in written)


def test_its_manifest_names_the_plugin_and_the_version_that_it_needs(made: Path) -> None:
    project = tomllib.loads((made / "pyproject.toml").read_text())["project"]
    assert project["name"] == "openclaw-exporter-render-farm"
    assert project["dependencies"] == [f"openclaw-exporter>={__version__}"]
    assert project["entry-points"]["openclaw_exporter"] == {"render-farm": "openclaw_exporter_render_farm"}


def test_installed_it_is_listed_and_conforms_and_its_own_test_passes(made: Path, tmp_path: Path) -> None:
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    offline = ("--no-index", "--no-deps", "--no-build-isolation", "--target", str(tmp_path), str(made))
    subprocess.run((*pip, *offline), check=True)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}

    def python(*arguments: str) -> str:
        done = subprocess.run(
            (sys.executable, *arguments),
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert '"name": "render-farm"' in python("-m", "openclaw_exporter", "plugins", "--json")
    assert "render-farm conforms: 0 failures" in python(
        "-m", "openclaw_exporter", "plugins", "check", "render-farm", "--runs", "8"
    )
    alone = ("-W", "error", "-p", "no:cacheprovider", "-c", os.devnull, f"--rootdir={made}")
    shown = python("-m", "pytest", "-q", *alone, str(made))
    assert "4 passed" in shown


def test_what_it_writes_fits_into_lines_of_a_hundred_characters(made: Path) -> None:
    lines = [line for path in made.rglob("*.*") if path.is_file() for line in path.read_text().splitlines()]
    assert max(map(len, lines)) <= 100


def test_the_place_can_be_named(tmp_path: Path) -> None:
    result = run("plugins", "new", "acme", "--directory", "a/b", cwd=tmp_path)
    assert (result.returncode, (tmp_path / "a/b/openclaw_exporter_acme.py").is_file()) == (0, True)
    assert "next: pip install -e a/b && openclaw-exporter plugins check acme" in result.stderr


@pytest.mark.parametrize(
    ("name", "rival"),
    [("chimera", "openclaw-exporter-chimera"), ("http-json", "openclaw-exporter-http-json"), ("acme", "")],
)
def test_a_name_that_a_bundled_plugin_has_is_noted(name: str, rival: str, tmp_path: Path) -> None:
    result = run("plugins", "new", name, "--directory", "mine", cwd=tmp_path)
    assert (result.returncode, (tmp_path / "mine/pyproject.toml").is_file()) == (0, True)
    assert (f"note: {rival} brings a plugin of this name" in result.stderr) == bool(rival)
    assert ("note:" in result.stderr) == bool(rival)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    place = tmp_path / "openclaw-exporter-acme"
    place.mkdir()
    (place / "README.md").write_text("mine")
    result = run("plugins", "new", "acme", cwd=tmp_path)
    assert (result.returncode, (place / "README.md").read_text()) == (2, "mine")
    assert "README.md is there already: name another place with --directory" in result.stderr
    assert sorted(path.name for path in place.iterdir()) == ["README.md"]


@pytest.mark.parametrize("name", ["Acme", "7up", "a b", "a/../b", "-x-", "acme_", "ü", "x" * 41, ""])
def test_a_name_that_cannot_be_one_is_a_mistake(name: str, tmp_path: Path) -> None:
    result = run("plugins", "new", "--", name, cwd=tmp_path)
    assert (result.returncode, list(tmp_path.iterdir())) == (2, [])
    assert "a plugin cannot be called" in result.stderr


def test_a_place_that_cannot_be_written_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run("plugins", "new", "acme", "--directory", "file/sub", cwd=tmp_path)
    assert (result.returncode, "Traceback" in result.stderr) == (2, False)
    assert "cannot be written: Not a directory" in result.stderr
