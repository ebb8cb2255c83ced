"""kill -9 of the receiver under load: what was acknowledged is there afterwards, and nobody expired."""

from __future__ import annotations

import os
import random
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from support.command import ReceiverCommand
from support.nodes import PlayedNode
from support.pressing import Pressing
from support.registry import left_in
from support.wait import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from support.pki import Pki

ROUNDS = int(os.environ.get("SOAK_ROUNDS", "200"))
EXPIRED = "openclaw_registry_node_expired_total"


@pytest.mark.parametrize("rounds", [12, pytest.param(ROUNDS // 3, marks=pytest.mark.slow)])
def test_no_acknowledged_heartbeat_is_lost_whichever_process_is_killed(
    pki: Pki, tmp_path: Path, rounds: int
) -> None:
    receiver = ReceiverCommand(tmp_path, pki, extra="workers = 2")
    random.seed(20261125)
    beating = [Pressing(PlayedNode(pki, receiver.url), pause) for pause in (0, 0, 0, 0.01, 0.05, 20)]
    receiver.start()
    receiver.ready()
    for thread in beating:
        thread.start()
    killed = {"worker": 0, "registry": 0}
    for _ in range(rounds):
        time.sleep(random.uniform(0.02, 0.5))
        workers = workers_of(receiver)
        if workers and random.random() < 0.7:
            random.choice(workers).kill()
            killed["worker"] += 1
        else:
            assert expired(receiver) == 0
            receiver.kill()
            killed["registry"] += 1
            receiver.start()
        # The pause before a worker is started again grows with their deaths, as it should.
        receiver.ready(timeout=120)
    for thread in beating:
        thread.done.set()
    for thread in beating:
        thread.end()
    assert expired(receiver) == 0
    orphans = workers_of(receiver)
    receiver.kill()
    assert psutil.wait_procs(orphans, timeout=60)[1] == []
    acknowledged = {(thread.node.node_id, sent_ms) for thread in beating for sent_ms in thread.acknowledged}
    left = left_in(receiver.database)
    stored = {(row.node_id, row.sent_ms) for row in left.arrivals}
    print(
        f"\n{killed} kills: {len(acknowledged)} acknowledged, {len(acknowledged - stored)} of them lost, "
        f"{len(stored)} stored"
    )
    assert min(killed.values()) > 0
    assert len(acknowledged) > rounds
    assert acknowledged <= stored
    assert [refusal for thread in beating for refusal in thread.refusals] == []
    assert {state.state for state in left.nodes.values()} == {"up"}
    assert len(stored) == len(left.arrivals)


def workers_of(receiver: ReceiverCommand) -> list[psutil.Process]:
    """Return the worker processes that run."""
    assert receiver.process is not None
    children = psutil.Process(receiver.process.pid).children()
    return [child for child in children if child.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("rounds", [6, pytest.param(ROUNDS, marks=pytest.mark.slow)])
def test_no_acknowledged_heartbeat_is_lost_and_nobody_expires(pki: Pki, tmp_path: Path, rounds: int) -> None:
    receiver = ReceiverCommand(tmp_path, pki)
    random.seed(20261122)
    # Six nodes press on, two beat at the pace of their interval only.
    beating = [
        Pressing(PlayedNode(pki, receiver.url), pause) for pause in (0, 0, 0, 0.01, 0.01, 0.05, 20, 25)
    ]
    receiver.start()
    receiver.ready()
    for thread in beating:
        thread.start()
    started = time.monotonic()
    before_ready = 0
    for _ in range(rounds):
        time.sleep(random.uniform(0.02, 0.5))
        assert expired(receiver) == 0
        receiver.kill()
        receiver.start()
        if random.random() < 0.2:  # killed while it starts, as well
            time.sleep(random.uniform(0, 0.6))
            receiver.kill()
            receiver.start()
            before_ready += 1
        receiver.ready()
    for thread in beating:
        thread.done.set()
    for thread in beating:
        thread.end()
    assert expired(receiver) == 0
    receiver.kill()

    acknowledged = {(thread.node.node_id, sent_ms) for thread in beating for sent_ms in thread.acknowledged}
    left = left_in(receiver.database)
    stored = {(row.node_id, row.sent_ms) for row in left.arrivals}
    states = {state.state for state in left.nodes.values()}
    print(
        f"\n{rounds + before_ready} kills in {time.monotonic() - started:.0f} s: {len(acknowledged)} "
        f"acknowledged, {len(acknowledged - stored)} of them lost, {len(stored)} stored, "
        f"states {states}"
    )
    assert len(acknowledged) > rounds
    assert acknowledged <= stored
    assert [refusal for thread in beating for refusal in thread.refusals] == []
    assert states == {"up"}
    assert len(stored) == len(left.arrivals)


def expired(receiver: ReceiverCommand) -> float:
    """Return the expiries that this process has counted."""

    def scraped() -> list[float]:
        found = [value for name, value in receiver.metrics().items() if name.startswith(EXPIRED)]
        return found or [0.0]

    return sum(wait_until(scraped, what=EXPIRED))
