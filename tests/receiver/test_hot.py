"""The hot route answers what the application answers, and leaves it what is out of the ordinary."""

from __future__ import annotations

import json
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest
from receiver.raw import Raw, head
from receiver.scene import receiver_settings, running

from openclaw_exporter.receiver import server
from openclaw_exporter.receiver.application import Application
from openclaw_exporter.receiver.hot import HotProtocol
from openclaw_exporter.receiver.publishing import Publishing
from openclaw_exporter.receiver.store.embedded import EmbeddedStore
from openclaw_exporter.wire.timestamps import parse_ms
from support.wait import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from receiver.scene import Node, Running

    from openclaw_exporter.receiver.liveness import Outcome
    from support.pki import Pki


class Asgi:
    """Counts the requests that the application was given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.requests = 0
        original = Application.__call__

        async def counting(application: Application, scope: Any, receive: Any, send: Any) -> None:
            self.requests += 1
            await original(application, scope, receive, send)

        monkeypatch.setattr(Application, "__call__", counting)


@pytest.fixture
def asgi(monkeypatch: pytest.MonkeyPatch) -> Asgi:
    return Asgi(monkeypatch)


def whole(node: Node, *lines: str, **changes: Any) -> bytes:
    """Return a heartbeat's request."""
    body = json.dumps(node.fields(**changes)).encode()
    return head(node, f"Content-Length: {len(body)}", *lines) + body


REQUESTS = {
    "recorded": ({}, {}),
    "replay": ({"OpenClaw-Replay": "1"}, {}),
    "draining": ({"OpenClaw-State": "draining"}, {}),
    "interval": ({"OpenClaw-Interval": "90"}, {}),
    "no-token": ({"Authorization": ""}, {}),
    "scheme": ({"Authorization": "Basic x"}, {}),
    "garbled-token": ({"Authorization": "Bearer x.y.z"}, {}),
    "encoded": ({"Content-Encoding": "gzip"}, {}),
    "media-type": ({"Content-Type": "text/plain"}, {}),
    "fields": ({}, {"queue_depth": {"a": -1}}),
    "another-node": ({}, {"node_id": "0f8fad5b-d9cb-469f-a165-70867728950e"}),
    "wrong-headers": ({"OpenClaw-Interval": "0", "OpenClaw-Sequence": "x", "OpenClaw-Replay": "2"}, {}),
    "far-ahead": ({}, {"last_heartbeat": "2999-01-01T00:00:00Z"}),
}


@pytest.mark.parametrize("case", REQUESTS)
def test_both_ways_give_the_same_answer(scene: Running, asgi: Asgi, case: str) -> None:
    headers, changes = REQUESTS[case]
    hot = scene.node().beat(headers, **changes)
    assert asgi.requests == 0
    ordinary = scene.node().beat(headers | {"Connection": "close"}, **changes)
    assert asgi.requests == 1
    assert hot.status_code == ordinary.status_code
    fields = [dict(answer.headers) for answer in (hot, ordinary)]
    assert fields[1].pop("connection") == "close"
    for answer in fields:
        answer.pop("date")
    assert fields[0].keys() == fields[1].keys()
    bodies = [answer.json() for answer in (hot, ordinary)]
    if hot.status_code == 200:
        times = [parse_ms(body.pop("expires_at")) for body in bodies]
        assert abs(times[0] - times[1]) < 60_000
    else:
        # The length of a body with a time depends on its milliseconds.
        assert fields[0] == fields[1]
    assert bodies[0] == bodies[1]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"[" * 70, b'{"a": 1' + b"0" * 400 + b"}"])
def test_both_ways_refuse_the_same_bodies(scene: Running, node: Node, body: bytes) -> None:
    hot = node.post(body)
    ordinary = node.post(body, {"Connection": "close"})
    assert (hot.status_code, hot.json()) == (ordinary.status_code, ordinary.json())
    assert hot.status_code in (400, 422)


def test_a_duplicate_and_a_conflict_are_known_on_both_ways(scene: Running, node: Node) -> None:
    fields = node.fields()
    first, other = json.dumps(fields).encode(), json.dumps(fields | {"version": "9"}).encode()
    assert node.post(first).json()["result"] == "recorded"
    assert node.post(first, {"Connection": "close"}).json()["result"] == "duplicate"
    assert node.post(first).json()["result"] == "duplicate"
    assert node.post(other).status_code == 409
    assert node.post(other, {"Connection": "close"}).status_code == 409


def test_pipelined_heartbeats_are_answered_in_order(scene: Running, node: Node) -> None:
    with Raw(scene, node.files) as raw:
        raw.send(b"".join(whole(node, f"OpenClaw-Interval: {40 + number}") for number in range(8)))
        answers = [raw.answer() for _ in range(8)]
        intervals = [json.loads(answer.body)["interval_seconds"] for answer in answers if answer]
        assert intervals == [40 + number for number in range(8)]
        # And the connection is as good as new.
        raw.send(whole(node))
        again = raw.answer()
        assert again is not None
        assert again.status == 200


