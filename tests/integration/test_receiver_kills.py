"""kill -9 of the receiver under load: what was acknowledged is there afterwards, and nobody expired."""

from __future__ import annotations

import os
import random
import sqlite3
import threading
import time
from typing import TYPE_CHECKING

import httpx
import pytest

from support.command import ReceiverCommand
from support.nodes import PlayedNode
from support.wait import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from support.pki import Pki

ROUNDS = int(os.environ.get("SOAK_ROUNDS", "200"))
EXPIRED = "openclaw_registry_node_expired_total"


class Beating(threading.Thread):
    """Publishes one node's heartbeats one after the other, each until it is acknowledged."""

    def __init__(self, node: PlayedNode, pause: float) -> None:
        super().__init__(daemon=True)
        self.node = node
        self.pause = pause
        self.acknowledged: set[int] = set()
        self.refusals: list[int] = []
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.is_set():
            sent_ms, request = self.node.next_request()
            while not self._publish(sent_ms, request) and not self.done.wait(0.02):
                pass
            self.done.wait(self.pause)
        self.node.close()

    def _publish(self, sent_ms: int, request: dict[str, object]) -> bool:
        try:
            answer = self.node.client.post(self.node.url, **request)  # type: ignore[arg-type]
        except httpx.TransportError:
            return False
        if answer.status_code == httpx.codes.OK:
            self.acknowledged.add(sent_ms)
        elif answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
            self.refusals.append(answer.status_code)
        return answer.status_code != httpx.codes.SERVICE_UNAVAILABLE


@pytest.mark.slow
def test_no_acknowledged_heartbeat_is_lost_and_nobody_expires(pki: Pki, tmp_path: Path) -> None:
    receiver = ReceiverCommand(tmp_path, pki)
    random.seed(20261122)
    # Six nodes press on, two beat at the pace of their interval only.
    beating = [Beating(PlayedNode(pki, receiver.url), pause) for pause in (0, 0, 0, 0.01, 0.01, 0.05, 20, 25)]
    receiver.start()
    receiver.ready()
    for thread in beating:
        thread.start()
    started = time.monotonic()
    before_ready = 0
    for _ in range(ROUNDS):
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
        thread.join(30)
    assert expired(receiver) == 0
    receiver.kill()

    acknowledged = {(thread.node.node_id, sent_ms) for thread in beating for sent_ms in thread.acknowledged}
    stored, states = registry(receiver.database)
    print(
        f"\n{ROUNDS + before_ready} kills in {time.monotonic() - started:.0f} s: {len(acknowledged)} "
        f"acknowledged, {len(acknowledged - stored)} of them lost, {len(stored)} stored, "
        f"states {set(states.values())}"
    )
    assert len(acknowledged) > ROUNDS
    assert acknowledged <= stored
    assert [refusal for thread in beating for refusal in thread.refusals] == []
    assert set(states.values()) == {"up"}


def expired(receiver: ReceiverCommand) -> float:
    """Return the expiries that this process has counted."""

    def scraped() -> list[float]:
        found = [value for name, value in receiver.metrics().items() if name.startswith(EXPIRED)]
        return found or [0.0]

    return sum(wait_until(scraped, what=EXPIRED))


def registry(database: Path) -> tuple[set[tuple[str, int]], dict[str, str]]:
    """Read the stored keys and each node's state from the file that the killed receiver left."""
    connection = sqlite3.connect(database)
    arrivals = connection.execute("SELECT lower(hex(node_id)), sent_ms FROM arrivals").fetchall()
    nodes = dict(connection.execute("SELECT lower(hex(node_id)), state FROM nodes").fetchall())
    connection.close()
    return {(dashed(node), sent_ms) for node, sent_ms in arrivals}, {
        dashed(node): state for node, state in nodes.items()
    }


def dashed(digits: str) -> str:
    """Return a UUID's 32 digits in groups."""
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
