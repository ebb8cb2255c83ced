"""A head that is known by its bytes is understood as the parser would understand it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uvicorn import Config

from openclaw_exporter.receiver.heads import Stencil
from openclaw_exporter.receiver.hot import HotProtocol, HotState
from openclaw_exporter.receiver.liveness import Outcome
from openclaw_exporter.receiver.settings import LimitSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from openclaw_exporter.receiver.connection import Connection
    from openclaw_exporter.receiver.heads import Head

LINES = [
    b"Host: localhost",
    b"Authorization: Bearer " + b"x" * 300,
    b"OpenClaw-Sequence: 17.1",
    b"Content-Length: 9",
]


def request(*lines: bytes, body: bytes = b'{"a": 12}', end: bytes = b"\r\n") -> bytes:
    return end.join([b"POST /openclaw/availability HTTP/1.1", *lines, b"", b""]) + body


def with_values(length: bytes, sequence: bytes, *, body: bytes = b'{"a": 12}') -> bytes:
    lines = [*LINES[:2], b"OpenClaw-Sequence: " + sequence, b"Content-Length: " + length]
    return request(*lines, body=body)


class Seen(NamedTuple):
    """What became of what was sent.

    Attributes:
        published: The header fields and the body of each heartbeat.
        asked: The path of each request that the application was given.
        written: What was answered.
        ended: How the connection ended.
        parsed: How many requests the parser has begun.
    """

    published: list[tuple[list[tuple[bytes, bytes]], bytes]]
    asked: list[str]
    written: list[bytes]
    ended: list[str]
    parsed: list[int]


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self, seen: Seen) -> None:
        super().__init__()
        self._seen = seen

    def write(self, data: Any) -> None:
        self._seen.written.append(bytes(data))

    def is_closing(self) -> bool:
        return bool(self._seen.ended)

    def close(self) -> None:
        self._seen.ended.append("closed")

    def abort(self) -> None:
        self._seen.ended.append("aborted")

    def pause_reading(self) -> None:
        self._seen.ended.append("paused")

    def resume_reading(self) -> None:
        self._seen.ended.append("resumed")


class Publishing:
    """Notes every heartbeat and answers it at once."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen
        self.metrics = self

    def refused(self, *_: Any) -> None:
        """Count nothing."""

    def answered(self, *_: Any) -> None:
        """Count nothing."""

    def publish(self, _: Connection, head: Head, body: bytes, done: Callable[[Outcome | None], None]) -> None:
        # As the intake does where it finds no fault.
        head.formed = head.formed or dict(head.fields)
        assert head.formed == dict(head.fields)
        self._seen.published.append((head.fields, bytes(body)))
        done(Outcome("recorded", 0, 60, None))

    def answer(self, _: Outcome) -> bytes:
        return b"%d" % len(self._seen.published)


class Counting(HotProtocol):
    """Counts what the parser reads."""

    seen: Seen

    def on_message_begin(self) -> None:
        self.seen.parsed.append(1)
        super().on_message_begin()


async def send(pieces: Iterable[bytes]) -> Seen:
    """Return what becomes of these pieces of a connection."""
    seen = Seen([], [], [], [], [])

    async def application(scope: Any, _: Any, answer: Any) -> None:
        seen.asked.append(scope["path"])
        await answer({"type": "http.response.start", "status": 204, "headers": []})
        await answer({"type": "http.response.body", "body": b""})

    config = Config(application, loop="none", ws="none", lifespan="off", interface="asgi3", log_config=None)
    config.load()
    state = HotState()
    state.date(b"now")
    protocol = Counting(
        config,
        state,
        limits=LimitSettings(header_bytes=2048),
        trust=None,
        refused=lambda _slug, _status: None,
        turn_away=lambda: 5,
        publishing=Publishing(seen),
    )
    protocol.seen = seen
    protocol.connection_made(Transport(seen))
    for piece in pieces:
        protocol.data_received(memoryview(piece))
        while state.tasks:
            await asyncio.wait(state.tasks)
    protocol.connection_lost(None)
    return seen


def test_the_third_heartbeat_needs_no_parser() -> None:
    pieces = [with_values(b"9", b"17.%d" % number) for number in range(8, 12)]
    seen = asyncio.run(send(pieces))
    assert len(seen.parsed) == 2
    sequences = [dict(fields)[b"openclaw-sequence"] for fields, _ in seen.published]
    assert sequences == [b"17.8", b"17.9", b"17.10", b"17.11"]
    assert [body for _, body in seen.published] == [b'{"a": 12}'] * 4
    assert all(answer.startswith(b"HTTP/1.1 200 OK\r\n") for answer in seen.written)


def test_heads_that_come_once_are_not_kept() -> None:
    lines = [[*LINES, b"Client-Cert: :%d:" % number] for number in range(4)]
    seen = asyncio.run(send(request(*each) for each in lines))
    assert (len(seen.parsed), len(seen.published)) == (4, 4)


