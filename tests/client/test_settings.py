"""The settings: single keys, keys together, and the environment."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_exporter.client import (
    ClientSettings,
    Publisher,
    Report,
    TlsSettings,
    TokenSettings,
    check,
    load_settings_from_env,
    resolve_node_id,
)
from openclaw_exporter.client.settings import publish_url
from openclaw_exporter.errors import ConfigError, UserError
from openclaw_exporter.plugin.options import describe, read_table

GOOD = ClientSettings(
    endpoint="https://receiver:8443",
    tls=TlsSettings(ca=Path("ca"), certificate=Path("c")),
    token=TokenSettings(key=Path("k"), kid="1", issuer="i", audience="a"),
)

ENVIRONMENT = {
    "OPENCLAW_ENABLED": "TRUE",
    "OPENCLAW_ENDPOINT": "https://receiver:8443",
    "OPENCLAW_INTERVAL": "45",
    "OPENCLAW_ROLLOUT_PERCENT": "12.5",
    "OPENCLAW_STATE_DIR": "/somewhere",
    "OPENCLAW_TLS_CA": "/ca.pem",
    "OPENCLAW_TLS_CERTIFICATE": "/node.pem",
    "OPENCLAW_TLS_KEY": "/node.key",
    "OPENCLAW_TOKEN_KEY": "/token.key",
    "OPENCLAW_TOKEN_KID": "k1",
    "OPENCLAW_TOKEN_ALGORITHM": "ES256",
    "OPENCLAW_TOKEN_ISSUER": "chimera",
    "OPENCLAW_TOKEN_AUDIENCE": "openclaw",
    "OPENCLAW_BUFFER_MAX_HEARTBEATS": "99",
    "OPENCLAW_RECEIVER_PORT": "not ours",
    "OPENCLAW_HOSTNAME": "",
}


def test_good_settings_have_no_problem() -> None:
    assert check(GOOD) == ()
    assert check(ClientSettings(enabled=False)) == ()


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({"endpoint": ""}, ["openclaw.endpoint"]),
        ({"endpoint": "http://receiver"}, ["openclaw.endpoint"]),
        ({"endpoint": "https://"}, ["openclaw.endpoint"]),
        ({"endpoint": "https://u:p@receiver"}, ["openclaw.endpoint"]),
        ({"endpoint": "https://receiver?x=1"}, ["openclaw.endpoint"]),
        ({"endpoint": "https://receiver:99999"}, ["openclaw.endpoint"]),
        ({"endpoint": "https://[::1"}, ["openclaw.endpoint"]),
        ({"endpoint": "https://empfänger"}, ["openclaw.endpoint"]),
        ({"proxy": "socks5://p:1"}, ["openclaw.proxy"]),
        ({"interval": 20}, ["openclaw.interval"]),
        ({"interval": 121}, ["openclaw.interval"]),
        ({"min_interval": 200}, ["openclaw.min_interval"]),
        ({"tls": TlsSettings()}, ["openclaw.tls.ca", "openclaw.tls.certificate"]),
        (
            {"token": TokenSettings()},
            ["openclaw.token.key", "openclaw.token.kid", "openclaw.token.issuer", "openclaw.token.audience"],
        ),
        ({"token": TokenSettings(profile="external")}, ["openclaw.token.file"]),
        (
            {"token": TokenSettings(profile="external", file=Path("token"), sign_requests=True)},
            ["openclaw.token.sign_requests"],
        ),
        (
            {"endpoint": "", "interval": 1, "tls": TlsSettings(ca=Path("ca"))},
            ["openclaw.endpoint", "openclaw.interval", "openclaw.tls.certificate"],
        ),
    ],
)
def test_all_problems_are_named(changes: dict[str, Any], keys: list[str]) -> None:
    wrong = dataclasses.replace(GOOD, **changes)
    assert [problem.key for problem in check(wrong)] == keys
    with pytest.raises(ConfigError) as raised:
        Publisher(wrong, Report)
    assert [problem.key for problem in raised.value.problems] == keys
    assert "u:p" not in str(raised.value)


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("https://r", "https://r/openclaw/availability"),
        ("https://r:1/", "https://r:1/openclaw/availability"),
        ("https://r/openclaw/availability", "https://r/openclaw/availability"),
        ("https://r/eu/openclaw/availability/", "https://r/eu/openclaw/availability"),
        ("https://[::1]:8443/base", "https://[::1]:8443/base/openclaw/availability"),
    ],
)
def test_the_url(endpoint: str, url: str) -> None:
    assert publish_url(endpoint) == url


def test_every_key_is_documented() -> None:
    for info in describe(ClientSettings):
        assert info.description, info.key


def test_a_table_is_read() -> None:
    table = {"endpoint": "https://r", "tls": {"ca": "ca.pem"}, "token": {"algorithm": "EdDSA"}, "node_id": ""}
    settings = read_table(ClientSettings, table, key="openclaw")
    assert settings.tls.ca == Path("ca.pem")
    with pytest.raises(ConfigError) as raised:
        read_table(
            ClientSettings,
            {"interval": 0, "node_id": "UUID", "buffer": {"max_bytes": 2**30}, "endpiont": ""},
            key="openclaw",
        )
    assert {problem.key for problem in raised.value.problems} == {
        "openclaw.interval",
        "openclaw.node_id",
        "openclaw.buffer.max_bytes",
        "openclaw.endpiont",
    }


def test_the_environment() -> None:
    settings = load_settings_from_env(ENVIRONMENT)
    assert settings == dataclasses.replace(
        GOOD,
        interval=45,
        rollout_percent=12.5,
        state_dir=Path("/somewhere"),
        tls=TlsSettings(ca=Path("/ca.pem"), certificate=Path("/node.pem"), key=Path("/node.key")),
        token=TokenSettings(
            key=Path("/token.key"), kid="k1", algorithm="ES256", issuer="chimera", audience="openclaw"
        ),
        buffer=dataclasses.replace(GOOD.buffer, max_heartbeats=99),
    )


@pytest.mark.parametrize("text", ["false", "False", "0", "FALSE"])
def test_the_flag_is_all_it_takes_to_switch_off(text: str) -> None:
    assert not load_settings_from_env({"OPENCLAW_ENABLED": text}).enabled


def test_all_problems_of_the_environment_are_named_without_its_values() -> None:
    wrong = {
        "OPENCLAW_ENABLED": "canary",
        "OPENCLAW_INTERVAL": "canary",
        "OPENCLAW_TOKEN_PROFILE": "canary",
        "OPENCLAW_BUFFER_MAX_BYTES": "1",
        "OPENCLAW_NODE_ID": "canary",
    }
    with pytest.raises(ConfigError) as raised:
        load_settings_from_env(wrong)
    assert {problem.source for problem in raised.value.problems} == set(wrong)
    assert "canary" not in str(raised.value)


@pytest.mark.parametrize("secret", ["-----BEGIN PRIVATE KEY-----\ncanary", "eyJhbGciOiJFUzI1NiJ9.canary.x"])
@pytest.mark.parametrize("variable", ["OPENCLAW_TOKEN_KEY", "OPENCLAW_TOKEN_FILE", "OPENCLAW_TLS_KEY"])
def test_a_secret_in_the_place_of_its_path_is_not_shown(variable: str, secret: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_settings_from_env({variable: secret})
    problems = [problem for problem in raised.value.problems if problem.source == variable]
    assert [problem.allowed for problem in problems] == ["the path of a file, not what is in it"]
    assert "canary" not in str(raised.value)


def test_what_is_missing_is_named_by_its_variable() -> None:
    with pytest.raises(ConfigError) as raised:
        load_settings_from_env({})
    sources = {problem.source for problem in raised.value.problems}
    assert {"OPENCLAW_ENDPOINT", "OPENCLAW_TLS_CA", "OPENCLAW_TOKEN_KEY"} <= sources


@given(environ=st.dictionaries(st.sampled_from(sorted(ENVIRONMENT)), st.text(max_size=20), max_size=8))
def test_no_environment_breaks_the_reading(environ: dict[str, str]) -> None:
    try:
        settings = load_settings_from_env(environ)
    except ConfigError:
        return
    assert check(settings) == ()


@pytest.mark.parametrize("hostname", ["under_score", "-x", "a" * 300])
def test_a_host_name_that_cannot_be_sent_is_named(hostname: str, settings: ClientSettings) -> None:
    with pytest.raises(ConfigError, match=r"openclaw\.hostname"):
        Publisher(dataclasses.replace(settings, hostname=hostname), Report)
    # The state directory is free again.
    Publisher(settings, Report).stop(draining=False)


def test_the_node_id_is_the_same_before_and_after(
    settings: ClientSettings, node_id: str, tmp_path: Path
) -> None:
    assert resolve_node_id(settings) == node_id
    off = ClientSettings(enabled=False, state_dir=tmp_path / "other")
    first = resolve_node_id(off)
    assert resolve_node_id(off) == first
    publisher = Publisher(off, Report)
    assert publisher.node_id == first
    publisher.stop()


def test_what_is_allowed_is_said_in_words() -> None:
    wrong = {"OPENCLAW_ENABLED": "maybe", "OPENCLAW_INTERVAL": "0", "OPENCLAW_ROLLOUT_PERCENT": "200"}
    with pytest.raises(ConfigError) as caught:
        load_settings_from_env(wrong)
    allowed = [problem.allowed for problem in caught.value.problems]
    assert allowed == ["true or false", "an integer >= 1", "a number <= 100.0"]


@pytest.mark.parametrize("enabled", [True, False])
def test_a_state_directory_that_cannot_be_written_is_told_once(
    settings: ClientSettings,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    enabled: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    (tmp_path / "file").touch()
    lost = dataclasses.replace(settings, enabled=enabled, state_dir=tmp_path / "file" / "state")
    # As an agent does: first the id, then the publisher with that id.
    known = dataclasses.replace(lost, node_id=resolve_node_id(lost))
    Publisher(known, Report).stop(draining=False)
    told = [record for record in caplog.records if "cannot be written" in record.getMessage()]
    assert [record.levelname for record in told] == ["WARNING"]


def test_switched_off_needs_no_credentials(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    nowhere = tmp_path / "file" / "state"
    off = ClientSettings(enabled=False, state_dir=nowhere, tls=TlsSettings(certificate=tmp_path / "missing"))
    assert resolve_node_id(off) != resolve_node_id(off)
    known = "7d444840-9dc0-11d1-b245-5ffdce74fad2"
    assert resolve_node_id(dataclasses.replace(off, node_id=known)) == known
    with pytest.raises(UserError):
        resolve_node_id(dataclasses.replace(GOOD, state_dir=nowhere))


def test_the_client_is_light() -> None:
    program = (
        "import sys, openclaw_exporter.client\n"
        "heavy = {'httpx', 'click', 'rich', 'pluggy', 'uvicorn', 'requests', 'grpc', 'prometheus_client'}\n"
        "print(sorted(name for name in sys.modules if name in heavy or name.startswith('opentelemetry.sdk')))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert ran.stdout == b"[]\n"
