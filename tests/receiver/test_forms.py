"""Heads of a proxy's connection that are known by their bytes are understood as the parser would."""

from __future__ import annotations

import asyncio
import itertools
import json
import ssl
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from receiver.scene import heartbeat, receiver_settings
from uvicorn import Config

from openclaw_exporter.receiver import trust as trust_module
from openclaw_exporter.receiver.clock import SystemClock
from openclaw_exporter.receiver.deny import DenyList
from openclaw_exporter.receiver.forms import Forms
from openclaw_exporter.receiver.hot import HotProtocol, HotState
from openclaw_exporter.receiver.intake import Intake
from openclaw_exporter.receiver.keys import KeyRing
from openclaw_exporter.receiver.liveness import Outcome
from openclaw_exporter.receiver.publishing import Publishing
from openclaw_exporter.receiver.rate import RateLimit
from openclaw_exporter.receiver.settings import LimitSettings
from openclaw_exporter.receiver.shedding import Shedding
from openclaw_exporter.receiver.trust import Trust
from openclaw_exporter.wire.certificates import thumbprint
from openclaw_exporter.wire.client_cert import client_cert
from openclaw_exporter.wire.tokens import Minter, SigningKey
from support.pki import Pki
from support.tls_proxies import TRUSTED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from openclaw_exporter.receiver.liveness import Arrival

FLEET = 3


class Node(NamedTuple):
    """One node: its certificate, two tokens of it, and a heartbeat's body."""

    node_id: str
    certificate: bytes
    token: bytes
    renewed: bytes
    body: bytes


class Edge:
    """What a receiver behind a proxy decides with, and what it has recorded."""

    def __init__(self, directory: Path) -> None:
        self.pki = Pki(directory)
        self.deny = directory / "denied"
        self.deny.write_text("# nobody\n")
        settings = receiver_settings(self.pki, directory, proxy=TRUSTED, tls={"deny_list": self.deny})
        denied = DenyList(self.deny)
        denied.open()
        self.trust = Trust(settings.tls, settings.proxy, denied)
        self.trust.use_authorities(self.pki.ca.read_bytes())
        clock = SystemClock()
        self.keys = KeyRing(settings.tokens, clock)
        asyncio.run(self.keys.open())
        shedding = Shedding(clock, max_lag=1.0, readmissions=1.0)
        intake = Intake(settings, self.keys, RateLimit(1e9, 10**9), clock, shedding)
        self.recorded: list[Arrival] = []
        store: Any = SimpleNamespace(submit=self._submit)
        metrics: Any = SimpleNamespace(
            refused=lambda *_: None, answered=lambda *_: None, received=lambda _: None
        )
        self.publishing = Publishing(intake, store, metrics)
        self.proxy = ssl.PEM_cert_to_DER_cert(self.pki.proxy().certificate.read_text())
        self.nodes = [self._node() for _ in range(FLEET)]

    def _submit(self, arrival: Arrival, done: Callable[[Outcome | None], None]) -> None:
        self.recorded.append(arrival)
        done(Outcome("recorded", 0, 60, None))

    def _node(self) -> Node:
        node_id = str(uuid4())
        der = ssl.PEM_cert_to_DER_cert(self.pki.node(node_id).certificate.read_text())
        key = SigningKey.load(self.pki.token_key.read_bytes(), kid=self.pki.key_id)
        minter = Minter(key, issuer=self.pki.issuer, audience=self.pki.audience)
        now = time.time()
        tokens = [minter.mint(node_id, thumbprint=thumbprint(der), now=now - age).text for age in (0, 60)]
        body = heartbeat(node_id, int(now * 1000))
        first, second = (token.encode() for token in tokens)
        return Node(node_id, client_cert(der).encode(), first, second, json.dumps(body).encode())