def test_a_head_at_its_limit_is_the_parsers() -> None:
    filler = b"X-Filler: " + b"x" * (2048 - len(request(*LINES, b"X-Filler: ", body=b"")))
    longest = request(*LINES, filler)
    longer = longest.replace(b": 17.1\r", b": 17.12\r")
    seen = asyncio.run(send([longest, longest, longest, longer]))
    assert (len(seen.parsed), len(seen.published)) == (3, 3)
    assert b" 431 " in seen.written[-1]


@pytest.mark.parametrize(
    ("length", "sequence"),
    [
        (b"09", b"1.1"),
        (b"9", b"1.1 "),
        (b"9", b" 1.1"),
        (b"9", b""),
        (b"9", b"x"),
        (b"9", b"1" * 60),
        (b"+9", b"1.1"),
        (b"9", b"1.1\r\nExpect: 100-continue"),
        (b"9", b"1.1\r\nContent-Length: 9"),
        (b"9\r\nOpenClaw-Sequence: 1.2", b"1.1"),
        (b"9\r\nTransfer-Encoding: chunked", b"1.1"),
        (b"8", b"1.1"),
        (b"10", b"1.1"),
        (b"", b"1.1"),
    ],
)
def test_values_out_of_the_ordinary_are_understood_as_ever(length: bytes, sequence: bytes) -> None:
    usual = with_values(b"9", b"1.0")
    assert_same([usual, usual, usual, with_values(length, sequence), usual])


@pytest.mark.parametrize("at", range(3))
def test_what_else_has_changed_is_seen_wherever_it_stands(at: int) -> None:
    values = [b"OpenClaw-Sequence: 1.1", b"Content-Length: 9"]
    usual, other = (
        request(LINES[0], *values[:at], b"Authorization: Bearer " + token, *values[at:])
        for token in (b"x" * 300, b"x" * 150 + b"y" + b"x" * 149)
    )
    assert_same([usual, usual, usual, other, usual])


def test_the_first_head_of_a_piece_is_not_taken_for_the_last() -> None:
    usual, other = request(*LINES), request(*LINES, b"OpenClaw-Replay: 1")
    assert_same([usual, other + usual + usual, other, usual, other])


def assert_same(pieces: list[bytes]) -> None:
    """Check that a connection on which the parser reads everything gives the same answers."""
    short = asyncio.run(send(pieces))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Stencil, "cut", lambda *_: None)
        parsed = asyncio.run(send(pieces))
    assert len(short.parsed) <= len(parsed.parsed)
    assert short[:-1] == parsed[:-1]


digits = st.integers(0, 10**16).map(b"%d".__mod__)
values = st.one_of(
    st.tuples(digits, digits).map(b".".join),
    st.sampled_from(
        [b"", b"1", b"1.", b"x", b"1..2", b"1.2 ", b"\t1.2", b"1\r\nX: 2", b"1\n", b"7" * 41, b"\xff"]
    ),
)
bodies = st.binary(max_size=30)
lengths = st.sampled_from(
    [b"%d", b"%d", b"%d", b"0%d", b"%d ", b" %d", b"+%d", b"%d0", b"%d\r\nExpect: 100-continue"]
)
names = st.sampled_from([b"Content-Length", b"content-length", b"CONTENT-LENGTH"])
sequence_names = st.sampled_from([b"OpenClaw-Sequence", b"openclaw-sequence", b"OpenClaw-Sequence2"])
extra = st.sampled_from(
    [b"", b"", b"", b"Connection: close", b"OpenClaw-Sequence: 1.2", b"Content-Length: 3", b"X: y"]
)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """One request, as a rule the usual one with other numbers."""
    body = draw(bodies)
    plain = [*LINES[:2], b"OpenClaw-Sequence: %d.%d" % (draw(st.integers(0, 99)), draw(st.integers(0, 99)))]
    if draw(st.integers(0, 3)):
        return request(*plain, b"Content-Length: %d" % len(body), body=body)
    lines = [
        LINES[0],
        LINES[1],
        draw(sequence_names) + b": " + draw(values),
        draw(names) + draw(st.sampled_from([b": ", b":"])) + draw(lengths) % len(body),
        draw(extra),
    ]
    lines = [line for line in draw(st.permutations(lines)) if line]
    return request(*lines, body=body, end=draw(st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n"])))


@st.composite
def connections(draw: st.DrawFn) -> list[bytes]:
    """What comes on one connection, piece by piece: as a rule one request in one piece."""
    pieces: list[bytes] = []
    for each in draw(st.lists(requests(), min_size=2, max_size=8)):
        cut = draw(st.one_of(st.just(0), st.just(0), st.integers(0, len(each))))
        if cut < 0 or not draw(st.integers(0, 5)):
            pieces[-1:] = [b"".join([*pieces[-1:], each])]
        else:
            pieces += [piece for piece in (each[:cut], each[cut:]) if piece]
    return pieces


@given(connections())
def test_it_is_all_the_same_with_and_without(pieces: list[bytes]) -> None:
    assert_same(pieces)
