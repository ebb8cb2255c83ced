"""The units find what the example configurations name."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from openclaw_exporter.config import all_keys

EXAMPLES = Path(__file__).parents[2] / "examples"


def lines(name: str, key: str) -> list[str]:
    text = (EXAMPLES / "systemd" / f"openclaw-{name}.service").read_text()
    return re.findall(rf"^{key}=(.*)$", text, re.MULTILINE)


def configured(name: str, dotted: str) -> object:
    value: object = tomllib.loads((EXAMPLES / "config" / f"{name}.toml").read_text())
    for part in dotted.split("."):
        assert isinstance(value, dict)
        value = value[part]
    return value


@pytest.mark.parametrize("name", ["agent", "receiver"])
def test_every_credential_is_a_file_of_the_example_and_takes_its_place(name: str) -> None:
    originals = dict(line.split(":", 1) for line in lines(name, "LoadCredential"))
    keys = {key.variable: key.name for key in all_keys()}
    replaced = dict(part.split("=", 1) for line in lines(name, "Environment") for part in line.split())
    assert {copy: configured(name, keys[variable]) for variable, copy in replaced.items()} == {
        f"%d/{copy}": original for copy, original in originals.items()
    }


@pytest.mark.parametrize("name", ["agent", "receiver"])
def test_the_unit_has_the_directory_that_the_example_writes_to(name: str) -> None:
    (directory,) = lines(name, "StateDirectory")
    written = configured(name, {"agent": "openclaw.state_dir", "receiver": "receiver.store.url"}[name])
    assert f"/var/lib/{directory}" in str(written)
