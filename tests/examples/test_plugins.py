"""Third-party plugins as their users meet them: built as wheels, installed into an empty environment by pip.

The environment is a fresh virtual one without this one's packages: pip fetches every dependency from the
package index, so this file needs one. Wheels are built with this environment's hatchling.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest

from support.skip import binary

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
MADE = "render-farm"
EXAMPLES = {"celery": ROOT / "examples/celery-plugin", "hello": ROOT / "examples/hello-plugin"}


class Environment:
    """A virtual environment with the exporter, the example plugins and one that `plugins new` has made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made = folder / "made"
        self._bin = folder / "venv/bin"
        venv.create(folder / "venv", with_pip=True)
        exporter = self._wheel(ROOT)
        self.python("-m", "pip", "install", "--quiet", str(exporter), "pytest>=8.4")
        self.exporter("plugins", "new", MADE, "--directory", str(self.made))
        plugins = [str(self._wheel(source)) for source in (*EXAMPLES.values(), self.made)]
        self.python("-m", "pip", "install", "--quiet", *plugins)

    def python(self, *arguments: str) -> str:
        """Run the environment's Python and return its output."""
        return self._run(str(self._bin / "python"), *arguments)

    def exporter(self, *arguments: str) -> str:
        """Run the environment's `openclaw-exporter` and return its output."""
        return self._run(str(self._bin / "openclaw-exporter"), *arguments)

    def own_tests(self, source: Path) -> str:
        """Run a plugin's own tests, copied away from its source so that only what is installed is tested."""
        copy = self.folder / "tests" / source.name
        shutil.copytree(source, copy, ignore=shutil.ignore_patterns("openclaw_*.py", "__pycache__"))
        for module in source.glob("tests/test_openclaw_*.py"):
            shutil.copy(module, copy / "tests")
        alone = ("-W", "error", "-p", "no:cacheprovider", "-c", os.devnull, f"--rootdir={copy}")
        return self.python("-m", "pytest", "-q", *alone, str(copy))

    def _wheel(self, source: Path) -> Path:
        """Build a wheel with this environment's hatchling."""
        place = self.folder / "wheels" / source.name
        # The build backend would leave its traces in the source folder of a checkout that others use, too.
        pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check")
        self._run(*pip, "--no-deps", "--no-build-isolation", "--wheel-dir", str(place), str(source))
        (wheel,) = place.glob("*.whl")
        return wheel

    def _run(self, *command: str) -> str:
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "VIRTUAL_ENV", "COVERAGE", "OPENCLAW"))
        }
        done = subprocess.run(
            command,
            env=environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The environment, made once."""
    return Environment(tmp_path_factory.mktemp("empty"))


def test_nothing_else_is_installed(environment: Environment) -> None:
    listed = json.loads(environment.python("-m", "pip", "list", "--format", "json"))
    ours = sorted(found["name"] for found in listed if found["name"].startswith("openclaw"))
    assert ours == [
        "openclaw-celery-plugin",
        "openclaw-exporter",
        "openclaw-exporter-render-farm",
        "openclaw-hello-plugin",
    ]


def test_the_dashboards_come_with_the_wheel(environment: Environment) -> None:
    written = json.loads(environment.exporter("dashboards", "export", "observability", "--json"))
    assert len(written) == 9
    assert all((environment.folder / path).read_text() for path in written)


def test_every_plugin_is_shown_and_loads(environment: Environment) -> None:
    listed: list[dict[str, Any]] = json.loads(environment.exporter("plugins", "--json"))
    assert {plugin["name"]: plugin["status"] for plugin in listed} == {
        "celery": "loaded",
        "hello": "loaded",
        MADE: "loaded",
    }
    assert all(option["description"] for plugin in listed for option in plugin["options"])


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_examples_own_tests_pass(environment: Environment, name: str) -> None:
    if name == "celery":
        binary("redis-server", "redis-server")
    shown = environment.own_tests(EXAMPLES[name])
    assert " passed" in shown
    assert "skipped" not in shown


def test_the_tests_of_a_new_plugin_pass(environment: Environment) -> None:
    assert "4 passed" in environment.own_tests(environment.made)


def test_a_new_plugin_conforms(environment: Environment) -> None:
    report = json.loads(environment.exporter("plugins", "check", MADE, "--json"))
    assert report["passed"]
    assert [one["name"] for one in report["collectors"]] == ["waiting"]


def test_the_kit_is_loaded_only_where_somebody_asks_for_it(environment: Environment) -> None:
    empty = environment.folder / "nothing"
    empty.mkdir()
    shown = environment.python("-m", "pytest", "--fixtures", "-q", "-c", os.devnull, str(empty))
    assert "run_collector" not in shown
    asked = ("-p", "openclaw_exporter.plugin.testing", "-c", os.devnull, str(empty))
    assert "run_collector" in environment.python("-m", "pytest", "--fixtures", "-q", *asked)
