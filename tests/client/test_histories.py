"""Retry histories against a model of the receiver: whatever happens, each heartbeat is stored once."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, ClassVar
from uuid import uuid4

import pytest
from client.virtual import Reply, VirtualClock, Wire, drive
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from openclaw_exporter.client import (
    BufferSettings,
    ClientSettings,
    Publisher,
    Report,
    TlsSettings,
    TokenSettings,
)
from openclaw_exporter.client.exchange import Request as Sent
from openclaw_exporter.client.exchange import TimedOutError, UnreachableError

if TYPE_CHECKING:
    from client.virtual import Request

    from support.pki import Files, Pki


class ModelReceiver:
    """The contract's idempotency and order, in a dictionary."""

    def __init__(self) -> None:
        self.stored: dict[str, bytes] = {}
        self.results: list[str] = []
        self.highest = (-1, -1)
        self.live_order: list[tuple[int, int]] = []

    def __call__(self, request: Request) -> Reply:
        key = json.loads(request.body)["last_heartbeat"]
        digest = hashlib.sha256(request.body).digest()
        epoch, number = (int(part) for part in request.headers["openclaw-sequence"].split("."))
        if key in self.stored:
            if self.stored[key] != digest:
                self.results.append("conflict")
                return Reply(409)
            self.results.append("duplicate")
            return Reply(body=b'{"result": "duplicate"}')
        if not request.replay and epoch < self.highest[0]:
            self.results.append("conflict")
            return Reply(409, body=json.dumps({"epoch": self.highest[0]}).encode())
        self.stored[key] = digest
        if request.replay:
            self.results.append("history")
        else:
            self.live_order.append((epoch, number))
            self.highest = max(self.highest, (epoch, number))
            self.results.append("recorded")
        return Reply(body=b'{"result": "recorded"}')


FAULTS = ["answer", "lost answer", "refuse connection", "503", "429", "401", "403", "422", "retry-after"]


class Histories(RuleBasedStateMachine):
    """One node, its receiver, and a network between them that does what Hypothesis likes."""

    pki: ClassVar[Pki]
    files: ClassVar[Files]
    place: ClassVar[Path]

    def __init__(self) -> None:
        super().__init__()
        self.receiver = ModelReceiver()
        self.clock = VirtualClock()
        self.wire = Wire(self.clock, self.through)
        self.faults: list[str] = []
        self.directory = Path(tempfile.mkdtemp(dir=self.place))
        self.made = self.dropped = self.runs = self.shifts = 0
        self.publisher = self.start()

    def start(self) -> Publisher:
        self.runs += 1
        tls = TlsSettings(ca=self.pki.ca, certificate=self.files.certificate, key=self.files.key)
        token = TokenSettings(
            key=self.pki.token_key, kid=self.pki.key_id, issuer=self.pki.issuer, audience=self.pki.audience
        )
        config = ClientSettings(
            endpoint="https://receiver.invalid",
            hostname="h",
            state_dir=self.directory,
            tls=tls,
            token=token,
            buffer=BufferSettings(max_heartbeats=12),
        )
        return Publisher(config, Report, clock=self.clock, transport=self.wire, rng=Random(self.runs))

    def through(self, request: Request) -> Reply:
        fault = self.faults.pop(0) if self.faults else "answer"
        if fault == "refuse connection":
            raise UnreachableError
        if fault == "lost answer":
            self.receiver(request)
            raise TimedOutError
        if fault == "retry-after":
            return Reply(503, {"Retry-After": "40"})
        return self.receiver(request) if fault == "answer" else Reply(int(fault))

    @rule(faults=st.lists(st.sampled_from(FAULTS), min_size=1, max_size=6))
    def trouble(self, faults: list[str]) -> None:
        self.faults += faults

    @rule(seconds=st.sampled_from([1, 20, 61, 200, 700]))
    def live(self, seconds: int) -> None:
        drive(self.publisher, self.clock, seconds)

    @rule(seconds=st.sampled_from([1, 30, 300]))
    def outage(self, seconds: int) -> None:
        self.faults = ["refuse connection"] * 500
        drive(self.publisher, self.clock, seconds)
        self.faults = []

    @rule(step=st.sampled_from([-86_400, -61, -1, 1, 61, 86_400]))
    def step_clock(self, step: int) -> None:
        self.clock.step += step
        self.shift()

    def shift(self) -> None:
        """Keep virtual time off its grid, where a new process would meet milliseconds of the last."""
        self.shifts += 1
        self.clock.step += 0.003 * self.shifts

    @precondition(lambda self: self.publisher.stats.made > 0)
    @rule(draining=st.booleans(), gap=st.sampled_from([0, 1, 100]))
    def restart(self, *, draining: bool, gap: int) -> None:
        self.publisher.stop(draining=draining)
        self.made += self.publisher.stats.made
        self.dropped += self.publisher.stats.dropped
        self.clock.now += gap
        self.shift()
        self.publisher = self.start()

    @invariant()
    def each_is_stored_once(self) -> None:
        # The model keeps one digest for each key: a second store of one heartbeat would be a conflict.
        assert "conflict" not in self.receiver.results
        assert self.receiver.live_order == sorted(self.receiver.live_order)

    @invariant()
    def none_is_lost_in_silence(self) -> None:
        stats = self.publisher.stats
        made, dropped = self.made + stats.made, self.dropped + stats.dropped
        # A heartbeat whose answer was lost is both stored and waiting, so this is a lower bound.
        assert len(self.receiver.stored) + stats.buffered + dropped >= made
        assert stats.buffered <= 12

    def teardown(self) -> None:
        self.faults = []
        drive(self.publisher, self.clock, 900)
        stats = self.publisher.stats
        assert stats.buffered == 0
        assert len(self.receiver.stored) >= self.made + stats.made - self.dropped - stats.dropped
        self.publisher.stop(draining=False)
        shutil.rmtree(self.directory)


@pytest.mark.parametrize(
    "histories", [30, pytest.param(2_000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)
def test_histories(histories: int, pki: Pki, fast_path: Path) -> None:
    Histories.pki = pki
    Histories.place = fast_path
    Histories.files = pki.node(str(uuid4()))
    run_state_machine_as_test(
        Histories,
        settings=settings(
            max_examples=histories,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_model_tells_a_second_body_from_a_duplicate() -> None:
    model = ModelReceiver()
    wire = Wire(VirtualClock(), model)
    request = Sent("POST", "/", {"OpenClaw-Sequence": "1.0"}, b'{"last_heartbeat": "a"}')
    other = Sent("POST", "/", {"OpenClaw-Sequence": "1.1"}, b'{"last_heartbeat": "a", "b": 1}')
    assert [wire.handle_request(sent).status for sent in (request, request, other)] == [200, 200, 409]
    assert dataclasses.asdict(wire.requests[0])["at"] == 1000.0