class Line:
    """One connection of the proxy, without a network.

    Attributes:
        parsed: How many requests the parser has begun.
        answers: What was answered, and how the connection ended.
    """

    def __init__(self, edge: Edge) -> None:
        self.parsed = 0
        self.answers: list[bytes] = []
        line = self

        class Counting(HotProtocol):
            def on_message_begin(self) -> None:
                line.parsed += 1
                super().on_message_begin()

        class Transport(asyncio.Transport):
            def get_extra_info(self, name: str, default: Any = None) -> Any:
                tls = SimpleNamespace(getpeercert=lambda **_: edge.proxy, version=lambda: "TLSv1.3")
                return {"ssl_object": tls, "peername": ("127.0.0.1", 1)}.get(name, default)

            def write(self, data: Any) -> None:
                line.answers.append(bytes(data))

            def is_closing(self) -> bool:
                return b"closed" in line.answers

            def close(self) -> None:
                line.answers.append(b"closed")

            abort = close

            def pause_reading(self) -> None:
                """Nothing is read that is not given."""

            resume_reading = pause_reading

        async def application(scope: Any, _: Any, answer: Any) -> None:
            line.answers.append(scope["path"].encode())
            await answer({"type": "http.response.start", "status": 204, "headers": []})
            await answer({"type": "http.response.body", "body": b""})

        config = Config(
            application, loop="none", ws="none", lifespan="off", interface="asgi3", log_config=None
        )
        config.load()
        self._state = HotState()
        self._state.date(b"now")
        self._protocol = Counting(
            config,
            self._state,
            limits=LimitSettings(header_bytes=3072),
            trust=edge.trust,
            refused=lambda _slug, _status: None,
            turn_away=lambda: 5,
            publishing=edge.publishing,
        )
        self._protocol.connection_made(Transport())

    async def send(self, piece: bytes) -> str:
        """Send a piece; return the status or slug of what was answered last."""
        self._protocol.data_received(memoryview(piece))
        while self._state.tasks:
            await asyncio.wait(self._state.tasks)
        head, _, body = self.answers[-1].partition(b"\r\n\r\n") if self.answers else (b"", b"", b"")
        if b'"type"' in body:
            return str(json.loads(body)["type"].rpartition(":")[2])
        return head[9:12].decode()

    def close(self) -> None:
        self._protocol.connection_lost(None)


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Edge:
    return Edge(tmp_path_factory.mktemp("edge"))


@pytest.fixture
def own_edge(tmp_path: Path) -> Edge:
    """Return one that the test changes."""
    return Edge(tmp_path)


numbers = itertools.count()


def request(node: Node, **changed: bytes) -> bytes:
    """Return a heartbeat of a node as a proxy sends it, with some parts changed."""
    body = changed.get("body", node.body)
    lines = [
        b"POST /openclaw/availability HTTP/1.1",
        b"Host: localhost",
        b"Client-Cert: " + changed.get("certificate", node.certificate),
        b"Authorization: " + changed.get("authorization", b"Bearer " + node.token),
        b"OpenClaw-Interval: " + changed.get("interval", b"60"),
        b"OpenClaw-Sequence: " + changed.get("sequence", b"1770000000000.%d" % next(numbers)),
        b"Content-Type: application/json",
        b"Content-Length: " + changed.get("length", b"%d" % len(body)),
    ]
    if extra := changed.get("extra"):
        lines.insert(3, extra)
    return changed.get("end", b"\r\n").join([*lines, b"", b""]) + body


def run(edge: Edge, pieces: Iterable[bytes]) -> tuple[list[str], int]:
    """Return what is answered to each piece of one connection, and how many requests the parser began."""
    answers, line = run_whole(edge, pieces)
    return answers, line.parsed


def run_whole(edge: Edge, pieces: Iterable[bytes]) -> tuple[list[str], Line]:
    async def sent() -> tuple[list[str], Line]:
        line = Line(edge)
        answers = [await line.send(piece) for piece in pieces]
        line.close()
        return answers, line

    return asyncio.run(sent())


def test_a_known_node_needs_no_parser(edge: Edge) -> None:
    run(edge, [request(node) for node in edge.nodes])
    edge.recorded.clear()
    answers, parsed = run(edge, [request(node) for node in edge.nodes * 3])
    assert answers == ["200"] * 9
    assert parsed == 1
    assert [arrival.node_id for arrival in edge.recorded] == [node.node_id for node in edge.nodes] * 3
    sequences = [arrival.sequence for arrival in edge.recorded]
    assert sequences == sorted(set(sequences))


def test_a_new_node_and_a_new_token_are_the_parsers_once(own_edge: Edge) -> None:
    one, two, three = own_edge.nodes
    usual = [request(node) for node in (one, two, three, one, two, three)]
    assert run(own_edge, usual) == (["200"] * 6, 3)
    renewed = [request(one, authorization=b"Bearer " + one.renewed) for _ in range(3)]
    assert run(own_edge, [usual[0], *renewed]) == (["200"] * 4, 2)


def test_a_few_kinds_of_heads_have_their_forms(edge: Edge) -> None:
    kinds = [
        {"interval": b"60"},
        {"interval": b"30"},
        {"extra": b"X-Proxy: edge-1"},
        {"interval": b"45"},
    ]
    pieces = [[request(node, **kind) for kind in kinds] for node in edge.nodes]
    edge.recorded.clear()
    answers, parsed = run(edge, [*itertools.chain(*pieces)])
    assert answers == ["200"] * 12
    # The fourth kind finds no room.
    assert parsed == 3 + len(edge.nodes)
    assert [arrival.interval for arrival in edge.recorded] == [60, 30, 60, 45] * 3


