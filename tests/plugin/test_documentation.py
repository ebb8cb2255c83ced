"""Nothing of the plugin API goes undocumented: hook, observations, fields, reasons, keys, options, checks."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest

import openclaw_exporter.plugin.testing as kit
from openclaw_exporter.plugin import API_VERSION, Observation, hookimpl
from openclaw_exporter.plugin.hooks import Hooks
from openclaw_exporter.plugin.host import HostKeys, installed_plugins, load_plugins
from openclaw_exporter.plugin.host_keys import Defaults
from openclaw_exporter.plugin.observations import Kind
from openclaw_exporter.plugin.options import describe
from openclaw_exporter.plugin.rules import UNITS, Reason
from openclaw_exporter.plugin.testing import CHECKS, assert_conforms, fixtures

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/plugins.md").read_text()
CONFIGURATION = (ROOT / "docs/configuration.md").read_text()
OBSERVATIONS = get_args(Observation)


def section(title: str, page: str = PAGE) -> str:
    """Return what stands under a heading."""
    found = re.search(rf"^#+ {re.escape(title)}$(.*?)(?=^#+ |\Z)", page, re.MULTILINE | re.DOTALL)
    assert found, f"there is no heading {title!r}"
    return found[1]


def first_cells(text: str) -> set[str]:
    """Return the names in the first column of the tables of a text."""
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return {name for cell in cells for name in re.findall(r"`([^`(]+)[^`]*`", cell)}


def fenced(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_every_hook_is_documented() -> None:
    hooks = [name for name in vars(Hooks) if not name.startswith("_")]
    text = section("The hook")
    for name in hooks:
        signature = ", ".join(list(inspect.signature(getattr(Hooks, name)).parameters)[1:])
        assert f"`{name}({signature})`" in text


@pytest.mark.parametrize("observation", OBSERVATIONS, ids=lambda kind: kind.__name__)
def test_every_observation_and_field_is_documented(observation: Any) -> None:
    fields = {field.name for field in dataclasses.fields(observation)}
    assert first_cells(section(f"`{observation.__name__}`")) == fields


def test_every_unit_and_kind_is_documented() -> None:
    text = section("`Measurement`")
    assert not [name for name in (UNITS - {""}) | set(get_args(Kind)) if f"`{name}`" not in text]


def test_every_reason_of_a_refusal_is_documented() -> None:
    assert first_cells(section("The rules")) == set(get_args(Reason))


def test_no_other_reason_is_given() -> None:
    used: set[str] = set()
    for path in (
        *(ROOT / "openclaw_exporter/plugin").glob("*.py"),
        ROOT / "openclaw_exporter/agent/snapshot.py",
    ):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
                first = node.args[0]
                if node.func.id in {"Rejection", "RejectedError"} and isinstance(first, ast.Constant):
                    used.add(str(first.value))
    assert used <= set(get_args(Reason))
    assert {"flood", "partial", "duplicate", "budget"} <= used


def test_every_process_error_is_documented() -> None:
    used: set[str] = set()
    for path in (ROOT / "openclaw_exporter/agent").glob("*.py"):
        used |= set(re.findall(r"(?:ChildError|Failed)\(\s*\"([a-z]+)\"", path.read_text()))
    text = section("The rules")
    # What the agent ends itself is told nobody.
    assert not [name for name in used - {"cancelled"} if f"`{name}`" not in text]


def test_every_key_of_the_host_is_documented_with_its_default() -> None:
    text = section("Isolation and budgets")
    assert first_cells(text) == {key.name for key in dataclasses.fields(HostKeys)}
    defaults = Defaults()
    for name in ("interval", "deadline", "isolation", "series_budget"):
        row = next(line for line in text.splitlines() if line.startswith(f"| `{name}`"))
        value = getattr(defaults, name)
        assert str(value if isinstance(value, str) else int(value)) in row.split("|")[2]


def test_every_check_fixture_and_assertion_of_the_kit_is_documented() -> None:
    names = first_cells(section("Test it with the kit"))
    assertions = {name for name in kit.__all__ if name.startswith("assert_")}
    given = {
        name
        for name, value in vars(fixtures).items()
        if type(value).__name__ == "FixtureFunctionDefinition" and name != "collector"
    }
    assert len(given) == 3
    assert names == CHECKS.keys() | assertions | given


def test_the_version_that_is_promised_is_that_of_the_code() -> None:
    text = section("What you can rely on")
    assert f"`API_VERSION`, now {API_VERSION}." in text
    assert "OPENCLAW_PLUGIN_API" in text


def test_the_plugin_of_five_minutes_works_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    (spool / "job").touch()
    module = ModuleType("openclaw_exporter_render_farm")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    namespace = vars(module)
    code = next(block for block in fenced("python") if "@hookimpl" in block)
    exec(compile(code, "docs/plugins.md", "exec"), namespace)  # noqa: S102 - our own page
    assert hasattr(namespace["openclaw_collectors"], f"{hookimpl.project_name}_impl")
    (option,) = describe(namespace["Options"])
    assert option.description == "Where the jobs lie."
    (collector,) = namespace["openclaw_collectors"](namespace["Options"](directory=spool))
    findings = assert_conforms(collector, runs=8)
    assert not [finding for finding in findings if finding.severity == "warning"]
    manifest = tomllib.loads(fenced("toml")[0])
    assert manifest["project"]["entry-points"]["openclaw_exporter"] == {"render-farm": namespace["__name__"]}


def bundled() -> list[str]:
    """Return the names of the plugins in plugins/, by their manifests."""
    names = []
    for path in sorted((ROOT / "plugins").glob("*/pyproject.toml")):
        names += tomllib.loads(path.read_text())["project"]["entry-points"]["openclaw_exporter"]
    return names


@pytest.mark.parametrize("name", bundled())
def test_every_option_of_a_bundled_plugin_is_documented(name: str) -> None:
    assert name in installed_plugins(), f"plugins/{name} is not installed: run `make test`"
    (plugin,) = load_plugins({}, only={name}).plugins
    assert plugin.options_type is not None
    options = describe(plugin.options_type)
    assert not [option.key for option in options if not option.description]
    text = section(f"`[plugins.{name}]`", CONFIGURATION)
    keys = {option.key.rpartition(".")[2] for option in options}
    assert first_cells(text) >= keys, "put the plugin into BUNDLED of docs/generate.py and run `make docs`"
