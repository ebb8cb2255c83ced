"""A receiver in a process of its own: killed, stopped, ended, and with a disk that is full."""

from __future__ import annotations

import os
import random
import resource
import signal
import time
from typing import TYPE_CHECKING

import httpx
import pytest

from support.command import ReceiverCommand
from support.nodes import PlayedNode, mutual_tls_client
from support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.pki import Pki

SHORT = "min_interval = 1\nmax_interval = 120\ndefault_interval = 60"
EXPIRED = "openclaw_registry_node_expired_total"


@pytest.fixture
def receiver(pki: Pki, tmp_path: Path) -> Iterator[ReceiverCommand]:
    command = ReceiverCommand(tmp_path, pki, extra=SHORT)
    command.start()
    command.ready()
    yield command
    command.stop()


@pytest.fixture
def node(pki: Pki, receiver: ReceiverCommand) -> Iterator[PlayedNode]:
    played = PlayedNode(pki, receiver.url)
    yield played
    played.close()


def publish(node: PlayedNode) -> httpx.Response:
    return node.client.post(node.url, **node.next_request()[1])


def reader(pki: Pki, receiver: ReceiverCommand) -> httpx.Client:
    return mutual_tls_client(pki.ca, pki.reader(), base_url=receiver.url)


def show(pki: Pki, receiver: ReceiverCommand, node: PlayedNode) -> dict[str, object]:
    with reader(pki, receiver) as client:
        shown: dict[str, object] = client.get(f"/openclaw/nodes/{node.node_id}").json()
        return shown


def pid(receiver: ReceiverCommand) -> int:
    assert receiver.process is not None
    return receiver.process.pid


def test_what_was_acknowledged_survives_kill_9(pki: Pki, receiver: ReceiverCommand, node: PlayedNode) -> None:
    dice = random.Random(5)
    acknowledged = []
    for _ in range(5):
        until = time.monotonic() + dice.uniform(0.05, 0.3)
        while time.monotonic() < until:
            sent_ms, request = node.next_request()
            assert node.client.post(node.url, **request).json()["result"] == "recorded"
            acknowledged.append(sent_ms)
        receiver.kill()
        receiver.start()
        receiver.ready()
    with reader(pki, receiver) as client:
        history = client.get(f"/openclaw/nodes/{node.node_id}/history").json()["history"]
    assert len(history) == len(acknowledged)
    assert len({entry["last_heartbeat"] for entry in history}) == len(acknowledged)
    assert sum(value for name, value in receiver.metrics().items() if name.startswith(EXPIRED)) == 0


def test_sigterm_ends_it_with_everything_stored(
    pki: Pki, receiver: ReceiverCommand, node: PlayedNode
) -> None:
    publish(node)
    started = time.monotonic()
    assert receiver.stop() == 0
    # An idle connection that the client keeps does not hold it up.
    assert time.monotonic() - started < 60
    receiver.start()
    receiver.ready()
    assert show(pki, receiver, node)["state"] == "up"


def test_a_stopped_receiver_expires_nobody_when_it_goes_on(
    pki: Pki, receiver: ReceiverCommand, node: PlayedNode
) -> None:
    node.interval = 5
    publish(node)
    os.kill(pid(receiver), signal.SIGSTOP)
    time.sleep(13)
    os.kill(pid(receiver), signal.SIGCONT)
    time.sleep(1)
    assert show(pki, receiver, node)["state"] in ("up", "late")
    wait_until(lambda: show(pki, receiver, node)["state"] == "expired", what="the expiry")
    publish(node)
    assert show(pki, receiver, node)["state"] == "up"
    for event in ("registered", "expired", "returned"):
        prefix = f"openclaw_registry_node_{event}_total"
        assert sum(value for name, value in receiver.metrics().items() if name.startswith(prefix)) == 1


def test_a_full_disk_is_503_and_not_ready_and_passes(
    pki: Pki, receiver: ReceiverCommand, node: PlayedNode
) -> None:
    publish(node)
    before = show(pki, receiver, node)["last_seen"]
    # Every write beyond the first byte of a file fails now, as on a full disk.
    unlimited = resource.prlimit(pid(receiver), resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    sent_ms, request = node.next_request()
    refused = node.client.post(node.url, **request)
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) > 0
    assert refused.json()["type"].endswith(":store-unavailable")
    ready = httpx.get(f"http://127.0.0.1:{receiver.admin_port}/readyz", trust_env=False, timeout=60)
    assert (ready.status_code, ready.json()["checks"]["store"]) == (503, False)
    # Reading goes on, and shows nothing that was not stored.
    assert show(pki, receiver, node)["last_seen"] == before
    resource.prlimit(pid(receiver), resource.RLIMIT_FSIZE, unlimited)
    receiver.ready()
    again = node.client.post(node.url, **request)
    assert (again.status_code, again.json()["result"]) == (200, "recorded")
    assert sent_ms > 0
    assert "the registry can be stored again" in receiver.text()


def test_a_second_receiver_does_not_take_the_same_file(
    pki: Pki, receiver: ReceiverCommand, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    second = ReceiverCommand(other, pki)
    second.arguments = (*second.arguments, "--store", f"sqlite:///{receiver.database}")
    second.start()
    assert second.process is not None
    assert second.process.wait(120) == 2
    assert "another receiver uses this registry" in second.text()
    assert "Traceback" not in second.text()


def test_sighup_reads_certificates_again(pki: Pki, receiver: ReceiverCommand, node: PlayedNode) -> None:
    publish(node)
    os.kill(pid(receiver), signal.SIGHUP)
    assert publish(node).status_code == 200


def test_no_log_line_holds_a_token_or_a_body(receiver: ReceiverCommand, node: PlayedNode) -> None:
    _, request = node.next_request(version="canary-8a41")
    node.client.post(node.url, **request)
    node.client.post(node.url, content=b"canary-9b52 not json", headers=node.headers)
    node.client.post(node.url, content=b"{}", headers=node.headers | {"Authorization": "Bearer canary-7c63"})
    assert receiver.stop() == 0
    text = receiver.text()
    assert "canary" not in text
    assert node.token not in text
    assert "Traceback" not in text
    receiver.start()
    receiver.ready()