def test_what_is_asked_of_certificate_and_token_is_asked_in_the_short_way_too(
    own_edge: Edge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, _ = own_edge.nodes

    def answers(*pieces: bytes) -> list[str]:
        found, parsed = run(own_edge, [request(two), request(two), *pieces])
        assert found[:2] == ["200", "200"]
        assert parsed <= 1 + len(pieces)
        return found[2:]

    assert answers(request(one), request(one)) == ["200", "200"]
    # The certificate of one with what another has.
    assert answers(request(one, authorization=b"Bearer " + two.token)) == ["token-binding"]
    assert answers(request(one, body=two.body)) == ["identity-mismatch"]
    assert answers(request(one, certificate=two.certificate)) == ["token-binding"]
    forged = one.token[:-4] + (b"AAAA" if one.token[-4:] != b"AAAA" else b"BBBB")
    assert answers(request(one, authorization=b"Bearer " + forged)) == ["token-signature"]
    assert answers(request(one)) == ["200"]
    own_edge.deny.write_text(f"{one.node_id}\n")
    assert own_edge.trust.reload()
    assert answers(request(one), request(one)) == ["node-denied"] * 2
    own_edge.deny.write_text("# nobody at all\n")
    assert own_edge.trust.reload()
    assert answers(request(one)) == ["200"]
    # The certificate ends before its token.
    ends = own_edge.trust.forwarded([(b"client-cert", one.certificate)]).identify().not_after
    with monkeypatch.context() as later:
        later.setattr(trust_module, "time", SimpleNamespace(time=lambda: ends + 1))
        found, _ = run(own_edge, [request(one)])
        assert found == ["identity-certificate"]
    # The key of its token goes.
    (tmp_path / "other").mkdir()
    other = Pki(tmp_path / "other")
    own = own_edge.pki.jwks.read_bytes()
    own_edge.pki.jwks.write_bytes(other.jwks.read_bytes())
    assert asyncio.run(own_edge.keys.refresh())
    found, _ = run(own_edge, [request(one), request(two)])
    assert not {"200"} & set(found)
    own_edge.pki.jwks.write_bytes(own + b"\n")
    assert asyncio.run(own_edge.keys.refresh())
    assert answers(request(one)) == ["200"]
    # The authorities go.
    own_edge.trust.use_authorities(other.ca.read_bytes())
    found, _ = run(own_edge, [request(one), request(two)])
    assert found == ["identity-forwarded"] * 2


def test_what_changes_within_a_connection_counts_for_it(
    own_edge: Edge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, _ = own_edge.nodes
    (tmp_path / "other").mkdir()
    other = Pki(tmp_path / "other")
    keys = own_edge.pki.jwks.read_bytes()

    async def changes() -> None:
        line = Line(own_edge)

        async def knows_both() -> None:
            for node in (one, two):
                assert await line.send(request(node)) == "200"
            parsed = line.parsed
            for node in (one, two):
                assert await line.send(request(node)) == "200"
            assert line.parsed == parsed

        await knows_both()
        own_edge.deny.write_text(f"{one.node_id}\n")
        assert own_edge.trust.reload()
        for _ in range(2):
            assert await line.send(request(one)) == "node-denied"
            assert await line.send(request(two)) == "200"
        own_edge.deny.write_text("# nobody at all\n")
        assert own_edge.trust.reload()
        await knows_both()
        own_edge.trust.use_authorities(other.ca.read_bytes())
        assert await line.send(request(one)) == "identity-forwarded"
        own_edge.trust.use_authorities(own_edge.pki.ca.read_bytes())
        await knows_both()
        own_edge.pki.jwks.write_bytes(other.jwks.read_bytes())
        assert await own_edge.keys.refresh()
        assert await line.send(request(one)) == "token-signature"
        own_edge.pki.jwks.write_bytes(keys + b"\n")
        assert await own_edge.keys.refresh()
        await knows_both()
        ends = own_edge.trust.forwarded([(b"client-cert", one.certificate)]).identify().not_after
        with monkeypatch.context() as later:
            later.setattr(trust_module, "time", SimpleNamespace(time=lambda: ends + 1))
            assert await line.send(request(one)) == "identity-certificate"
        await knows_both()
        own_edge.deny.write_text(f"{thumbprint(own_edge.proxy)}\n")
        assert own_edge.trust.reload()
        line._protocol.recheck(own_edge.keys.verifier)
        assert await line.send(request(two)) == "node-denied"
        line.close()

    asyncio.run(changes())


def test_a_head_at_its_limit_is_the_parsers(edge: Edge) -> None:
    node = edge.nodes[0]
    size = len(request(node, sequence=b"1.10", extra=b"X-Filler: ", body=b"")) - 1
    # What is sent as the length of an empty body has one digit, and of the others' three.
    filler = b"X-Filler: " + b"x" * (3072 - size - len(b"%d" % len(node.body)))
    longest = request(node, sequence=b"1.10", extra=filler)
    longer = request(node, sequence=b"1.100", extra=filler)
    assert longest.index(b"\r\n\r\n") + 4 == 3072
    answers, parsed = run(edge, [longest, longest, longest, longer])
    assert answers == ["200", "200", "200", "headers-too-large"]
    assert parsed <= 3


def assert_same(edge: Edge, pieces: list[bytes]) -> None:
    """Check that a connection on which the parser reads everything gives the same answers."""
    run(edge, [request(node) for node in edge.nodes])
    edge.recorded.clear()
    _, short = run_whole(edge, pieces)
    recorded = edge.recorded.copy()
    run(edge, [request(node) for node in edge.nodes])
    edge.recorded.clear()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Forms, "find", lambda *_: None)
        _, parsed = run_whole(edge, pieces)
    assert short.answers == parsed.answers
    assert short.parsed <= parsed.parsed
    assert recorded == edge.recorded


ODD: dict[str, list[bytes]] = {
    "sequence": [
        b"",
        b"1.1 ",
        b" 1.1",
        b"x",
        b"1" * 60,
        b"1.1\r\nExpect: 100-continue",
        b"1.1\nX: y",
        b"1\0.1",
    ],
    "length": [b"", b"1", b"+9", b"9\r\nTransfer-Encoding: chunked", b"9\r\nOpenClaw-Sequence: 1.2"],
    "interval": [b"30", b"0", b"60 ", b"60\r\nOpenClaw-Replay: 1", b"60\r\nOpenClaw-State: draining"],
    "extra": [
        b"X-Proxy: a",
        b"Connection: close",
        b"Expect: 100-continue",
        b"Client-Cert: :AAAA:",
        b"A b: c",
    ],
    "end": [b"\n", b"\r\n", b"\r\n "],
    "body": [b"", b"{}", b"x" * 9, b"POST / HTTP/1.1\r\n\r\n"],
}


AROUND = [b" ", b"\t", b"\0", b"\n", b"\x7f", b":"]


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in ODD for value in ODD[name]])
def test_values_out_of_the_ordinary_are_understood_as_ever(edge: Edge, name: str, value: bytes) -> None:
    node = edge.nodes[0]
    assert_same(edge, [request(node), request(node, **{name: value}), request(edge.nodes[1])])


