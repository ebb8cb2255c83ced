"""Ten thousand bodies against a running receiver: no 5xx, and nothing invalid is stored."""

from __future__ import annotations

import json
import os
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wire.reference import wrong_fields
from wire.test_heartbeat_properties import PIECES, heartbeats, to_body, values

from support.command import ReceiverCommand
from support.nodes import PlayedNode, mutual_tls_client

if TYPE_CHECKING:
    from pathlib import Path

    from support.pki import Pki

BODIES = int(os.environ.get("SOAK_BODIES", "10000"))
ANSWERS = {200, 400, 403, 409, 413, 422}

edits = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 12), st.one_of(st.sampled_from(PIECES), st.binary(max_size=3))),
    min_size=1,
    max_size=3,
)


@st.composite
def bodies(draw: st.DrawFn) -> tuple[bool, bytes]:
    """Draw whether the node names itself, and a body: a heartbeat with wrong fields and edits, or any."""
    kind = draw(st.sampled_from(("right", "wrong fields", "edited", "any")))
    members: Any = draw(values if kind == "any" else heartbeats)
    if kind == "wrong fields":
        members |= draw(st.dictionaries(st.sampled_from(sorted(members)), values, min_size=1, max_size=2))
    raw = to_body(members)
    for where, cut, piece in draw(edits) if kind == "edited" else ():
        start = int(where * len(raw))
        raw = raw[:start] + piece + raw[start + cut :]
    return draw(st.integers(0, 9)) != 0, raw


@pytest.mark.slow
def test_no_body_breaks_the_receiver_or_stays_in_it_wrongly(pki: Pki, tmp_path: Path) -> None:
    receiver = ReceiverCommand(tmp_path, pki, rate=10_000)
    receiver.start()
    receiver.ready()
    node = PlayedNode(pki, receiver.url)
    reader = mutual_tls_client(pki.ca, pki.reader(), base_url=f"{receiver.url}/openclaw/nodes/")
    answers: Counter[int] = Counter()

    @settings(max_examples=BODIES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(bodies())
    def post(drawn: tuple[bool, bytes]) -> None:
        itself, raw = drawn
        if itself:
            raw = with_node_id(raw, node.node_id)
        answer = node.client.post(node.url, content=raw, headers=node.headers)
        answers[answer.status_code] += 1
        assert answer.status_code in ANSWERS, answer.text
        if answer.status_code == 200 and answer.json()["result"] == "recorded":
            stored = reader.get(node.node_id).json()["heartbeat"]
            assert not wrong_fields(stored)
            assert stored.keys() <= KNOWN
        elif answer.status_code != 200:
            assert answer.headers["content-type"] == "application/problem+json"

    post()
    print(f"\n{sum(answers.values())} bodies: {dict(sorted(answers.items()))}")
    node.close()
    reader.close()
    assert receiver.stop() == 0
    assert answers[200] > BODIES / 20
    assert answers[400] > BODIES / 20
    assert answers[422] > BODIES / 20


KNOWN = {
    "node_id",
    "hostname",
    "version",
    "capacity",
    "queue_depth",
    "last_heartbeat",
    "tags",
    "uptime_seconds",
}


def with_node_id(raw: bytes, node_id: str) -> bytes:
    """Put the node's own id where a body that is still an object has one."""
    try:
        members = json.loads(raw)
    except (ValueError, RecursionError):
        return raw
    if not isinstance(members, dict):
        return raw
    try:
        return to_body(members | {"node_id": node_id})
    except ValueError:  # a lone surrogate that came in as an escape
        return raw