def test_a_body_in_pieces_and_in_chunks_is_one_body(scene: Running, node: Node, asgi: Asgi) -> None:
    body = json.dumps(node.fields()).encode()
    with Raw(scene, node.files) as raw:
        raw.send(head(node, f"Content-Length: {len(body)}"), body[:10], body[10:11], body[11:])
        first = raw.answer()
        pieces = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
        raw.send(head(node, "Transfer-Encoding: chunked"), pieces + b"0\r\n\r\n")
        second = raw.answer()
    assert first is not None
    assert second is not None
    assert json.loads(first.body)["result"] == "recorded"
    assert json.loads(second.body)["result"] == "duplicate"
    assert asgi.requests == 0


def test_what_expects_100_continue_goes_the_ordinary_way(scene: Running, node: Node, asgi: Asgi) -> None:
    body = json.dumps(node.fields()).encode()
    with Raw(scene, node.files) as raw:
        raw.send(head(node, f"Content-Length: {len(body)}", "Expect: 100-continue"))
        assert raw.socket.recv(100).startswith(b"HTTP/1.1 100 ")
        raw.send(body)
        answer = raw.answer()
    assert answer is not None
    assert answer.status == 200
    assert asgi.requests == 1


def test_a_token_of_an_unknown_key_goes_the_ordinary_way(scene: Running, node: Node, asgi: Asgi) -> None:
    node.token = node.mint(kid="another")
    assert node.beat().status_code == 401
    assert asgi.requests == 1
    node.token = node.mint()
    assert node.beat().status_code == 200
    assert asgi.requests == 1


def test_a_lost_store_is_503(scene: Running, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EmbeddedStore, "submit", lambda _self, _arrival, done: done(None))
    for headers in ({}, {"Connection": "close"}):
        answer = node.beat(headers)
        assert answer.status_code == 503
        assert answer.json()["type"].endswith(":store-unavailable")
        assert answer.headers["retry-after"]


def test_a_fault_of_our_own_in_an_answer_is_500(
    scene: Running, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_self: Publishing, _outcome: Outcome) -> bytes:
        raise ZeroDivisionError

    monkeypatch.setattr(Publishing, "answer", failing)
    assert node.beat().status_code == 500
    assert node.beat({"Connection": "close"}).status_code == 500


class Held:
    """Keeps arrivals back until it is released."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[Any] = []
        original = EmbeddedStore.submit

        def holding(store: EmbeddedStore, arrival: Any, done: Any) -> None:
            self.calls.append(lambda: original(store, arrival, done))

        monkeypatch.setattr(EmbeddedStore, "submit", holding)

    def release(self, scene: Running) -> None:
        loop = scene.receiver._loop
        assert loop is not None
        for call in self.calls:
            loop.call_soon_threadsafe(call)
        self.calls.clear()


def test_a_client_that_is_gone_is_recorded_all_the_same(
    scene: Running, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(monkeypatch)
    with Raw(scene, node.files) as raw:
        raw.send(whole(node))
        wait_until(lambda: held.calls, what="the arrival")
    held.release(scene)
    with scene.reader() as reader:
        wait_until(
            lambda: reader.get(f"/openclaw/nodes/{node.node_id}").status_code == 200,
            what="the node",
        )


def test_a_request_behind_one_that_waits_waits_too(
    scene: Running, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(monkeypatch)
    with Raw(scene, node.files) as raw:
        raw.send(whole(node), b"GET /openclaw/nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_until(lambda: held.calls, what="the arrival")
        held.release(scene)
        first, second = raw.answer(), raw.answer()
    assert first is not None
    assert second is not None
    assert (first.status, second.status) == (200, 404)


def test_a_receiver_that_stops_answers_what_it_has_taken_and_then_closes(
    pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "STOP_SECONDS", 60.0)
    with running(pki, receiver_settings(pki, tmp_path)) as scene:
        held = Held(monkeypatch)
        node = scene.node()
        with Raw(scene, node.files) as raw:
            raw.send(whole(node))
            wait_until(lambda: held.calls, what="the arrival")
            stopping = threading.Thread(target=scene.receiver.stop)
            stopping.start()
            wait_until(lambda: not is_open(scene.port), what="the end of listening")
            held.release(scene)
            answer = raw.answer()
            assert answer is not None
            assert (answer.status, answer.fields["connection"]) == (200, "close")
            assert raw.is_closed()
        stopping.join(60)


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_an_idle_connection_ends_and_a_busy_one_does_not(
    pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"min_interval": 1, "default_interval": 1, "max_interval": 1, "limits": {"keep_alive": 6.0}}
    with running(pki, receiver_settings(pki, tmp_path, **changes)) as scene:
        node = scene.node()
        with Raw(scene, node.files) as raw:
            raw.send(whole(node))
            assert raw.answer() is not None
            held = Held(monkeypatch)
            raw.send(whole(node))
            # The timer that the first answer has set comes while the second request is under way.
            threading.Event().wait(7)
            held.release(scene)
            answer = raw.answer()
            assert answer is not None
            assert answer.status == 200
            raw.socket.settimeout(60)
            assert raw.is_closed()


def test_a_client_that_reads_no_answers_goes_the_ordinary_way(
    scene: Running, node: Node, asgi: Asgi, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = HotProtocol._begin

    def paused(protocol: HotProtocol) -> None:
        protocol.flow.write_paused = True
        try:
            original(protocol)
        finally:
            protocol.flow.write_paused = False

    monkeypatch.setattr(HotProtocol, "_begin", paused)
    assert node.beat().status_code == 200
    assert asgi.requests == 1
