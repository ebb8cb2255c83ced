"""The one kept connection, and what the network does to it."""

from __future__ import annotations

import datetime as dt
import logging
import socket
import ssl
import threading
import time
import warnings
from typing import TYPE_CHECKING

import pytest
from client.relay import Relay
from client.stub import Answer, StubReceiver
from client.virtual import SkippingClock

from openclaw_exporter.client import Outcome
from openclaw_exporter.client.answers import failure_of, reason_of
from openclaw_exporter.client.courier import MAX_ANSWER_BYTES
from openclaw_exporter.client.exchange import (
    BrokenError,
    ProtocolError,
    ProxyError,
    TimedOutError,
    UnreachableError,
)
from support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable

    from openclaw_exporter.client import ClientSettings, Publisher
    from support.pki import Pki

    Make = Callable[..., Publisher]


@pytest.fixture
def skipping() -> SkippingClock:
    return SkippingClock()


def test_one_connection_serves_all_beats(publish: Make, stub: StubReceiver, skipping: SkippingClock) -> None:
    publisher = publish(endpoint=stub.url, clock=skipping)
    for _ in range(12):
        publisher.tick()
        skipping.skipped += 60
    assert [seen.connection for seen in stub.seen] == [1] * 12


def test_what_is_sent(publish: Make, stub: StubReceiver, node_id: str) -> None:
    publish(endpoint=f"{stub.url}/openclaw/availability").tick()
    (seen,) = stub.seen
    assert seen.target == "/openclaw/availability"
    assert seen.headers["host"] == f"localhost:{stub.port}"
    assert seen.headers["content-type"] == "application/json"
    assert "content-encoding" not in seen.headers
    assert set(seen.headers) >= {"authorization", "openclaw-interval", "openclaw-sequence"}
    assert {"openclaw-replay", "openclaw-state"}.isdisjoint(seen.headers)
    assert node_id.encode() in seen.body


@pytest.mark.parametrize("cut", ["between", "while on its way"])
def test_a_connection_that_the_receiver_closed_is_no_failure(
    cut: str, publish: Make, stub: StubReceiver, skipping: SkippingClock
) -> None:
    publisher = publish(endpoint=stub.url, clock=skipping)
    publisher.tick()
    skipping.skipped += 60
    if cut == "between":
        stub.cut_all()
    else:
        stub.script.append(Answer(manner="hang up"))
    publisher.tick()
    assert publisher.stats.success == 2
    assert publisher.stats.failure == 0
    assert stub.seen[-1].connection == 2
    assert len({seen.headers["openclaw-sequence"] for seen in stub.seen}) == 2


def test_a_fresh_connection_that_breaks_is_a_failure(publish: Make, stub: StubReceiver) -> None:
    stub.default = Answer(manner="hang up")
    publisher = publish(endpoint=stub.url)
    publisher.tick()
    assert publisher.stats.failure == len(stub.seen) == 1
    assert publisher.last_result is not None
    assert publisher.last_result.error_type == "connection"


def test_a_connection_closed_after_each_answer_is_opened_again(
    publish: Make, stub: StubReceiver, skipping: SkippingClock
) -> None:
    stub.default = Answer(manner="close")
    publisher = publish(endpoint=stub.url, clock=skipping)
    for _ in range(5):
        publisher.tick()
        skipping.skipped += 60
    assert publisher.stats.success == 5
    assert publisher.stats.failure == 0


def test_a_black_holed_connection_is_replaced(
    publish: Make, stub: StubReceiver, skipping: SkippingClock
) -> None:
    with Relay(stub.port) as relay:
        publisher = publish(
            endpoint=f"https://localhost:{relay.port}", clock=skipping, timeout=5.0, connect_timeout=20.0
        )
        publisher.tick()
        relay.go_dark()
        skipping.skipped += 60
        began = time.monotonic()
        publisher.tick()
        assert time.monotonic() - began >= 0.4
        assert publisher.last_result is not None
        assert publisher.last_result.error_type == "timeout"
        # The retry, or the next beat, goes out on a new connection.
        skipping.skipped += 60
        publisher.tick()
        assert publisher.last_result.outcome is Outcome.ACCEPTED
        assert relay.connections == 2


