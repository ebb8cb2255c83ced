"""Requests that are too large, too slow or not quite HTTP: each is answered, read no further, and ended."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import socket
import ssl
import time
from typing import TYPE_CHECKING

import pytest
from receiver.raw import CLOSED, Raw, head
from receiver.scene import receiver_settings, running

from openclaw_exporter.receiver import protocol
from openclaw_exporter.wire.heartbeat import MAX_BODY_BYTES
from support.wait import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from receiver.scene import Node, Running

    from support.pki import Pki


class Meter:
    """Counts what the receiver reads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bytes = 0
        original = protocol.HttpProtocol.data_received

        def counting(http: protocol.HttpProtocol, data: bytes) -> None:
            self.bytes += len(data)
            original(http, data)

        monkeypatch.setattr(protocol.HttpProtocol, "data_received", counting)


@pytest.fixture(scope="module")
def scene(hasty: Running) -> Running:
    """Most tests here are of deadlines."""
    return hasty


@pytest.fixture
def meter(monkeypatch: pytest.MonkeyPatch) -> Meter:
    return Meter(monkeypatch)


def send_until_it_ends(raw: Raw, piece: bytes, limit: int) -> int:
    """Send the same piece again and again, at most to the limit, and return how much was taken."""
    sent = 0
    raw.socket.settimeout(0.5)
    try:
        while sent < limit:
            raw.socket.sendall(piece)
            sent += len(piece)
    except (*CLOSED, TimeoutError, ssl.SSLError):
        pass
    raw.socket.settimeout(60)
    return sent


def test_a_body_of_a_gigabyte_is_refused_before_any_of_it_is_read(
    scene: Running, node: Node, meter: Meter
) -> None:
    with Raw(scene, node.files) as raw:
        request = head(node, "Content-Length: 1000000000")
        raw.send(request)
        answer = raw.answer()
        assert answer is not None
        assert (answer.status, answer.fields["connection"]) == (413, "close")
        assert json.loads(answer.body)["type"].endswith(":body-too-large")
        assert meter.bytes == len(request)
        assert raw.is_closed()


def test_an_endless_body_is_read_no_more_than_4_kib_over_the_limit(
    scene: Running, node: Node, meter: Meter
) -> None:
    with Raw(scene, node.files) as raw:
        request = head(node, "Transfer-Encoding: chunked")
        raw.send(request)
        piece = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
        sent = send_until_it_ends(raw, piece, 1_000_000_000)
        assert sent < 50_000_000
        answer = raw.answer()
    assert answer is not None
    assert answer.status == 413
    assert meter.bytes - len(request) <= MAX_BODY_BYTES + 4096


def test_an_endless_body_with_a_false_length_is_a_new_request_and_no_more(scene: Running, node: Node) -> None:
    with Raw(scene, node.files) as raw:
        raw.send(head(node, "Content-Length: 2"), b"{}" + b"x" * 100)
        first, second = raw.answer(), raw.answer()
        assert first is not None
        assert second is not None
        assert first.status == 422
        assert (second.status, second.fields["connection"]) == (400, "close")
        assert raw.is_closed()


def test_chunks_that_are_mostly_framing_are_refused(scene: Running, node: Node, meter: Meter) -> None:
    request = head(node, "Transfer-Encoding: chunked")
    with Raw(scene, node.files) as raw:
        piece = b"1;" + b"e" * 500 + b"\r\nx\r\n"
        raw.send(request + piece)
        send_until_it_ends(raw, piece * 10, 10_000_000)
        answer = raw.answer()
    assert answer is not None
    assert answer.status == 413
    assert meter.bytes <= len(request) + MAX_BODY_BYTES + 4096


def test_a_body_of_the_limit_is_fine_in_one_piece_or_in_chunks(scene: Running, node: Node) -> None:
    body = json.dumps(node.fields()).encode().ljust(MAX_BODY_BYTES)
    with Raw(scene, node.files) as raw:
        raw.send(head(node, f"Content-Length: {len(body)}"), body)
        answer = raw.answer()
        assert answer is not None
        assert answer.status == 200
        chunks = [b"%x\r\n%s\r\n" % (1024, body[at : at + 1024]) for at in range(0, len(body), 1024)]
        raw.send(head(node, "Transfer-Encoding: chunked"), *chunks, b"0\r\n\r\n")
        answer = raw.answer()
        assert answer is not None
        assert json.loads(answer.body)["result"] == "duplicate"


@pytest.mark.parametrize(("excess", "status"), [(0, 200), (1, 431), (4096, 431)])
def test_a_head_of_the_limit_is_fine_and_no_byte_more_in_one_piece(
    scene: Running, node: Node, excess: int, status: int
) -> None:
    body = json.dumps(node.fields()).encode()
    length = f"Content-Length: {len(body)}"
    filler = 16_384 + excess - len(head(node, length, "X-Filler: "))
    with Raw(scene, node.files) as raw:
        raw.send(head(node, length, "X-Filler: " + "x" * filler) + body)
        answer = raw.answer()
    assert answer is not None
    assert answer.status == status


