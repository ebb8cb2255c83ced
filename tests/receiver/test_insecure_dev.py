"""`receiver.insecure_dev`: no certificates and no tokens, on this machine, and for no web page."""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
import pytest
from receiver.scene import heartbeat, problem, receiver_settings, running

from openclaw_exporter.errors import ConfigError
from openclaw_exporter.receiver.embedding import Receiver
from openclaw_exporter.receiver.safety import require_safe
from openclaw_exporter.receiver.settings import AdminSettings, LimitSettings, ReceiverSettings, StoreSettings
from openclaw_exporter.wire.loopback import is_loopback_url
from openclaw_exporter.wire.timestamps import format_ms

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.pki import Pki

AVAILABILITY = "/openclaw/availability"
LOOPBACK = ("127.0.0.1", "127.8.9.10", "::1", "localhost", "LocalHost")
ELSEWHERE = (
    "0.0.0.0",
    "::",
    "",
    "192.0.2.1",
    "127.1",
    "receiver",
    "localhost.example.org",
    "127.0.0.1.nip.io",
)


def open_settings(directory: Path, **changes: Any) -> ReceiverSettings:
    """Return a configuration that has nothing about certificates or tokens."""
    store = StoreSettings(url=f"sqlite:///{directory / 'registry.sqlite'}")
    return ReceiverSettings(insecure_dev=True, port=0, store=store, admin=AdminSettings(port=0), **changes)


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    settings = open_settings(tmp_path_factory.mktemp("open"), limits=LimitSettings(burst=5))
    with Receiver(settings) as started:
        yield started


@pytest.fixture
def client(receiver: Receiver) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=receiver.addresses.api_url, trust_env=False, timeout=60) as opened:
        yield opened