def test_a_handshake_into_the_dark_ends(publish: Make, stub: StubReceiver) -> None:
    with Relay(stub.port) as relay:
        relay.dark_for_all = True
        publisher = publish(endpoint=f"https://localhost:{relay.port}", connect_timeout=0.3)
        publisher.tick()
    assert publisher.last_result is not None
    assert publisher.last_result.error_type == "timeout"
    assert publisher.stats.buffered == 1


@pytest.mark.parametrize("manner", ["hang", "drip"])
def test_an_answer_that_never_comes_has_one_deadline(manner: str, publish: Make, stub: StubReceiver) -> None:
    stub.default = Answer(manner=manner, headers={"X-Filler": "x" * 1000})  # type: ignore[arg-type]
    publisher = publish(endpoint=stub.url, timeout=0.4, connect_timeout=2)
    began = time.monotonic()
    publisher.tick()
    assert publisher.last_result is not None
    assert publisher.last_result.error_type == "timeout"
    assert time.monotonic() - began < 30, "each byte had a deadline of its own"


def test_nobody_listens(publish: Make) -> None:
    publisher = publish(endpoint=f"https://localhost:{free_port()}")
    publisher.tick()
    assert publisher.last_result is not None
    assert publisher.last_result.error_type == "connection"


def test_a_name_that_does_not_resolve(publish: Make) -> None:
    publisher = publish(endpoint="https://receiver.invalid:8443")
    publisher.tick()
    assert publisher.last_result is not None
    assert publisher.last_result.error_type == "dns"


