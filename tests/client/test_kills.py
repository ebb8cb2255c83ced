"""SIGKILL while the receiver is away: what the buffer took is delivered, once."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from client.stub import Answer, StubReceiver
from client.virtual import SkippingClock

from openclaw_exporter.client import Publisher, Report
from support.ports import free_port

if TYPE_CHECKING:
    from openclaw_exporter.client import ClientSettings
    from support.pki import Pki

ROUNDS = 6


def run_and_kill(arguments: str, lines: int) -> tuple[int, int]:
    """Run the child until it has said so many lines, kill it, and return what it found and last had."""
    child = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("publishing_child.py")), arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with child:
        assert child.stdout is not None
        ready = child.stdout.readline().split()
        assert ready[:1] == ["ready"]
        last = int(ready[1])
        for _ in range(lines):
            last = int(child.stdout.readline())
        child.kill()
        for line in child.stdout:
            last = int(line)
    assert child.returncode == -9
    return int(ready[1]), last


def test_nothing_that_the_buffer_took_is_lost_or_stored_twice(pki: Pki, settings: ClientSettings) -> None:
    port = free_port()
    random = Random(3)
    settings = dataclasses.replace(settings, endpoint=f"https://localhost:{port}")
    given = {
        "endpoint": settings.endpoint,
        "state": str(settings.state_dir),
        "tls": {name: str(getattr(settings.tls, name)) for name in ("ca", "certificate", "key")},
        "token": str(pki.token_key),
    }
    taken = 0
    for _ in range(ROUNDS):
        found, last = run_and_kill(json.dumps(given), random.randrange(3, 12))
        assert found >= taken
        taken = last
    with StubReceiver(pki, port=port) as stub:
        stub.default = Answer(body=b"")
        clock = SkippingClock()
        publisher = Publisher(settings, Report, clock=clock)
        waiting = publisher.stats.buffered
        assert waiting >= taken
        while publisher.stats.buffered:
            due = publisher.tick()
            clock.skipped += max(0.0, due - clock.monotonic())
        publisher.stop(draining=False)
    replays = [seen for seen in stub.seen if seen.headers.get("openclaw-replay") == "1"]
    assert len(replays) == waiting
    keys = Counter(json.loads(seen.body)["last_heartbeat"] for seen in stub.seen)
    assert set(keys.values()) == {1}
    epochs = [int(seen.headers["openclaw-sequence"].partition(".")[0]) for seen in replays]
    assert epochs == sorted(epochs)
    assert len(set(epochs)) == ROUNDS