def test_large_heads_and_bodies_all_at_once(scene: Running, node: Node) -> None:
    requests = []
    for number in range(6):
        body = json.dumps(node.fields()).encode().ljust(MAX_BODY_BYTES - 700 * number)
        filler = "X-Filler: " + "x" * (15_000 - 500 * number)
        if number % 2:
            chunks = [body[at : at + 256] for at in range(0, len(body), 256)]
            framed = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
            requests.append(head(node, filler, "Transfer-Encoding: chunked") + framed)
        else:
            requests.append(head(node, filler, f"Content-Length: {len(body)}") + body)
    with Raw(scene, node.files) as raw:
        raw.send(b"".join(requests))
        answers = [raw.answer() for _ in requests]
    assert [answer and answer.status for answer in answers] == [200] * len(requests)


@pytest.mark.parametrize("line", ["X-Filler: " + "x" * 1000, "x" * 1000 + ": y"])
def test_endless_headers_are_refused(scene: Running, node: Node, meter: Meter, line: str) -> None:
    with Raw(scene, node.files) as raw:
        raw.send(b"POST /openclaw/availability HTTP/1.1\r\nHost: localhost\r\n")
        send_until_it_ends(raw, line.encode() + b"\r\n", 10_000_000)
        answer = raw.answer()
    assert answer is not None
    assert answer.status == 431
    assert meter.bytes <= 16_384 + 2 * 4096


@pytest.mark.parametrize("start", [b"GET /" + b"x" * 100, b"X-One-Header: "])
def test_an_endless_line_is_refused(scene: Running, node: Node, meter: Meter, start: bytes) -> None:
    with Raw(scene, node.files) as raw:
        raw.send(start if start.startswith(b"GET") else b"GET / HTTP/1.1\r\n" + start)
        send_until_it_ends(raw, b"x" * 1000, 10_000_000)
        answer = raw.answer()
    assert answer is not None
    assert answer.status == 431
    assert meter.bytes <= 16_384 + 2 * 4096


def test_endless_empty_lines_between_requests_are_refused(scene: Running, node: Node, meter: Meter) -> None:
    with Raw(scene, node.files) as raw:
        send_until_it_ends(raw, b"\r\n" * 500, 10_000_000)
        answer = raw.answer()
    assert answer is None or answer.status == 431
    assert meter.bytes <= 16_384 + 2 * 4096


def test_slow_headers_are_timed_out(scene: Running, node: Node) -> None:
    with Raw(scene, node.files) as raw:
        raw.send(b"POST /openclaw/availability HTTP/1.1\r\nHo")
        answer = raw.answer()
        assert answer is not None
        assert (answer.status, answer.fields["connection"]) == (408, "close")
        assert raw.is_closed()


def test_a_drop_now_and_then_does_not_prolong_the_headers(scene: Running, node: Node) -> None:
    with Raw(scene, node.files) as raw:
        raw.socket.settimeout(0.1)
        raw.send(b"POST /openclaw/availability HTTP/1.1\r\n")
        drops = 0
        while True:
            try:
                answer = raw.answer()
                break
            except TimeoutError:
                drops += 1
                raw.send(b"X: y\r\n")
        assert answer is not None
        assert answer.status == 408
        assert 2 <= drops <= 30


def test_a_slow_body_is_timed_out(scene: Running, node: Node) -> None:
    with Raw(scene, node.files) as raw:
        raw.send(head(node, "Content-Length: 100"), b"{")
        answer = raw.answer()
        assert answer is not None
        assert answer.status == 408
        assert raw.is_closed()
    # On a kept connection the second request has deadlines of its own.
    with Raw(scene, node.files) as raw:
        body = json.dumps(node.fields()).encode()
        raw.send(head(node, f"Content-Length: {len(body)}"), body)
        assert raw.answer() is not None
        raw.send(head(node, "Content-Length: 100"))
        answer = raw.answer()
        assert answer is not None
        assert answer.status == 408


def test_who_says_nothing_is_let_go(scene: Running, node: Node) -> None:
    with Raw(scene, node.files) as raw:
        assert raw.is_closed()


def test_who_does_not_shake_hands_is_let_go(scene: Running) -> None:
    with socket.create_connection(("127.0.0.1", scene.port), timeout=60) as plain:
        assert plain.recv(1) == b""
    with socket.create_connection(("127.0.0.1", scene.port), timeout=60) as plain:
        plain.sendall(b"\x16\x03\x01\x02\x00\x01")
        assert plain.recv(100) == b""


def test_without_a_certificate_or_with_a_foreign_one_there_is_no_connection(
    scene: Running, pki: Pki, tmp_path: Path
) -> None:
    foreign = type(pki)(tmp_path)
    contexts = [ssl.create_default_context(cafile=str(pki.ca)) for _ in range(2)]
    files = foreign.node("00000000-0000-0000-0000-000000000009")
    contexts[1].load_cert_chain(files.certificate, files.key)
    for context in contexts:
        assert is_turned_away(scene, context)
    contexts[1].load_cert_chain(*dataclasses.astuple(scene.node().files))
    assert not is_turned_away(scene, contexts[1])