def test_something_else_listens(publish: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        publisher = publish(endpoint=f"https://localhost:{port}", connect_timeout=0.3)
        publisher.tick()
    assert publisher.stats.buffered == 1


def test_redirects_are_never_followed(publish: Make, stub: StubReceiver) -> None:
    stub.default = Answer(307, headers={"Location": f"{stub.url}/openclaw/availability"})
    publisher = publish(endpoint=stub.url)
    publisher.tick()
    assert len(stub.seen) == 1
    assert publisher.stats.dropped == 1


def test_an_endless_answer_is_cut_and_its_status_counts(
    publish: Make, stub: StubReceiver, skipping: SkippingClock
) -> None:
    stub.script.append(Answer(200, body=b"x" * (MAX_ANSWER_BYTES * 8)))
    publisher = publish(endpoint=stub.url, clock=skipping)
    publisher.tick()
    assert publisher.stats.success == 1
    skipping.skipped += 60
    publisher.tick()
    assert publisher.stats.success == 2


def test_an_answer_that_breaks_off_after_its_status_counts(publish: Make, stub: StubReceiver) -> None:
    stub.default = Answer(200, headers={"Content-Length": "9999"}, manner="close")
    publisher = publish(endpoint=stub.url)
    publisher.tick()
    assert publisher.stats.success == 1


def test_the_environments_proxies_have_no_effect(
    publish: Make, stub: StubReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(variable, f"http://127.0.0.1:{free_port()}")
    publisher = publish(endpoint=stub.url)
    publisher.tick()
    assert publisher.stats.success == 1


def test_a_configured_proxy_is_used(publish: Make, stub: StubReceiver, skipping: SkippingClock) -> None:
    with Relay(stub.port, proxy=True) as proxy:
        publisher = publish(endpoint=stub.url, proxy=f"http://127.0.0.1:{proxy.port}", clock=skipping)
        publisher.tick()
        skipping.skipped += 60
        publisher.tick()
        assert publisher.stats.success == 2
        assert len(proxy.requests) == 1
        assert proxy.requests[0].startswith(f"CONNECT localhost:{stub.port} ".encode())
        assert b"Bearer" not in proxy.requests[0]
        publisher.stop(draining=False)


@pytest.mark.parametrize("version", ["TLSv1_1", "TLSv1_2", "TLSv1_3"])
def test_tls_is_1_2_or_newer(version: str, publish: Make, stub: StubReceiver) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        stub._context.set_ciphers("DEFAULT:@SECLEVEL=0")
        stub._context.minimum_version = ssl.TLSVersion.TLSv1_1
        stub._context.maximum_version = ssl.TLSVersion[version]
    publisher = publish(endpoint=stub.url)
    publisher.tick()
    assert publisher.last_result is not None
    assert publisher.last_result.error_type == ("tls" if version == "TLSv1_1" else "")


def test_no_secret_and_no_body_reaches_log_or_disk(
    pki: Pki, settings: ClientSettings, publish: Make, stub: StubReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    clock = SkippingClock()
    answers = [Answer(401), Answer(401), Answer(503), Answer(422, body=b'{"detail": "canary"}'), Answer(302)]
    stub.script.extend(answers)
    publisher = publish(endpoint=stub.url, clock=clock)
    for _ in range(6):
        publisher.tick()
        clock.skipped += 60
    publisher.stop()
    assert settings.state_dir is not None
    kept = b"".join(path.read_bytes() for path in settings.state_dir.iterdir())
    key_lines = pki.token_key.read_text().splitlines()[1:-1]
    secrets = [seen.token.rpartition(".")[2] for seen in stub.seen] + key_lines
    for secret in secrets:
        assert secret not in caplog.text
        assert secret.encode() not in kept
    assert "canary" not in caplog.text
    assert "planner" not in caplog.text


def test_name_servers_that_do_not_answer_hold_nothing_up(
    publish: Make, stub: StubReceiver, skipping: SkippingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = threading.Event()
    lookups = []
    real = socket.getaddrinfo

    def slow(*arguments: object, **options: object) -> object:
        if arguments[0] == b"localhost":
            lookups.append(arguments)
            answered.wait(120)
        return real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    publisher = publish(endpoint=stub.url, clock=skipping, connect_timeout=4.0)
    for _ in range(3):
        publisher.tick()
        assert publisher.last_result is not None
        assert publisher.last_result.error_type == "timeout"
        skipping.skipped += 60
    assert len(lookups) == 1
    answered.set()
    publisher.tick()
    assert publisher.last_result.error_type == ""
    assert len(lookups) == 1


def test_an_address_that_drops_everything_leaves_the_others_their_share(
    publish: Make, stub: StubReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A full backlog takes no connection and refuses none.
    with socket.create_server(("127.0.0.9", stub.port), backlog=0) as deaf:
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(deaf.getsockname())
        both = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, stub.port))
            for host in ("127.0.0.9", "127.0.0.1")
        ]
        real = socket.getaddrinfo
        monkeypatch.setattr(
            socket,
            "getaddrinfo",
            lambda host, *rest, **more: both if host == b"localhost" else real(host, *rest, **more),
        )
        publisher = publish(endpoint=stub.url, connect_timeout=12.0)
        publisher.tick()
        for filler in fillers:
            filler.close()
    assert publisher.stats.success == 1


@pytest.mark.parametrize(
    ("host", "error_type"),
    [("a" * 70 + ".example", "dns"), ("127.0.0.1", "connection"), ("[::1]", "connection")],
)
def test_hosts_that_cannot_be_reached(
    host: str, error_type: str, publish: Make, caplog: pytest.LogCaptureFixture
) -> None:
    publisher = publish(endpoint=f"https://{host}:{free_port()}")
    publisher.tick()
    assert publisher.last_result is not None
    assert publisher.last_result.error_type == error_type
    assert f"({error_type}: " in caplog.text


def test_an_expired_certificate_is_named(
    pki: Pki, publish: Make, stub: StubReceiver, node_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    pki.node(node_id, lifetime=dt.timedelta(seconds=-60))
    publisher = publish(endpoint=stub.url)
    publisher.tick()
    assert publisher.last_result is not None
    assert publisher.last_result.error_type == "tls"
    assert "this node's own certificate has expired" in caplog.text


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TimedOutError(), "timeout"),
        (UnreachableError(), "connection"),
        (BrokenError("the connection was closed without an answer"), "connection"),
        (ProtocolError("illegal status line"), "protocol"),
        (ProxyError("403"), "connection"),
        (ssl.SSLCertVerificationError(), "tls"),
        (ssl.SSLEOFError(), "connection"),
        (TimeoutError(), "timeout"),
        (socket.gaierror(), "dns"),
    ],
)
def test_failures_have_names(error: Exception, expected: str) -> None:
    assert failure_of(error) == expected


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", ""),
        (b"[" * 100_000, ""),
        (b'"text"', ""),
        (b'{"type": 7, "errors": {"field": 1}}', ""),
        (b'{"type": "urn:openclaw:problem:token-expired"}', "token-expired"),
        (b'{"type": "urn:openclaw:problem:token\\nforged line"}', ""),
        (b'{"type": "about:blank", "errors": [{"field": "tags[3]"}, {"field": "a b"}, 4]}', "tags[3]"),
    ],
)
def test_only_names_are_taken_from_a_problem(body: bytes, reason: str) -> None:
    assert reason_of(body) == reason
