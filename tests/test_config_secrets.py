"""What a configuration's errors say where a secret stands in the wrong place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from openclaw_exporter.config import load
from openclaw_exporter.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("secret", ["-----BEGIN PRIVATE KEY-----\ncanary", "eyJhbGciOiJFUzI1NiJ9.canary.x"])
@pytest.mark.parametrize(
    ("variable", "key"),
    [
        ("OPENCLAW_TOKEN_KEY", "openclaw.token.key"),
        ("OPENCLAW_TOKEN_FILE", "openclaw.token.file"),
        ("OPENCLAW_TLS_KEY", "openclaw.tls.key"),
        ("OPENCLAW_RECEIVER_TLS_KEY", "receiver.tls.key"),
    ],
)
def test_a_secret_in_the_place_of_its_path_is_not_shown(variable: str, key: str, secret: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(None, {variable: secret}, services=["agent", "receiver"])
    assert f"{variable}: {key}: got '***'; allowed: a path" in str(raised.value)
    assert "canary" not in str(raised.value)


def test_a_key_in_the_file_in_the_place_of_its_path_is_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text('[openclaw.token]\nkey = """-----BEGIN PRIVATE KEY-----\ncanary"""\n')
    with pytest.raises(ConfigError) as raised:
        load(file, {}, services=["agent"])
    assert "openclaw.token.key: got '***'; allowed: a path" in str(raised.value)
    assert "canary" not in str(raised.value)


def test_the_password_of_a_wrong_url_is_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "receiver.toml"
    file.write_text('[receiver.store]\nurl = "postgres://user:canary@localhost/0"\n')
    with pytest.raises(ConfigError) as raised:
        load(file, {}, services=["receiver"])
    assert "receiver.store.url: is 'postgres://***@localhost/0'" in str(raised.value)
    assert "canary" not in str(raised.value)