def fields(node_id: str, **changes: Any) -> dict[str, Any]:
    return heartbeat(node_id, time.time_ns() // 1_000_000, **changes)


def post(client: httpx.Client, members: dict[str, Any], **headers: str) -> httpx.Response:
    fields = {"Content-Type": "application/json", **headers}
    return client.post(AVAILABILITY, content=json.dumps(members).encode(), headers=fields)


def test_a_publisher_is_whom_its_heartbeat_names_and_whoever_connects_reads(client: httpx.Client) -> None:
    members = fields(str(uuid4()))
    assert client.base_url.scheme == "http"
    assert post(client, members).json()["result"] == "recorded"
    assert post(client, members).json()["result"] == "duplicate"
    assert problem(post(client, members | {"version": "2"})) == (409, "key-conflict")
    other = fields(str(uuid4()))
    assert post(client, other).status_code == 200
    shown = client.get(f"/openclaw/nodes/{members['node_id']}").json()
    assert (shown["state"], shown["heartbeat"]["version"]) == ("up", "1.2.0")
    listed = {node["node_id"] for node in client.get("/openclaw/nodes").json()["nodes"]}
    assert {members["node_id"], other["node_id"]} <= listed
    history = client.get(f"/openclaw/nodes/{members['node_id']}/history").json()["history"]
    assert history[0]["result"] == "recorded"


@pytest.mark.parametrize("authorization", ["Bearer not.a.token", "Basic dXNlcjpwYXNz", ""])
def test_no_token_is_looked_at(client: httpx.Client, authorization: str) -> None:
    assert post(client, fields(str(uuid4())), Authorization=authorization).status_code == 200


def test_even_two_tokens_are_not_looked_at(client: httpx.Client) -> None:
    headers = [("Content-Type", "application/json"), ("Authorization", "a"), ("Authorization", "b")]
    body = json.dumps(fields(str(uuid4()))).encode()
    assert client.post(AVAILABILITY, content=body, headers=headers).status_code == 200


def test_form_content_and_rate_are_checked_as_ever(client: httpx.Client) -> None:
    node_id = str(uuid4())
    assert problem(post(client, fields("node-1"))) == (422, "invalid-fields")
    encoded = post(client, fields(node_id), **{"Content-Encoding": "gzip"})
    assert problem(encoded) == (415, "content-encoding")
    assert problem(client.post(AVAILABILITY, content=b"{}")) == (415, "media-type")
    assert problem(post(client, fields(node_id, tags=["x" * 20_000]))) == (413, "body-too-large")
    late = format_ms(time.time_ns() // 1_000_000 + 49 * 3_600_000)
    assert problem(post(client, fields(node_id, last_heartbeat=late))) == (422, "heartbeat-ahead")
    answers = [post(client, fields(node_id)) for _ in range(10)]
    assert problem(answers[-1]) == (429, "rate-limited")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8443", "localhost.evil.example", "192.0.2.1", "", "[", "[::2]:1"]
)
def test_a_name_that_was_made_to_lead_here_is_refused(client: httpx.Client, host: str) -> None:
    for answer in (
        post(client, fields(str(uuid4())), Host=host),
        client.get("/openclaw/nodes", headers={"Host": host}),
        client.get("/nowhere", headers={"Host": host}),
    ):
        assert problem(answer) == (421, "misdirected")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1", "[::1]:8443", "LOCALHOST:8443"])
def test_a_name_of_this_machine_is_answered(client: httpx.Client, host: str) -> None:
    assert client.get("/openclaw/nodes", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:8443"])
def test_a_web_page_is_refused(client: httpx.Client, origin: str) -> None:
    node_id = str(uuid4())
    assert problem(post(client, fields(node_id), Origin=origin)) == (403, "origin-refused")
    assert problem(client.get("/openclaw/nodes", headers={"Origin": origin})) == (403, "origin-refused")
    assert client.options(AVAILABILITY, headers={"Origin": origin}).status_code == 403
    assert problem(client.get(f"/openclaw/nodes/{node_id}")) == (404, "node-unknown")


def test_with_certificates_a_request_may_have_any_host_and_origin(pki: Pki, tmp_path: Path) -> None:
    with running(pki, receiver_settings(pki, tmp_path)) as scene:
        headers = {"Host": "registry.example.org", "Origin": "https://dashboard.example.org"}
        assert scene.reader().get("/openclaw/nodes", headers=headers).status_code == 200


@pytest.mark.parametrize("host", ELSEWHERE)
def test_it_refuses_to_listen_where_others_can_connect(tmp_path: Path, host: str) -> None:
    settings = open_settings(tmp_path, host=host)
    with pytest.raises(ConfigError, match=r"receiver\.insecure_dev") as refused:
        Receiver(settings).start()
    assert [problem.key for problem in refused.value.problems] == ["receiver.host"]
    assert not (tmp_path / "registry.sqlite").exists()


@pytest.mark.parametrize("host", LOOPBACK)
def test_every_loopback_address_is_safe(tmp_path: Path, host: str) -> None:
    require_safe(open_settings(tmp_path, host=host))


def test_without_it_everything_is_asked_for(tmp_path: Path) -> None:
    settings = dataclasses.replace(open_settings(tmp_path), insecure_dev=False)
    with pytest.raises(ConfigError) as refused:
        Receiver(settings).start()
    keys = {problem.key for problem in refused.value.problems}
    assert {"receiver.tls.ca", "receiver.tokens.algorithms", "receiver.tokens.issuers"} <= keys


def test_it_overrides_certificates_that_are_configured_and_is_ready(pki: Pki, tmp_path: Path) -> None:
    settings = dataclasses.replace(receiver_settings(pki, tmp_path), insecure_dev=True)
    with Receiver(settings) as receiver:
        assert receiver.addresses.api_url.startswith("http://127.0.0.1:")
        ready = httpx.get(f"{receiver.addresses.admin_url}/readyz", trust_env=False, timeout=60)
        assert (ready.status_code, ready.json()["ready"]) == (200, True)


def test_it_says_so_at_every_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in (1, 2):
        with Receiver(open_settings(tmp_path)):
            pass
        said = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert len(said) == number
        assert "receiver.insecure_dev is on" in said[-1].getMessage()
        assert "this machine only" in said[-1].getMessage()


@pytest.mark.parametrize("host", LOOPBACK)
def test_a_url_of_this_machine(host: str) -> None:
    literal = f"[{host}]" if ":" in host else host
    assert is_loopback_url(f"http://{literal}:8443/path")
    assert not is_loopback_url(f"https://{literal}:8443")


@pytest.mark.parametrize("host", [*ELSEWHERE, "127.0.0.1@evil.example", "["])
def test_a_url_of_another_machine(host: str) -> None:
    literal = f"[{host}]" if ":" in host else host
    assert not is_loopback_url(f"http://{literal}:8443")
