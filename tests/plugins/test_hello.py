"""The example plugin: built and installed by pip, found by its entry point, tested by its own test."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HELLO = ROOT / "examples/hello-plugin"
BUNDLED = sorted((ROOT / "plugins").iterdir())


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed example."""
    folder = tmp_path_factory.mktemp("installed")
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    offline = ("--no-index", "--no-deps", "--no-build-isolation", "--target", str(folder), str(HELLO))
    subprocess.run((*pip, *offline), check=True)
    return folder


def run(installed: Path, *arguments: str, cwd: Path | None = None) -> str:
    environment = {**os.environ, "PYTHONPATH": str(installed), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        (sys.executable, *arguments), env=environment, cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_installed_example_loads_with_its_options(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "letter").touch()
    code = f"""
from openclaw_exporter.plugin.host import load_plugins
loaded = load_plugins({{"hello": {{"directory": {str(tmp_path)!r}, "topic": "letters"}}}}, only={{"hello"}})
print(loaded.failures, loaded.distributions)
print(*loaded.collectors[0].collector.collect())
"""
    assert run(installed, "-c", code).splitlines() == [
        "() {'hello': ('openclaw-hello-plugin', '0.1.0')}",
        "QueueDepth(topic='letters', depth=1, oldest_age=None)",
    ]


def test_the_examples_own_test_passes(installed: Path, tmp_path: Path) -> None:
    shown = run(
        installed, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, str(HELLO), cwd=tmp_path
    )
    assert "2 passed" in shown


def test_the_example_is_short() -> None:
    code = (HELLO / "openclaw_hello_plugin.py").read_text().splitlines()
    body = "\n".join(code)
    without_docstrings = [part for index, part in enumerate(body.split('"""')) if index % 2 == 0]
    lines = [line for line in "\n".join(without_docstrings).splitlines() if line.strip()]
    assert len(lines) <= 18


@pytest.mark.parametrize("folder", [*BUNDLED, HELLO], ids=lambda folder: folder.name)
def test_a_plugin_is_one_module_or_package_and_its_entry_point_names_it(folder: Path) -> None:
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    ((name, module),) = project["entry-points"]["openclaw_exporter"].items()
    code = {path.name for path in folder.glob("*.py") if not path.name.startswith(("test_", "conftest"))}
    code |= {path.parent.name for path in folder.glob("*/__init__.py")}
    assert code in ({f"{module}.py"}, {module})
    assert folder.name.removesuffix("-plugin") == name
    assert any(requirement.startswith("openclaw-exporter") for requirement in project["dependencies"])
