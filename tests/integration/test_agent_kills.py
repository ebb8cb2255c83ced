"""kill -9 of the agent while the receiver is away: what was buffered arrives later, once."""

from __future__ import annotations

import os
import random
import sqlite3
import time
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from support.command import Command, ReceiverCommand, openclaw_tables
from support.ports import free_port
from support.registry import left_in
from support.wait import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from support.pki import Pki

ROUNDS = int(os.environ.get("SOAK_ROUNDS", "200"))


@pytest.mark.slow
def test_no_buffered_heartbeat_is_lost_and_none_stored_twice(pki: Pki, tmp_path: Path) -> None:
    random.seed(20261122)
    node_id = str(uuid4())
    receiver = ReceiverCommand(tmp_path, pki, extra="min_interval = 1")
    state = tmp_path / "state"
    agent = agent_command(tmp_path, pki, node_id, receiver.url, state)
    expected: set[int] = set()
    left: Counter[str] = Counter()
    started = time.monotonic()
    for _ in range(ROUNDS):
        before = len(expected)
        agent.start()
        # Killed at any point: while it starts, while it connects, while it writes.
        time.sleep(random.uniform(0.3, 2.4))
        agent.kill()
        buffered = waiting(state)
        lost = expected - buffered
        assert not lost, f"{len(lost)} buffered heartbeats are gone after a kill"
        expected |= buffered
        left["with a new heartbeat" if len(expected) > before else "without"] += 1
    assert expected, "no round lasted long enough to buffer a heartbeat"

    receiver.start()
    receiver.ready()
    agent.start()
    wait_until(lambda: not waiting(state) & expected, timeout=1200, what="the end of the replay")
    agent.stop()
    counts = receiver.metrics()
    receiver.kill()
    stored = arrivals(receiver.database)
    print(
        f"\n{ROUNDS} kills, {len(expected)} heartbeats buffered ({dict(left)}), "
        f"{len(expected - stored.keys())} of them lost; all done in {time.monotonic() - started:.0f} s"
    )
    assert expected <= stored.keys()
    assert set(stored.values()) == {1}
    # Every one was stored when it first arrived: nothing came twice with another content.
    assert not [name for name in counts if "refused_total" in name and counts[name] > 0]


def agent_command(directory: Path, pki: Pki, node_id: str, url: str, state: Path) -> Command:
    """Return an agent that beats every second and has no collectors but the system's."""
    config = directory / "agent.toml"
    tables = openclaw_tables(pki, node_id, url, state, interval=1)
    config.write_text(f"{tables}[telemetry.prometheus]\nport = {free_port()}\n")
    return Command(("agent", "--config", str(config)), directory / "agent.log")


def waiting(state: Path) -> set[int]:
    """Return the times of the heartbeats in the buffer's file; a hot journal is rolled back as at a start."""
    files = list(state.glob("*.sqlite*"))
    if not any(file.suffix in {".sqlite", ".sqlite3"} for file in files):
        return set()
    (file,) = (file for file in files if file.suffix in {".sqlite", ".sqlite3"})
    for _ in range(100):
        try:
            with closing(sqlite3.connect(file, timeout=5)) as database:
                return {row[0] for row in database.execute("SELECT sent_ms FROM heartbeats")}
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return set()
            time.sleep(0.02)
    raise AssertionError(f"{file} cannot be read")


def arrivals(database: Path) -> Counter[int]:
    """Return how often each heartbeat's time stands in the registry."""
    return Counter(row.sent_ms for row in left_in(database).arrivals)
