"""The kept connection against a peer that says exactly what the test wants."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from openclaw_exporter.client.exchange import BrokenError, ProtocolError, ProxyError, Request, TimedOutError
from openclaw_exporter.client.transport import NO_ANSWER, KeptTransport

if TYPE_CHECKING:
    from collections.abc import Iterator

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Peer:
    """Answers each request with the next of its answers, and hangs up where there is none."""

    def __init__(self, *answers: bytes) -> None:
        self._answers = list(answers)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.heads: list[bytes] = []
        self.connections = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(60)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                self.connections += 1
                with client:
                    self._converse(client)

    def _converse(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                head = b""
                while b"\r\n\r\n" not in head:
                    piece = client.recv(65_536)
                    if not piece:
                        return
                    head += piece
                self.heads.append(head)
                if not self._answers:
                    return
                answer = self._answers.pop(0)
                client.sendall(answer)
                if b"Connection: close" in answer:
                    return


@pytest.fixture
def peers() -> Iterator[list[Peer]]:
    """Peers that a test starts; they end with it."""
    started: list[Peer] = []
    yield started
    for peer in started:
        peer.close()


def request(**more: float) -> Request:
    return Request("GET", "/x", {"Host": "peer"}, connect_timeout=60, **({"silence": 60.0} | more))


def asked(transport: KeptTransport) -> tuple[int, bytes]:
    answer = transport.handle_request(request())
    try:
        return answer.status, answer.read()
    finally:
        answer.close()


def test_interim_answers_are_passed_over(peers: list[Peer]) -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    peers.append(peer := Peer(b"HTTP/1.1 100 Continue\r\n\r\n" + early + OK, OK))
    transport = KeptTransport(f"http://127.0.0.1:{peer.port}", None, keep=600)
    assert [asked(transport), asked(transport)] == [(200, b"ok"), (200, b"ok")]
    assert (peer.connections, transport.network.connections) == (1, 1)
    transport.close()


def test_a_switch_of_protocols_is_no_answer_to_go_on_with(peers: list[Peer]) -> None:
    peers.append(peer := Peer(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", OK))
    transport = KeptTransport(f"http://127.0.0.1:{peer.port}", None, keep=600)
    sent = Request("GET", "/x", {"Host": "peer", "Upgrade": "x", "Connection": "upgrade"})
    answer = transport.handle_request(sent)
    assert (answer.status, answer.read()) == (101, b"")
    answer.close()
    assert asked(transport) == (200, b"ok")
    assert peer.connections == 2
    transport.close()


def test_chunks_and_an_answer_that_ends_with_its_connection(peers: list[Peer]) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2;x=y\r\nbc\r\n0\r\n\r\n"
    peers.append(peer := Peer(chunked, b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nrest"))
    transport = KeptTransport(f"http://127.0.0.1:{peer.port}", None, keep=600)
    assert asked(transport) == (200, b"abc")
    assert asked(transport) == (200, b"rest")
    transport.close()


def test_a_body_that_stops_coming_has_a_deadline(peers: list[Peer]) -> None:
    peers.append(peer := Peer(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"))
    transport = KeptTransport(f"http://127.0.0.1:{peer.port}", None, keep=600)
    answer = transport.handle_request(request(silence=0.5))
    with pytest.raises(TimedOutError):
        answer.read()
    answer.close()
    transport.close()


def test_what_comes_behind_an_answer_is_no_answer_to_the_next_request(peers: list[Peer]) -> None:
    peers.append(peer := Peer(OK + OK.replace(b"ok", b"no"), OK))
    transport = KeptTransport(f"http://127.0.0.1:{peer.port}", None, keep=600)
    assert [asked(transport), asked(transport)] == [(200, b"ok"), (200, b"ok")]
    assert len(peer.heads) == peer.connections == 2
    transport.close()


def test_an_idle_connection_has_an_age(peers: list[Peer]) -> None:
    peers.append(peer := Peer(OK, OK))
    transport = KeptTransport(f"http://127.0.0.1:{peer.port}", None, keep=-1.0)
    assert [asked(transport), asked(transport)] == [(200, b"ok"), (200, b"ok")]
    assert transport.network.connections == 2
    transport.close()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", BrokenError),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", ProtocolError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", ProtocolError),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000, ProtocolError),
    ],
)
def test_what_is_no_answer(answer: bytes, error: type[Exception], peers: list[Peer]) -> None:
    peers.append(peer := Peer(*filter(None, [answer])))
    transport = KeptTransport(f"http://127.0.0.1:{peer.port}", None, keep=600)
    with pytest.raises(error):
        asked(transport)
    transport.close()


def test_a_field_that_would_be_two_is_not_sent(peers: list[Peer]) -> None:
    peers.append(peer := Peer(OK))
    transport = KeptTransport(f"http://127.0.0.1:{peer.port}", None, keep=600)
    with pytest.raises(NO_ANSWER):
        transport.handle_request(Request("GET", "/x", {"Host": "peer", "X": "a\r\nY: b"}))
    transport.close()


def test_a_proxy_that_refuses_is_named_by_its_status(peers: list[Peer]) -> None:
    peers.append(proxy := Peer(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"))
    transport = KeptTransport("http://[::1]:1", None, keep=600, proxy=f"http://127.0.0.1:{proxy.port}")
    with pytest.raises(ProxyError, match="403"):
        asked(transport)
    assert proxy.heads[0].startswith(b"CONNECT [::1]:1 HTTP/1.1\r\n")
    transport.close()


def test_an_exchange_that_another_thread_cuts_fails_at_once(peers: list[Peer]) -> None:
    peers.append(peer := Peer())
    deaf = socket.create_server(("127.0.0.1", 0))
    transport = KeptTransport(f"http://127.0.0.1:{deaf.getsockname()[1]}", None, keep=600)

    def cut() -> None:
        asking, _ = deaf.accept()
        with asking:
            asking.recv(1)
            transport.network.abort()

    cutting = threading.Thread(target=cut)
    cutting.start()
    with pytest.raises(BrokenError):
        asked(transport)
    cutting.join()
    assert transport.network.aborted
    transport.close()
    deaf.close()
    assert peer.connections == 0
