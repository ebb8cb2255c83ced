"""What `[receiver.store]` may say of a Redis, and what is said where it is wrong."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from openclaw_exporter.cli.app import app
from openclaw_exporter.config import load
from openclaw_exporter.errors import ConfigError
from openclaw_exporter.receiver.safety import store_path
from openclaw_exporter.receiver.settings import StoreSettings
from openclaw_exporter.receiver.store.redis.address import Host, is_redis, parse
from openclaw_exporter.receiver.store.redis.target import target_of

if TYPE_CHECKING:
    from support.pki import Pki

RIGHT: dict[str, dict[str, Any]] = {
    "redis://h": {"hosts": (Host("h", 6379),), "tls": False, "database": 0, "username": None},
    "valkey://h:1/": {"hosts": (Host("h", 1),)},
    "redis://h:7000/3": {"hosts": (Host("h", 7000),), "database": 3},
    "rediss://me@h": {"hosts": (Host("h", 6379),), "tls": True, "username": "me"},
    "valkeys://h": {"hosts": (Host("h", 6379),), "tls": True},
    "redis://a:1,b,[::1]:2,[fe80::1%eth0]": {
        "hosts": (Host("a", 1), Host("b", 6379), Host("::1", 2), Host("fe80::1%eth0", 6379))
    },
    "redis+sentinel://a,b:2/swarm": {
        "hosts": (Host("a", 26379), Host("b", 2)),
        "service": "swarm",
        "database": 0,
    },
    "rediss+sentinel://me%40home@a/swarm/2": {"username": "me@home", "database": 2, "tls": True},
    "unix:///run/redis.sock": {"hosts": (Host("/run/redis.sock", 0),), "database": 0},
    "unix://me@/run/redis.sock?database=2": {"username": "me", "database": 2},
    "redis://h?replicas=0&timeout=0.5&partitions=32&prefix=blue": {
        "replicas": 0,
        "timeout": 0.5,
        "partitions": 32,
        "prefix": "blue",
    },
    "rediss://h?ca=/ca.pem&password_file=/secret": {"ca": Path("/ca.pem"), "password_file": Path("/secret")},
}
WRONG: dict[str, tuple[str, str, str]] = {
    "a password": ("redis://me:canary@h", "receiver.store.url", "receiver.store.password_file"),
    "a password alone": ("redis://:canary@h", "receiver.store.url", "receiver.store.password_file"),
    "no host": ("redis://", "receiver.store.url", "names no host"),
    "an empty host": ("redis://a,,b", "receiver.store.url", "names no host"),
    "no port": ("redis://h:0", "receiver.store.url", "a host that is none"),
    "a port too high": ("redis://h:65536", "receiver.store.url", "a host that is none"),
    "no database": ("redis://h/main", "receiver.store.url", "no number of a database"),
    "no service": ("redis+sentinel://h", "receiver.store.url", "under which name"),
    "no socket": ("unix://", "receiver.store.url", "names no socket"),
    "no URL": ("redis:/h", "receiver.store.url", "allowed: sqlite:///"),
    "a fragment": ("redis://h#1", "receiver.store.url", "is no URL"),
    "another scheme": ("postgres://h", "receiver.store.url", "redis://"),
    "an unknown option": ("redis://h?replica=1", "receiver.store.url", "'replica'"),
    "options without values": ("redis://h?replicas", "receiver.store.url", "options that are none"),
    "an option out of range": ("redis://h?partitions=0", "receiver.store.url", "receiver.store.partitions"),
    "an option of another type": ("redis://h?timeout=soon", "receiver.store.url", "receiver.store.timeout"),
    "TLS files without TLS": ("redis://h?ca=/ca.pem", "receiver.store.ca", "rediss://"),
    "half a certificate": ("rediss://h?key=/key.pem", "receiver.store.certificate", "or neither"),
    "the other half": ("rediss://h?certificate=/c.pem", "receiver.store.key", "or neither"),
    "Sentinels' user without them": (
        "redis://h?sentinel_username=me",
        "receiver.store.sentinel_username",
        "+s",
    ),
}


@pytest.mark.parametrize(("url", "expected"), RIGHT.items(), ids=RIGHT)
def test_a_url_says_where_a_redis_is(url: str, expected: dict[str, Any]) -> None:
    assert is_redis(url)
    target = target_of(StoreSettings(url=url))
    assert {name: getattr(target, name) for name in expected} == expected


def test_what_the_url_says_wins_over_the_table() -> None:
    table = StoreSettings(url="redis://h?timeout=1", timeout=9, partitions=3, replicas=2)
    target = target_of(table)
    assert (target.timeout, target.partitions, target.replicas) == (1, 3, 2)


@pytest.mark.parametrize(("url", "key", "text"), WRONG.values(), ids=WRONG)
def test_a_wrong_url_is_named_with_its_remedy(url: str, key: str, text: str) -> None:
    overrides = {"receiver.store.url": url, "receiver.insecure_dev": True}
    with pytest.raises(ConfigError) as raised:
        load(None, {}, overrides, services=["receiver"])
    (problem,) = raised.value.problems
    assert problem.key == key
    assert text in str(problem)
    assert "canary" not in str(raised.value)


@given(st.text())
def test_any_text_is_a_url_or_refused(text: str) -> None:
    for url in (text, f"redis://{text}", f"redis+sentinel://{text}"):
        try:
            parts = parse(url)
        except ValueError:
            continue
        assert parts.hosts
        assert all(host.name and 0 <= host.port <= 65535 for host in parts.hosts)


_names = st.from_regex(r"[a-z0-9][a-z0-9.-]{0,20}", fullmatch=True)


@given(st.lists(st.tuples(_names, st.integers(1, 65535)), min_size=1, max_size=5), st.integers(0, 99))
def test_hosts_are_read_as_they_are_written(hosts: list[tuple[str, int]], database: int) -> None:
    named = tuple(Host(*host) for host in hosts)
    parts = parse(f"redis://{','.join(map(str, named))}/{database}")
    assert parts.hosts == named
    assert parts.database == database


def test_a_file_is_no_redis() -> None:
    assert store_path("sqlite:////var/lib/registry.sqlite") == Path("/var/lib/registry.sqlite")
    assert not is_redis("sqlite:////var/lib/registry.sqlite")
    with pytest.raises(ConfigError, match=r"receiver\.store\.url"):
        store_path("redis://h")


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    overrides = {"receiver.store.url": "redis://h", "receiver.insecure_dev": True}
    with pytest.raises(ConfigError, match=r"pip install 'openclaw-exporter\[redis\]'"):
        load(None, {}, overrides, services=["receiver"])


def test_check_config_looks_for_the_files(tmp_path: Path, pki: Pki) -> None:
    secret = tmp_path / "secret"
    file = tmp_path / "receiver.toml"
    ca = pki.ca
    text = f'[receiver]\ninsecure_dev = true\n[receiver.store]\nurl = "rediss://h"\nca = "{ca}"\n'
    file.write_text(f'{text}password_file = "{secret}"\n')
    outcome = CliRunner().invoke(app, ["check-config", str(file)])
    assert outcome.exit_code == 0
    assert f"receiver.store.password_file: {secret} cannot be read" in outcome.output
    secret.write_text("canary\n")
    outcome = CliRunner().invoke(app, ["check-config", str(file)])
    assert "warning" not in outcome.output
    file.write_text(text.replace(str(ca), str(secret)))
    outcome = CliRunner().invoke(app, ["check-config", str(file)])
    assert f"receiver.store: {secret}" in outcome.output
    assert "canary" not in outcome.output
