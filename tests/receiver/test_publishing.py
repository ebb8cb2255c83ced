"""POST /openclaw/availability over real mutual TLS: every result, and every refusal."""

from __future__ import annotations

import gzip
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from receiver.scene import AVAILABILITY, problem, receiver_settings, running

from openclaw_exporter.wire.timestamps import format_ms, parse_ms
from support.wait import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from receiver.scene import Node, Running

    from support.pki import Pki


def test_a_heartbeat_is_recorded_and_read_back(scene: Running, node: Node) -> None:
    members = node.fields(uptime_seconds=7, unknown={"is": "dropped"})
    answer = node.post(json.dumps(members).encode(), {"OpenClaw-Interval": "45", "OpenClaw-Sequence": "7.0"})
    assert answer.status_code == 200
    body = answer.json()
    assert (body["result"], body["interval_seconds"]) == ("recorded", 45)
    assert abs(parse_ms(body["expires_at"]) - (time.time() + 90) * 1000) < 5000
    shown = scene.reader().get(f"/openclaw/nodes/{node.node_id}").json()
    del members["unknown"]
    assert shown["heartbeat"] == members
    assert (shown["state"], shown["interval_seconds"]) == ("up", 45)
    # Both are the listening time that is left, added to the wall clock.
    assert abs(parse_ms(shown["expires_at"]) - parse_ms(body["expires_at"])) < 1000
    assert shown["first_seen"] == shown["last_seen"]
    assert abs(shown["clock_skew_seconds"]) < 5


def test_the_three_results_and_the_history_of_them(scene: Running, node: Node) -> None:
    body = json.dumps(node.fields()).encode()
    answers = [node.post(body, {"OpenClaw-Sequence": "9.4"}) for _ in range(2)]
    answers.append(node.beat({"OpenClaw-Sequence": "9.3", "OpenClaw-Replay": "1"}))
    assert [answer.json()["result"] for answer in answers] == ["recorded", "duplicate", "history"]
    history = scene.reader().get(f"/openclaw/nodes/{node.node_id}/history").json()
    assert history["node_id"] == node.node_id
    entries = [(entry["result"], entry["sequence"]) for entry in history["history"]]
    assert entries == [("recorded", "9.4"), ("history", "9.3")]
    assert history["history"][0]["last_heartbeat"] == json.loads(body)["last_heartbeat"]


def test_the_answers_have_a_date_and_no_server(node: Node) -> None:
    answer = node.beat()
    assert "date" in answer.headers
    assert "server" not in answer.headers
    assert answer.headers["content-type"] == "application/json"


def test_a_short_interval_is_answered_with_the_shortest(node: Node) -> None:
    assert node.beat({"OpenClaw-Interval": "5"}).json()["interval_seconds"] == 30


def test_draining_is_shown(scene: Running, node: Node) -> None:
    node.beat({"OpenClaw-State": "draining"})
    assert scene.reader().get(f"/openclaw/nodes/{node.node_id}").json()["state"] == "draining"


def test_the_same_key_with_another_body_is_a_conflict(node: Node) -> None:
    members = node.fields()
    node.post(json.dumps(members).encode(), {"OpenClaw-Sequence": "12.0"})
    answer = node.post(json.dumps(members | {"version": "2"}).encode(), {"OpenClaw-Sequence": "12.1"})
    assert problem(answer) == (409, "key-conflict")
    assert answer.json()["epoch"] == 12


def test_an_older_epoch_is_a_conflict_that_names_the_newer(node: Node) -> None:
    node.beat({"OpenClaw-Sequence": "1000.0"})
    answer = node.beat({"OpenClaw-Sequence": "999.5"})
    assert problem(answer) == (409, "epoch-conflict")
    assert answer.json()["epoch"] == 1000
    assert node.beat({"OpenClaw-Sequence": "1001.0"}).json()["result"] == "recorded"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Content-Type": "text/plain"}, (415, "media-type")),
        ({"Content-Type": "application/json; charset=latin-1"}, (415, "media-type")),
        ({"Content-Type": ""}, (415, "media-type")),
        ({"Content-Encoding": "br"}, (415, "content-encoding")),
        ({"Content-Encoding": "identity"}, (415, "content-encoding")),
        ({"Authorization": "Basic abc"}, (401, "token-missing")),
        ({"Authorization": "Bearer"}, (401, "token-missing")),
        ({"Authorization": "Bearer not-a-token"}, (401, "token-malformed")),
        ({"Authorization": "Bearer " + "a" * 5000}, (401, "token-too-large")),
        ({"OpenClaw-Interval": "121"}, (422, "invalid-fields")),
        ({"OpenClaw-Interval": "1e2"}, (422, "invalid-fields")),
        ({"OpenClaw-Sequence": "1"}, (422, "invalid-fields")),
        ({"OpenClaw-Replay": "yes"}, (422, "invalid-fields")),
        ({"OpenClaw-State": "up"}, (422, "invalid-fields")),
        ({"OpenClaw-Sequence": f"{2**52}.0"}, (422, "epoch-ahead")),
    ],
)
def test_headers_that_break_a_rule(node: Node, headers: dict[str, str], expected: tuple[int, str]) -> None:
    answer = node.beat(headers)
    assert problem(answer) == expected
    for name in headers:
        if expected[1] == "invalid-fields":
            assert [entry["field"] for entry in answer.json()["errors"]] == [name]


