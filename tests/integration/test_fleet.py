"""A thousand nodes at their normal interval, and one receiver."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING
from uuid import uuid4

import psutil
import pytest

from openclaw_exporter.cli.demo.neighbours import Neighbour, Neighbours, Silence
from openclaw_exporter.client import ClientSettings, TlsSettings, TokenSettings
from support.command import ReceiverCommand

if TYPE_CHECKING:
    from pathlib import Path

    from support.pki import Pki

NODES = int(os.environ.get("SOAK_NODES", "1000"))
INTERVAL = 60
SECONDS = int(os.environ.get("SOAK_SECONDS", "180"))


@pytest.mark.slow
def test_a_thousand_nodes_lose_nothing_and_none_expires(pki: Pki, tmp_path: Path) -> None:
    receiver = ReceiverCommand(tmp_path, pki)
    fleet = [Neighbour(number, settings(pki, receiver.url, tmp_path), Silence()) for number in range(NODES)]
    receiver.start()
    receiver.ready()
    assert receiver.process is not None
    process = psutil.Process(receiver.process.pid)
    neighbours = Neighbours(fleet, interval=INTERVAL)
    before = process.cpu_times()
    neighbours.start()
    time.sleep(SECONDS)
    after = process.cpu_times()
    memory = process.memory_info().rss
    counts = receiver.metrics()
    neighbours.stop()
    stats = [neighbour.publisher.stats for neighbour in fleet]
    received = total(counts, "openclaw_registry_heartbeat_received_total")
    cpu = after.user + after.system - before.user - before.system
    print(
        f"\n{NODES} nodes at {INTERVAL} s for {SECONDS} s: {received:.0f} heartbeats, CPU {cpu:.2f} s = "
        f"{100 * cpu / SECONDS:.2f} % of one core, {1e6 * cpu / received:.0f} µs a heartbeat with its share "
        f"of {NODES} handshakes, {memory / 2**20:.0f} MiB resident; "
        f"failures {sum(one.failure for one in stats)}"
    )
    receiver.stop()
    assert sum(one.failure for one in stats) == 0
    assert sum(one.buffered + one.dropped for one in stats) == 0
    # The last scrape may precede the end of a few exchanges; what was acknowledged before it is counted.
    assert NODES * (SECONDS // INTERVAL) <= received <= sum(one.success for one in stats)
    assert total(counts, "openclaw_registry_node_expired_total") == 0
    assert total(counts, "openclaw_registry_heartbeat_refused_total") == 0
    assert total(counts, "openclaw_registry_node_count{", 'state="up"') == NODES


def settings(pki: Pki, url: str, directory: Path) -> ClientSettings:
    """Return one node's settings, with a certificate of its own."""
    node_id = str(uuid4())
    files = pki.node(node_id)
    return ClientSettings(
        endpoint=url,
        interval=INTERVAL,
        state_dir=directory / "nodes" / node_id,
        tls=TlsSettings(ca=pki.ca, certificate=files.certificate, key=files.key),
        token=TokenSettings(key=pki.token_key, kid=pki.key_id, issuer=pki.issuer, audience=pki.audience),
    )


def total(counts: dict[str, float], *parts: str) -> float:
    """Return the sum of all samples whose name holds every part."""
    return sum(value for name, value in counts.items() if all(part in name for part in parts))
