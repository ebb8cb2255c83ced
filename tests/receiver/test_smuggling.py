"""Requests that two parsers could read differently: none of them is read at all."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from receiver.raw import Raw, head

if TYPE_CHECKING:
    from receiver.scene import Node, Running

AMBIGUOUS = {
    "both lengths": ["Content-Length: 5", "Transfer-Encoding: chunked"],
    "both lengths, turned round": ["Transfer-Encoding: chunked", "Content-Length: 5"],
    "two lengths": ["Content-Length: 5", "Content-Length: 6"],
    "two equal lengths": ["Content-Length: 5", "Content-Length: 5"],
    "a list of lengths": ["Content-Length: 5, 5"],
    "a signed length": ["Content-Length: +5"],
    "a negative length": ["Content-Length: -5"],
    "a length with a space": ["Content-Length: 5 5"],
    "a hexadecimal length": ["Content-Length: 0x5"],
    "a huge length": ["Content-Length: 99999999999999999999999999"],
    "an empty length": ["Content-Length:"],
    "an unknown coding": ["Transfer-Encoding: xchunked"],
    "identity": ["Transfer-Encoding: identity"],
    "chunked is not last": ["Transfer-Encoding: chunked, identity"],
    "chunked twice": ["Transfer-Encoding: chunked", "Transfer-Encoding: identity"],
    "gzip and chunked": ["Transfer-Encoding: gzip, chunked", "Content-Length: 5"],
    "gzip and chunked without a length": ["Transfer-Encoding: gzip, chunked"],
    "chunked twice in a list": ["Transfer-Encoding: chunked, chunked"],
    "chunked twice in two lines": ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
    "gzip and chunked in two lines": ["Transfer-Encoding: gzip", "Transfer-Encoding: chunked"],
    "chunked with a parameter": ["Transfer-Encoding: chunked;q=1"],
    "a tab in the name": ["Transfer-Encoding\t: chunked"],
    "a space before the colon": ["Content-Length : 5"],
    "a space before the name": [" Content-Length: 5"],
    "a folded line": ["X-Folded: one\r\n two"],
    "a bare line feed": ["X-One: two\nContent-Length: 5"],
    "a bare carriage return": ["X-One: two\rContent-Length: 5"],
    "a zero byte": ["X-One: t\0wo"],
    "no host": ["host:"],
    "two hosts": ["Host: localhost", "Host: elsewhere"],
    "an upgrade": ["Connection: Upgrade", "Upgrade: websocket"],
    "an upgrade to h2c": ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAAA"],
}


@pytest.mark.parametrize("lines", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_an_ambiguous_request_is_refused_and_ends_the_connection(
    scene: Running, node: Node, lines: list[str]
) -> None:
    request = head(node, *lines) if lines != ["host:"] else head(node).replace(b"Host: localhost\r\n", b"")
    hidden = head(node, path="/hidden", method="GET")
    with Raw(scene, node.files) as raw:
        raw.send(request + b"0\r\n\r\n" + hidden)
        answer = raw.answer()
        assert answer is not None
        assert answer.status in (400, 413)
        assert answer.fields["connection"] == "close"
        assert json.loads(answer.body)["type"].rpartition(":")[2] in ("bad-request", "body-too-large")
        assert raw.is_closed()


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET /openclaw/nodes HTTP/0.9",
        b"GET /openclaw/nodes HTTP/2.0",
        b"GET /openclaw/nodes",
        b"G\x00T / HTTP/1.1",
        b"PRI * HTTP/2.0",
        b"CONNECT elsewhere:443 HTTP/1.1",
        b"GET /\xff HTTP/1.1",
        b"\x16\x03\x01",
    ],
)
def test_a_request_line_that_is_none_is_refused(scene: Running, node: Node, request_line: bytes) -> None:
    with Raw(scene, node.files) as raw:
        raw.send(request_line + b"\r\nHost: localhost\r\n\r\n")
        answer = raw.answer()
        assert answer is not None
        assert answer.status == 400
        assert raw.is_closed()


def test_chunked_is_no_coding_of_http_1_0(scene: Running, node: Node) -> None:
    with Raw(scene, node.files) as raw:
        raw.send(head(node, "Transfer-Encoding: chunked").replace(b"HTTP/1.1", b"HTTP/1.0") + b"0\r\n\r\n")
        answer = raw.answer()
        assert answer is not None
        assert answer.status == 400
        assert raw.is_closed()


def test_the_name_of_a_coding_may_be_in_capitals(scene: Running, node: Node) -> None:
    body = json.dumps(node.fields()).encode()
    with Raw(scene, node.files) as raw:
        raw.send(head(node, "Transfer-Encoding: Chunked"), b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
        answer = raw.answer()
    assert answer is not None
    assert answer.status == 200


def test_a_trailer_is_no_header(scene: Running, node: Node) -> None:
    body = json.dumps(node.fields()).encode()
    chunk = b"%x\r\n%s\r\n" % (len(body), body)
    with Raw(scene, node.files) as raw:
        raw.send(
            head(node, "Transfer-Encoding: chunked", "Trailer: OpenClaw-Replay"),
            chunk + b"0\r\nOpenClaw-Replay: 1\r\nAuthorization: Bearer x\r\n\r\n",
        )
        answer = raw.answer()
    assert answer is not None
    assert json.loads(answer.body)["result"] == "recorded"


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("OpenClaw-Replay: 1", 400),
        ("OpenClaw-Sequence: 1.1", 400),
        ("Content-Type: application/json", 400),
        ("Authorization: Bearer x", 401),
    ],
)
def test_a_header_that_may_stand_once_stands_once(scene: Running, node: Node, line: str, status: int) -> None:
    body = json.dumps(node.fields()).encode()
    lines = [f"Content-Length: {len(body)}", line, line]
    if line.startswith("Auth"):
        lines[1] = f"Authorization: Bearer {node.token}"
    with Raw(scene, node.files) as raw:
        raw.send(head(node, *lines), body)
        answer = raw.answer()
    assert answer is not None
    assert answer.status == status