def is_turned_away(scene: Running, context: ssl.SSLContext) -> bool:
    """Whether the receiver ends the connection before it answers; in TLS 1.3 the client learns it late."""
    with socket.create_connection(("127.0.0.1", scene.port), timeout=60) as plain:
        try:
            with context.wrap_socket(plain, server_hostname="127.0.0.1") as tls:
                tls.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                return tls.recv(1) == b""
        except (ssl.SSLError, ConnectionError):
            return True


def test_tls_1_1_is_not_offered(scene: Running, node: Node) -> None:
    context = ssl.create_default_context(cafile=str(scene.pki.ca))
    context.load_cert_chain(node.files.certificate, node.files.key)
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection(("127.0.0.1", scene.port), timeout=60) as plain,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        context.wrap_socket(plain, server_hostname="127.0.0.1")


def test_one_connection_too_many_is_told_to_come_back(pki: Pki, tmp_path: Path) -> None:
    with running(pki, receiver_settings(pki, tmp_path, limits={"connections": 2})) as scene:
        node = scene.node()
        with Raw(scene, node.files) as one, Raw(scene, node.files) as two:
            body = json.dumps(node.fields()).encode()
            for raw in (one, two):
                raw.send(head(node, f"Content-Length: {len(body)}"), body)
                answer = raw.answer()
                assert answer is not None
                assert answer.status == 200
            with Raw(scene, node.files) as three:
                answer = three.answer()
                assert answer is not None
                assert answer.status == 503
                assert int(answer.fields["retry-after"]) > 0
                assert three.is_closed()
        wait_until(lambda: node.beat().status_code == 200, what="their places")


def test_nobody_expires_while_connections_are_turned_away(pki: Pki, tmp_path: Path) -> None:
    settings = receiver_settings(pki, tmp_path, min_interval=1, limits={"connections": 2})
    with running(pki, settings) as scene:
        node, reader, other = scene.node(), scene.reader(), scene.node()
        assert node.beat({"OpenClaw-Interval": "6"}).status_code == 200
        path = f"/openclaw/nodes/{node.node_id}"
        # The reader's connection and the node's, given over to another, are all there are.
        node.client.close()
        with Raw(scene, other.files) as held:
            held.send(head(other, "Content-Length: 2"), b"{}")
            assert held.answer() is not None
            assert reader.get(path).json()["state"] == "up"
            with Raw(scene, node.files) as turned_away:
                answer = turned_away.answer()
                assert answer is not None
                assert answer.status == 503
            time.sleep(15)
            assert reader.get(path).json()["state"] != "expired"
        # Once there is room again the node's silence counts.
        wait_until(lambda: reader.get(path).json()["state"] == "expired", what="the expiry")


def test_many_requests_on_one_connection_and_all_at_once(scene: Running, node: Node) -> None:
    bodies = [json.dumps(node.fields()).encode() for _ in range(20)]
    requests = [head(node, f"Content-Length: {len(body)}") + body for body in bodies]
    with Raw(scene, node.files) as raw:
        raw.send(b"".join(requests))
        answers = [raw.answer() for _ in requests]
    assert [answer and json.loads(answer.body)["result"] for answer in answers] == ["recorded"] * 20


def test_expect_continue_is_answered(scene: Running, node: Node) -> None:
    body = json.dumps(node.fields()).encode()
    with Raw(scene, node.files) as raw:
        raw.send(head(node, f"Content-Length: {len(body)}", "Expect: 100-continue"))
        assert raw.socket.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        raw.send(body)
        answer = raw.answer()
    assert answer is not None
    assert answer.status == 200


def test_a_resumed_session_does_not_outlive_the_certificate(calm: Running) -> None:
    ends = time.monotonic() + 12
    node = calm.node(lifetime=dt.timedelta(seconds=12))
    context = ssl.create_default_context(cafile=str(calm.pki.ca))
    context.load_cert_chain(node.files.certificate, node.files.key)
    # In TLS 1.2 the session is there when the handshake is.
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    request = head(node, "Content-Length: 2") + b"{}"

    def ask(session: ssl.SSLSession | None) -> tuple[bytes, ssl.SSLSession | None, bool | None]:
        with (
            socket.create_connection(("127.0.0.1", calm.port), timeout=60) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1", session=session) as tls,
        ):
            tls.sendall(request)
            return tls.recv(12), tls.session, tls.session_reused

    first, session, _ = ask(None)
    assert first == b"HTTP/1.1 422"
    assert ask(session)[::2] == (first, True)
    time.sleep(max(0.0, ends - time.monotonic()) + 0.1)
    assert ask(session)[::2] == (b"HTTP/1.1 403", True)


def test_the_connection_ends_with_its_certificate(scene: Running) -> None:
    node = scene.node(lifetime=dt.timedelta(seconds=8))
    with Raw(scene, node.files) as raw:
        body = json.dumps(node.fields()).encode()
        raw.send(head(node, f"Content-Length: {len(body)}"), body)
        answer = raw.answer()
        assert answer is not None
        assert answer.status == 200
        assert raw.is_closed()