@pytest.mark.parametrize(
    "media_type", ["application/json; charset=utf-8", 'Application/JSON;charset="UTF-8"']
)
def test_media_types_that_are_fine(node: Node, media_type: str) -> None:
    assert node.beat({"Content-Type": media_type}).status_code == 200


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", (400, "malformed-json")),
        (b"{", (400, "malformed-json")),
        (b"\xff", (400, "malformed-json")),
        (b'{"a": NaN}', (400, "malformed-json")),
        (b"[]", (422, "invalid-fields")),
        (b"{}", (422, "invalid-fields")),
        (gzip.compress(b"{}", mtime=0), (400, "malformed-json")),
    ],
)
def test_bodies_that_are_no_heartbeat(node: Node, body: bytes, expected: tuple[int, str]) -> None:
    assert problem(node.post(body)) == expected


def test_every_wrong_field_is_named(node: Node) -> None:
    answer = node.beat(version="", queue_depth={"planner": -1}, hostname="-")
    assert problem(answer) == (422, "invalid-fields")
    fields = {entry["field"].partition(".")[0] for entry in answer.json()["errors"]}
    assert fields == {"version", "queue_depth", "hostname"}


def test_a_clock_far_ahead_is_refused_and_one_far_behind_is_not(node: Node) -> None:
    ahead_ms = int((time.time() + 48 * 3600 + 60) * 1000)
    assert problem(node.beat(last_heartbeat=format_ms(ahead_ms))) == (422, "heartbeat-ahead")
    assert node.beat(last_heartbeat=format_ms(ahead_ms - 120_000)).status_code == 200
    assert node.beat(last_heartbeat="2001-09-09T01:46:40Z").status_code == 200


@pytest.mark.parametrize(
    ("claims", "slug"),
    [
        ({"audience": "another"}, "token-audience"),
        ({"issuer": "another"}, "token-issuer"),
        ({"now": 1_000_000.0}, "token-expired"),
        ({"thumbprint": "A" * 43}, "token-binding"),
        ({"kid": "another"}, "token-key-unknown"),
        ({"lifetime": 3600}, "token-lifetime"),
    ],
)
def test_tokens_that_do_not_count(node: Node, claims: dict[str, Any], slug: str) -> None:
    node.token = node.mint(**claims)
    answer = node.beat()
    assert problem(answer) == (401, slug)
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert node.token not in answer.text


def test_a_missing_token_is_told_no_error_code(node: Node) -> None:
    answer = node.client.post(AVAILABILITY, content=b"{}", headers={"Content-Type": "application/json"})
    assert problem(answer) == (401, "token-missing")
    assert answer.headers["www-authenticate"] == 'Bearer realm="openclaw"'


def test_certificate_token_and_heartbeat_must_name_one_node(scene: Running, node: Node) -> None:
    other = scene.node()
    assert problem(node.beat(node_id=other.node_id)) == (403, "identity-mismatch")
    node.token = node.mint(subject=other.node_id)
    assert problem(node.beat()) == (403, "identity-mismatch")
    # A token that was verified on this connection does not count on another.
    assert other.beat().status_code == 200
    node.token = other.token
    assert problem(node.beat()) == (401, "token-binding")


def test_a_reader_never_publishes_and_a_node_never_reads(scene: Running, node: Node) -> None:
    answer = scene.reader().post(AVAILABILITY, content=b"{}", headers=node.headers)
    assert problem(answer) == (403, "role-not-allowed")
    for path in (
        "/openclaw/nodes",
        f"/openclaw/nodes/{node.node_id}",
        f"/openclaw/nodes/{node.node_id}/history",
    ):
        assert problem(node.client.get(path)) == (403, "role-not-allowed")


