"""What is known of one head holds for the next one where length and sequence alone differ."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from receiver.raw import Raw, head
from receiver.scene import receiver_settings, running

from openclaw_exporter.client import ClientSettings, Publisher, Report, TlsSettings, TokenSettings
from openclaw_exporter.errors import FieldsError
from openclaw_exporter.receiver.heads import Head, Stencil
from openclaw_exporter.receiver.settings import LimitSettings
from openclaw_exporter.wire.headers import Sequence
from support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from receiver.scene import Node, Running

    from support.pki import Pki

FIELDS = [
    (b"Host", b"localhost"),
    (b"Authorization", b"Bearer " + b"x" * 100),
    (b"OpenClaw-Sequence", b"1.1"),
    (b"Content-Length", b"300"),
]


def settled(fields: list[tuple[bytes, bytes]]) -> Head:
    known = Head(fields)
    assert known.settle()
    return known


def changed(at: int, field: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    return [*FIELDS[:at], field, *FIELDS[at + 1 :]]


def test_length_and_sequence_may_differ() -> None:
    known = settled(FIELDS)
    known.formed = {b"openclaw-sequence": b"1.1"}
    later = [*FIELDS[:2], (b"OpenClaw-Sequence", b"1.2"), (b"Content-Length", b"299")]
    assert known.follow(later)
    assert known.varying == (b"299", b"1.2")
    assert known.formed == {b"openclaw-sequence": b"1.2"}
    assert known.fields == [(name.lower(), value) for name, value in later]


@pytest.mark.parametrize(
    "values",
    [
        [b"17.8", b"17.9", b"17.10", b"18.0", b"17.0"],
        [b".5", b"0.5", b".5", b"0.", b"0", b"", b"."],
        [b"1.1", b"1.01", b"01.1", b"1.1.1", b"1. 1", b"1.+1", b"1.1 ", b"1.\xb2"],
        [b"1.0", b"1.00", b"1.%d" % (2**53 - 1), b"1.%d" % 2**53, b"%d.1" % 2**53],
    ],
)
def test_a_sequence_is_read_alike_whatever_came_before(values: list[bytes]) -> None:
    known = settled(FIELDS)
    for before in values:
        for value in values:
            for one in (before, value):
                known.vary(b"300", one)
                assert read(known.read_sequence) == read(partial(Sequence.parse, one.decode("latin-1")))


def read(sequence: Callable[[], Sequence]) -> Sequence | str:
    try:
        return sequence()
    except FieldsError as error:
        return str(error)


@pytest.mark.parametrize(
    "other",
    [
        FIELDS[:-1],
        [*FIELDS, (b"Expect", b"100-continue")],
        [*FIELDS, FIELDS[3]],
        [FIELDS[1], FIELDS[0], *FIELDS[2:]],
        changed(0, (b"Host", b"elsewhere")),
        changed(0, (b"host", b"localhost")),
        changed(1, (b"Authorization", b"Bearer " + b"y" * 100)),
        changed(2, (b"OpenClaw-Replay", b"1")),
        changed(3, (b"Transfer-Encoding", b"chunked")),
    ],
)
def test_nothing_else_may_differ(other: list[tuple[bytes, bytes]]) -> None:
    assert not settled(FIELDS).follow(other)


@pytest.mark.parametrize("missing", [2, 3])
def test_a_head_without_length_or_sequence_is_not_kept(missing: int) -> None:
    assert not Head(FIELDS[:missing] + FIELDS[missing + 1 :]).settle()


texts = st.binary(max_size=3)
heads = st.lists(
    st.tuples(st.sampled_from([b"A", b"a", b"B", b"Content-Length", b"OpenClaw-Sequence"]), texts), max_size=6
)


@given(heads, heads)
def test_a_head_follows_exactly_where_the_rest_is_equal(
    first: list[tuple[bytes, bytes]], second: list[tuple[bytes, bytes]]
) -> None:
    known = Head(first)
    if not known.settle():
        return
    names = [name for name, _ in first]
    varying = {
        next(at for at, name in enumerate(names) if name.lower() == wanted)
        for wanted in (b"content-length", b"openclaw-sequence")
    }
    rest = [None if at in varying else field for at, field in enumerate(first)]
    same = names == [name for name, _ in second] and rest == [
        None if at in varying else field for at, field in enumerate(second)
    ]
    assert known.follow(second) == same


@pytest.fixture(scope="module")
def scene(pki: Pki, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(pki, receiver_settings(pki, tmp_path_factory.mktemp("receiver"))) as started:
        yield started


def beat(node: Node, *lines: str, number: int = 0, **changes: Any) -> bytes:
    body = json.dumps(node.fields(**changes)).encode()
    sequence = f"OpenClaw-Sequence: 1.{number}"
    return head(node, sequence, f"Content-Length: {len(body)}", *lines) + body


def test_what_differs_on_a_connection_is_looked_at_anew(scene: Running, node: Node) -> None:
    other = "0f8fad5b-d9cb-469f-a165-70867728950e"
    with Raw(scene, node.files) as raw:

        def status(request: bytes) -> int:
            raw.send(request)
            answer = raw.answer()
            assert answer is not None
            return answer.status

        assert [status(beat(node, number=number)) for number in range(3)] == [200, 200, 200]
        assert status(beat(node, number=3, node_id=other)) == 403
        assert status(beat(node, number=3, queue_depth={"bad topic": 1})) == 422
        assert status(beat(node, number=3, version="\x00")) == 422
        assert status(beat(node, "OpenClaw-Interval: 0", number=3)) == 422
        assert status(beat(node, "OpenClaw-Interval: 0", number=4)) == 422
        assert status(head(node, "OpenClaw-Sequence: 01.1", "Content-Length: 2") + b"{}") == 422
        assert status(beat(node, "OpenClaw-Interval: 90", "OpenClaw-Interval: 90", number=4)) == 400
        assert status(beat(node, number=4)) == 200
        node.token = node.mint(kid="another")
        assert status(beat(node, number=5)) == 401
        node.token = node.mint()
        assert status(beat(node, number=5)) == 200


def test_the_heads_of_our_own_publisher_are_known_by_their_bytes(
    pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[object] = []
    fits = Stencil.fits

    def noting(stencil: Stencil, request: bytes) -> object:
        found.append(fits(stencil, request))
        return found[-1]

    monkeypatch.setattr(Stencil, "fits", noting)
    settings = receiver_settings(pki, tmp_path, default_interval=1, min_interval=1)
    with running(pki, settings) as scene:
        files = pki.node(str(uuid4()))
        publisher = Publisher(
            ClientSettings(
                endpoint=scene.url,
                hostname="chimera-01.test",
                state_dir=tmp_path / "state",
                interval=1,
                min_interval=1,
                tls=TlsSettings(ca=pki.ca, certificate=files.certificate, key=files.key),
                token=TokenSettings(
                    key=pki.token_key, kid=pki.key_id, issuer=pki.issuer, audience=pki.audience
                ),
            ),
            lambda: Report(capacity={"workers": 1, "available_slots": 1}),
        )
        publisher.start()
        try:
            # One whose answer came late is followed by another head, a replay's, which is not known.
            wait_until(lambda: len([one for one in found if one]) >= 2, what="two that are known")
        finally:
            publisher.stop()


def test_a_sequence_is_no_way_around_the_limit_of_a_head(scene: Running, node: Node) -> None:
    with Raw(scene, node.files) as raw:
        raw.send(beat(node))
        assert raw.answer() is not None
        raw.send(
            head(
                node, f"OpenClaw-Sequence: {'1' * (LimitSettings().header_bytes - 100)}", "Content-Length: 2"
            )
            + b"{}"
        )
        answer = raw.answer()
    assert answer is not None
    assert answer.status == 431


def test_a_length_is_no_way_around_the_limit_of_a_body(scene: Running, node: Node) -> None:
    with Raw(scene, node.files) as raw:
        raw.send(beat(node))
        assert raw.answer() is not None
        raw.send(head(node, "OpenClaw-Sequence: 1.1", "Content-Length: 16385"))
        answer = raw.answer()
    assert answer is not None
    assert answer.status == 413
