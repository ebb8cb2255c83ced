"""Starting, stopping, the admin listener, and configurations that do not start."""

from __future__ import annotations

import contextlib
import dataclasses
import resource
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from receiver.raw import Raw, head
from receiver.scene import problem, receiver_settings, running

from openclaw_exporter.cli.authority import node_uri, reader_uri
from openclaw_exporter.errors import ConfigError, StateError, UserError
from openclaw_exporter.plugin.options import describe, read_table
from openclaw_exporter.receiver import server
from openclaw_exporter.receiver.admin import ADMIN_CONNECTIONS
from openclaw_exporter.receiver.embedding import Receiver
from openclaw_exporter.receiver.safety import require_safe
from openclaw_exporter.receiver.settings import (
    AdminSettings,
    IssuerSettings,
    ProxySettings,
    ReceiverSettings,
    StoreSettings,
)
from openclaw_exporter.telemetry.provider import Telemetry
from support.command import ReceiverCommand
from support.nodes import PlayedNode
from support.pki import TRUST_DOMAIN
from support.ports import free_port
from support.wait import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from receiver.scene import Running

    from support.pki import Pki

ISSUER = IssuerSettings(issuer="chimera", audience="openclaw-receiver")


def test_the_admin_listener(scene: Running) -> None:
    admin = scene.admin
    assert admin.get("/healthz").json() == {"status": "ok"}
    ready = admin.get("/readyz")
    assert (ready.status_code, ready.json()["ready"]) == (200, True)
    assert set(ready.json()["checks"]) == {"store", "keys", "loop"}
    metrics = admin.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "openclaw_registry_loop_lag_seconds" in metrics.text
    assert problem(admin.get("/openclaw/nodes")) == (404, "not-found")
    assert problem(admin.post("/healthz")) == (405, "method-not-allowed")


def test_the_admin_listener_has_connections_of_its_own(pki: Pki, tmp_path: Path) -> None:
    with running(pki, receiver_settings(pki, tmp_path)) as scene, contextlib.ExitStack() as held:
        address = urlsplit(str(scene.receiver.addresses.admin_url))
        for count in range(ADMIN_CONNECTIONS + 1):
            one = held.enter_context(socket.create_connection((address.hostname, address.port), timeout=60))
            one.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            expected = b"HTTP/1.1 200" if count < ADMIN_CONNECTIONS else b"HTTP/1.1 503"
            assert one.recv(12) == expected
        assert scene.node().beat().status_code == 200
        held.close()
        wait_until(lambda: scene.admin.get("/healthz").status_code == 200, what="their places")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_flood_of_the_api_leaves_the_admin_listener_its_descriptors(
    pki: Pki, tmp_path: Path, workers: int
) -> None:
    receiver = ReceiverCommand(tmp_path, pki)
    config = tmp_path / "receiver.toml"
    config.write_text(config.read_text().replace("burst = 1000", "burst = 1000\nhandshake_timeout = 300"))
    few = ("sh", "-c", 'ulimit -n 200; exec "$0" -m openclaw_exporter "$@"', sys.executable)
    with receiver.log.open("ab") as log:
        arguments = (*few, *receiver.arguments, "--workers", str(workers))
        receiver.process = subprocess.Popen(arguments, stdout=log, stderr=log)
    try:
        receiver.ready()
        with contextlib.ExitStack() as silent:
            for _ in range(300):
                silent.enter_context(socket.create_connection(("127.0.0.1", receiver.port), timeout=60))
            process = psutil.Process(receiver.process.pid)
            fronts = process.children() if workers > 1 else [process]
            wait_until(lambda: all(one.num_fds() > 72 for one in fronts), what="it to have no room any more")
            assert f"no more than 72 connections and not the {20000 // workers} that" in receiver.text()
            assert receiver.metrics()
            assert all(one.num_fds() < 200 for one in (process, *fronts))
        with contextlib.closing(PlayedNode(pki, receiver.url)) as node:
            node.client.timeout = 60
            wait_until(lambda: connections_of(fronts) < 72, what="the silent ones to have gone")
            assert node.client.post(node.url, **node.next_request()[1]).status_code == 200
    finally:
        assert receiver.stop() == 0
    assert "Traceback" not in receiver.text()