def test_a_certificate_that_names_nobody_is_refused(scene: Running) -> None:
    pki = scene.pki
    issued = pki.authority.client(["spiffe://elsewhere/chimera/node/00000000-0000-0000-0000-000000000001"])
    files = pki._write("stranger", issued)
    answer = scene.client(files).get("/openclaw/nodes")
    assert problem(answer) == (403, "identity-name")


def test_paths_and_methods(scene: Running, node: Node) -> None:
    reader = scene.reader()
    for path in ("/", "/openclaw", "/openclaw/nodes/", "/openclaw/nodes/a/b", "/healthz", "/metrics"):
        assert problem(reader.get(path)) == (404, "not-found")
    for method, path, allow in (
        ("GET", AVAILABILITY, "POST"),
        ("PUT", AVAILABILITY, "POST"),
        ("POST", "/openclaw/nodes", "GET, HEAD"),
        ("DELETE", f"/openclaw/nodes/{node.node_id}", "GET, HEAD"),
    ):
        answer = reader.request(method, path)
        assert problem(answer) == (405, "method-not-allowed")
        assert answer.headers["allow"] == allow
    answer = reader.head("/openclaw/nodes")
    assert (answer.status_code, answer.content) == (200, b"")


def test_a_node_that_publishes_too_often_is_told_when_to_come_back(pki: Pki, tmp_path: Path) -> None:
    settings = receiver_settings(pki, tmp_path, limits={"rate": 0.5, "burst": 3})
    with running(pki, settings) as scene:
        node, other = scene.node(), scene.node()
        assert [node.beat().status_code for _ in range(3)] == [200] * 3
        answer = node.beat()
        assert problem(answer) == (429, "rate-limited")
        assert answer.headers["retry-after"] in ("1", "2")
        assert other.beat().status_code == 200


@pytest.mark.parametrize("body", [b"{", b"{}"])
def test_what_is_refused_counts_as_published(pki: Pki, tmp_path: Path, body: bytes) -> None:
    with running(pki, receiver_settings(pki, tmp_path, limits={"rate": 0.5, "burst": 3})) as scene:
        node, other = scene.node(), scene.node()
        # Another's name in the body is charged to the sender.
        assert problem(node.beat(node_id=other.node_id)) == (403, "identity-mismatch")
        assert [node.post(body).status_code in (400, 422) for _ in range(2)] == [True, True]
        assert problem(node.post(body)) == (429, "rate-limited")
        assert problem(node.beat()) == (429, "rate-limited")
        assert other.beat().status_code == 200


def test_counts_of_what_arrived(pki: Pki, tmp_path: Path) -> None:
    with running(pki, receiver_settings(pki, tmp_path)) as scene:
        before = scene.samples()
        received = 'openclaw_registry_heartbeat_received_total{openclaw_result="%s"}'
        assert [before[received % kind] for kind in ("recorded", "duplicate", "history")] == [0, 0, 0]
        refused = 'openclaw_registry_heartbeat_refused_total{error_type="%s",http_response_status_code="%s"}'
        assert before[refused % ("body-too-large", 413)] == 0
        node = scene.node()
        body = json.dumps(node.fields(tags=["region:eu", "env:prod", "gpu:true"])).encode()
        node.post(body)
        node.post(body)
        node.beat({"OpenClaw-Replay": "1"})
        node.post(b"x" * 20_000)
        node.post(b"{")
        place = 'openclaw_node_environment="prod",openclaw_node_region="eu"'
        count = f'openclaw_registry_node_count{{{place},openclaw_node_state="up"}}'
        after = wait_until(
            lambda: (found := scene.samples()) and found.get(count) == 1 and found, what="a new census"
        )
        assert [after[received % kind] for kind in ("recorded", "duplicate", "history")] == [1, 1, 1]
        assert after[refused % ("body-too-large", 413)] == 1
        assert after[refused % ("malformed-json", 400)] == 1
        assert after[f"openclaw_registry_node_registered_total{{{place}}}"] == 1
        assert after[f"openclaw_registry_node_expired_total{{{place}}}"] == 0
        assert (
            after['openclaw_registry_capacity{openclaw_node_region="eu",openclaw_resource="workers"}'] == 24
        )
        version = (
            'openclaw_registry_node_version_count{openclaw_node_gpu="true",openclaw_node_version="1.2.0"}'
        )
        assert after[version] == 1
        depth = (
            'openclaw_registry_queue_depth{messaging_destination_name="planner",openclaw_node_region="eu"}'
        )
        assert after[depth] == 3
        assert after['openclaw_registry_node_silence_seconds{openclaw_node_region="eu"}'] < 60
        assert after["openclaw_registry_expiry_held"] == 0