@pytest.mark.parametrize("byte", AROUND)
def test_a_known_certificate_or_token_with_a_byte_more_is_the_parsers(edge: Edge, byte: bytes) -> None:
    node = edge.nodes[0]
    for name, value in (("certificate", node.certificate), ("authorization", b"Bearer " + node.token)):
        for changed in (byte + value, value + byte, value[:9] + byte + value[9:]):
            assert_same(edge, [request(node), request(node, **{name: changed}), request(edge.nodes[1])])


@st.composite
def requests(draw: st.DrawFn) -> Callable[[list[Node]], bytes]:
    """One request of a node of some fleet, as a rule a usual one."""
    who, other = (draw(st.integers(0, FLEET - 1)) for _ in range(2))
    if draw(st.integers(0, 2)):
        return lambda nodes: request(nodes[who])
    changed = {name: draw(st.sampled_from(ODD[name])) for name in draw(st.sets(st.sampled_from(list(ODD))))}
    spoilt = draw(st.sampled_from(["certificate", "authorization", ""]))
    before, after = (
        draw(st.sampled_from([b"", b"", b" ", b"\t", b"\0", b"\n", b"\x7f", b":"])) for _ in "ab"
    )
    renewed = draw(st.booleans())

    def made(nodes: list[Node]) -> bytes:
        node = nodes[other]
        token = node.renewed if renewed else node.token
        values = {"certificate": node.certificate, "authorization": b"Bearer " + token, "": b""}
        changes = changed | ({spoilt: before + values[spoilt] + after} if spoilt else {})
        return request(nodes[who], **changes)

    return made


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(requests(), st.one_of(st.just(0.0), st.just(0.0), st.floats(0, 1)), st.integers(0, 5)),
        min_size=2,
        max_size=7,
    )
)
def test_it_is_all_the_same_with_and_without(
    edge: Edge, made: list[tuple[Callable[[list[Node]], bytes], float, int]]
) -> None:
    pieces: list[bytes] = []
    for make, where, joined in made:
        each = make(edge.nodes)
        cut = int(where * len(each))
        if pieces and not joined:
            pieces[-1] += each
        else:
            pieces += [piece for piece in (each[:cut], each[cut:]) if piece]
    assert_same(edge, pieces)