@pytest.mark.parametrize("workers", [1, 2])
def test_the_soft_limit_of_open_files_is_none(pki: Pki, tmp_path: Path, workers: int) -> None:
    receiver = ReceiverCommand(tmp_path, pki)
    command = ("sh", "-c", 'ulimit -Sn 64; exec "$0" -m openclaw_exporter "$@"', sys.executable)
    arguments = (*receiver.arguments, "--workers", str(workers))
    with receiver.log.open("ab") as log:
        receiver.process = subprocess.Popen((*command, *arguments), stdout=log, stderr=log)
    try:
        receiver.ready()
        process = psutil.Process(receiver.process.pid)
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        for each in (process, *process.children()):
            assert resource.prlimit(each.pid, resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        assert receiver.stop() == 0


def connections_of(processes: list[psutil.Process]) -> int:
    """Return the most TCP connections that one of some processes has."""
    return max(len(one.net_connections("tcp")) for one in processes)


def test_without_telemetry_there_are_no_metrics_and_all_else_works(pki: Pki, tmp_path: Path) -> None:
    with Receiver(receiver_settings(pki, tmp_path)) as receiver:
        admin_url = receiver.addresses.admin_url
        assert httpx.get(f"{admin_url}/metrics", trust_env=False, timeout=60).status_code == 404
        assert httpx.get(f"{admin_url}/readyz", trust_env=False, timeout=60).status_code == 200


def test_the_admin_listener_can_be_left_out(pki: Pki, tmp_path: Path) -> None:
    with Receiver(receiver_settings(pki, tmp_path, admin=AdminSettings(enabled=False))) as receiver:
        assert receiver.addresses.admin_url is None


def test_a_request_at_the_stop_is_answered_first(pki: Pki, tmp_path: Path) -> None:
    with running(pki, receiver_settings(pki, tmp_path)) as scene:
        node = scene.node()
        body = b"{}"
        with Raw(scene, node.files) as raw:
            raw.send(head(node, f"Content-Length: {len(body)}", "Expect: 100-continue"))
            assert raw.socket.recv(1000).startswith(b"HTTP/1.1 100")
            stopping = threading.Thread(target=scene.receiver.stop)
            stopping.start()
            raw.send(body)
            answer = raw.answer()
            assert answer is not None
            assert answer.status == 422
            assert raw.is_closed()
        stopping.join()
        with pytest.raises(httpx.TransportError):
            node.beat()


def test_the_api_s_connections_end_while_somebody_waits_for_metrics(
    pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Metrics that take so long to write cannot be had for real.
    asked, release = threading.Event(), threading.Event()
    monkeypatch.setattr(Telemetry, "exposition", lambda _: (asked.set(), release.wait(300), b"")[-1])
    monkeypatch.setattr(server, "STOP_SECONDS", 300.0)
    with running(pki, receiver_settings(pki, tmp_path)) as scene:
        admin = urlsplit(str(scene.receiver.addresses.admin_url))
        slow = socket.create_connection((admin.hostname, admin.port), timeout=60)
        with slow, Raw(scene, pki.reader()) as idle:
            idle.send(b"GET /openclaw/capacity HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert idle.answer()
            slow.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert asked.wait(60)
            stopping = threading.Thread(target=scene.receiver.stop)
            stopping.start()
            try:
                idle.socket.settimeout(60)
                assert idle.is_closed()
                assert stopping.is_alive()
            finally:
                release.set()
            assert slow.recv(12) == b"HTTP/1.1 200"
        stopping.join()


def test_it_can_be_started_again_on_the_same_registry(pki: Pki, tmp_path: Path) -> None:
    settings = receiver_settings(pki, tmp_path)
    with running(pki, settings) as scene:
        node = scene.node()
        node.beat()
    with running(pki, settings) as scene:
        shown = scene.reader().get(f"/openclaw/nodes/{node.node_id}").json()
        assert shown["state"] == "up"
        samples = scene.samples()
        place = 'openclaw_node_environment="test",openclaw_node_region="eu"'
        assert samples[f"openclaw_registry_node_registered_total{{{place}}}"] == 0


@pytest.mark.parametrize("which", ["port", "admin"])
def test_a_port_that_is_taken_is_named(pki: Pki, tmp_path: Path, which: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        settings = receiver_settings(pki, tmp_path)
        if which == "port":
            settings = dataclasses.replace(settings, port=port)
        else:
            settings = dataclasses.replace(settings, admin=AdminSettings(port=port))
        with pytest.raises(UserError, match=rf"{port}.*set receiver(\.admin)?\.port"):
            Receiver(settings).start()


def test_an_address_that_is_none_is_named(pki: Pki, tmp_path: Path) -> None:
    settings = dataclasses.replace(receiver_settings(pki, tmp_path), host="no.such.host.invalid")
    with pytest.raises(UserError, match=r"receiver\.host"):
        Receiver(settings).start()


def test_an_address_of_another_machine_is_named(pki: Pki, tmp_path: Path) -> None:
    settings = dataclasses.replace(receiver_settings(pki, tmp_path), host="192.0.2.1")
    with pytest.raises(UserError, match=r"set receiver\.host to an address of this machine"):
        Receiver(settings).start()


def test_ipv6_loopback(pki: Pki, tmp_path: Path) -> None:
    settings = dataclasses.replace(receiver_settings(pki, tmp_path), host="::1", port=free_port())
    try:
        receiver = Receiver(settings)
        addresses = receiver.start()
    except UserError as error:
        pytest.skip(f"no IPv6 on this machine: {error}")
    receiver.stop()
    assert addresses.api_url == f"https://[::1]:{settings.port}"


UNSAFE: dict[str, tuple[dict[str, Any], str]] = {
    "no CA": ({"tls": {"ca": None}}, "receiver.tls.ca"),
    "no certificate": ({"tls": {"certificate": None}}, "receiver.tls.certificate"),
    "no key": ({"tls": {"key": None}}, "receiver.tls.key"),
    "no trust domain": ({"tls": {"trust_domain": None}}, "receiver.tls.trust_domain"),
    "both ways to name nodes": ({"tls": {"dns_suffix": "fleet.example"}}, "receiver.tls.trust_domain"),
    "no trust domain at all": ({"tls": {"trust_domain": "spiffe://x"}}, "receiver.tls.trust_domain"),
    "no algorithm": ({"tokens": {"algorithms": ()}}, "receiver.tokens.algorithms"),
    "algorithm none": ({"tokens": {"algorithms": ("none",)}}, "receiver.tokens.algorithms"),
    "algorithm HS256": ({"tokens": {"algorithms": ("ES256", "HS256")}}, "receiver.tokens.algorithms"),
    "no issuer": ({"tokens": {"issuers": ()}}, "receiver.tokens.issuers"),
    "one issuer twice": ({"tokens": {"issuers": (ISSUER, ISSUER)}}, "receiver.tokens.issuers[0].issuer"),
    "no audience": (
        {"tokens": {"issuers": (IssuerSettings(issuer="chimera", audience=""),)}},
        "receiver.tokens.issuers[0].audience",
    ),
    "no name": (
        {"tokens": {"issuers": (IssuerSettings(issuer="", audience="a"),)}},
        "receiver.tokens.issuers[0].issuer",
    ),
    "minted for an hour": (
        {"tokens": {"issuers": (IssuerSettings(issuer="c", audience="a", max_life=3600),)}},
        "receiver.tokens.issuers[0].max_life",
    ),
    "no keys": ({"tokens": {"jwks": ""}}, "receiver.tokens.jwks"),
    "keys over plain http": ({"tokens": {"jwks": "http://keys.example/jwks"}}, "receiver.tokens.jwks"),
    "keys behind a password": (
        {"tokens": {"jwks": "https://me:canary@keys.example/jwks"}},
        "receiver.tokens.jwks",
    ),
    "keys behind a password, in capitals": (
        {"tokens": {"jwks": "HTTPS://me:canary@keys.example/jwks"}},
        "receiver.tokens.jwks",
    ),
    "keys behind a user name on loopback": (
        {"tokens": {"jwks": "http://canary@127.0.0.1:1/jwks"}},
        "receiver.tokens.jwks",
    ),
    "keys at no URL": ({"tokens": {"jwks": "https://[::1/jwks"}}, "receiver.tokens.jwks"),
    "keys at no host": ({"tokens": {"jwks": "https:///jwks"}}, "receiver.tokens.jwks"),
    "a node as a proxy": (
        {"proxy": ProxySettings(names=(node_uri(TRUST_DOMAIN, "7f1c9a52-5e0b-4d7c-9f53-0d6a1f1f8f11"),))},
        "receiver.proxy.names[0]",
    ),
    "a reader as a proxy": (
        {"proxy": ProxySettings(names=("proxy.example", reader_uri(TRUST_DOMAIN, "dashboard")))},
        "receiver.proxy.names[1]",
    ),
    "a DNS reader as a proxy": (
        {
            "tls": {"trust_domain": None, "dns_suffix": "fleet.example"},
            "proxy": ProxySettings(names=("Dashboard.reader.fleet.example",)),
        },
        "receiver.proxy.names[0]",
    ),
    "any proxy of a domain": ({"proxy": ProxySettings(names=("*.example",))}, "receiver.proxy.names[0]"),
    "a proxy by its address alone": (
        {"proxy": ProxySettings(addresses=("10.0.0.0/8",))},
        "receiver.proxy.names",
    ),
    "a proxy at no address": (
        {"proxy": ProxySettings(names=("proxy.example",), addresses=("10.0.0.1/8",))},
        "receiver.proxy.addresses[0]",
    ),
    "another store": ({"store": StoreSettings(url="postgres://x")}, "receiver.store.url"),
    "no file": ({"store": StoreSettings(url="sqlite:///")}, "receiver.store.url"),
}


@pytest.mark.parametrize(("changes", "key"), UNSAFE.values(), ids=UNSAFE)
def test_an_unsafe_configuration_does_not_start(
    pki: Pki, tmp_path: Path, changes: dict[str, Any], key: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        Receiver(receiver_settings(pki, tmp_path, **changes)).start()
    assert key in [problem.key for problem in refused.value.problems]
    assert "canary" not in str(refused.value)
    assert not (tmp_path / "registry.sqlite").exists()


def test_a_registry_that_cannot_be_opened_is_named_with_its_key(pki: Pki, tmp_path: Path) -> None:
    file = tmp_path / "missing" / "registry.sqlite"
    with pytest.raises(StateError) as refused:
        Receiver(receiver_settings(pki, tmp_path, store=StoreSettings(url=f"sqlite:///{file}"))).start()
    reason = "the registry cannot be opened: No such file or directory"
    assert str(refused.value) == f"{file}: {reason}; see receiver.store.url"


def test_all_that_is_unsafe_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as refused:
        require_safe(ReceiverSettings())
    assert {problem.key for problem in refused.value.problems} == {
        "receiver.tls.ca",
        "receiver.tls.certificate",
        "receiver.tls.key",
        "receiver.tls.trust_domain",
        "receiver.tokens.algorithms",
        "receiver.tokens.issuers",
    }


def test_every_key_is_documented_and_the_table_can_be_read() -> None:
    assert all(option.description for option in describe(ReceiverSettings))
    table = {
        "port": 0,
        "tls": {"ca": "ca.pem", "trust_domain": "prod"},
        "tokens": {"algorithms": ["EdDSA"], "issuers": [{"issuer": "a", "audience": "b"}]},
    }
    settings = read_table(ReceiverSettings, table, key="receiver")
    assert settings.tokens.issuers[0].profile == "minted"
    with pytest.raises(ConfigError, match=r"receiver\.tokens\.algorithms"):
        read_table(ReceiverSettings, {"tokens": {"algorithms": ["none"]}}, key="receiver")


@pytest.mark.parametrize(
    "table",
    [
        {"min_interval": 61},
        {"max_interval": 59},
        {"max_interval": 3600},
        {"default_interval": 20},
        {"limits": {"keep_alive": 100}},
    ],
)
def test_intervals_that_contradict_each_other(table: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"receiver"):
        read_table(ReceiverSettings, table, key="receiver")
