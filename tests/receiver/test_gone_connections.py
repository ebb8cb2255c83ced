"""A connection that has ended leaves nothing that waits for the cycle collector."""

from __future__ import annotations

import gc
import socket
import struct
import weakref
from typing import TYPE_CHECKING

import pytest
from receiver.raw import Raw, head
from receiver.scene import receiver_settings, running

from openclaw_exporter.receiver.hot import HotProtocol
from support.wait import wait_until

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator
    from pathlib import Path

    from receiver.scene import Node, Running

    from support.pki import Pki

RESET = struct.pack("ii", 1, 0)


@pytest.fixture(scope="module")
def scene(pki: Pki, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    directory: Path = tmp_path_factory.mktemp("receiver")
    with running(pki, receiver_settings(pki, directory)) as started:
        yield started


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[weakref.ref[HotProtocol]]]:
    """Collect references to all connections, and keep the cycle collector away."""
    protocols: list[weakref.ref[HotProtocol]] = []
    original = HotProtocol.connection_made

    def noting(protocol: HotProtocol, transport: asyncio.Transport) -> None:
        protocols.append(weakref.ref(protocol))
        original(protocol, transport)

    monkeypatch.setattr(HotProtocol, "connection_made", noting)
    gc.collect()
    gc.disable()
    try:
        yield protocols
    finally:
        gc.enable()


def beat(node: Node) -> bytes:
    body = b"{}"
    return head(node, f"Content-Length: {len(body)}") + body


@pytest.mark.parametrize("abrupt", [True, False])
@pytest.mark.parametrize("asked", ["nothing", "heartbeat", "ordinary", "half"])
def test_a_connection_that_has_ended_is_gone(
    scene: Running, made: list[weakref.ref[HotProtocol]], *, asked: str, abrupt: bool
) -> None:
    node = scene.node()
    ordinary = b"GET /openclaw/nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n"
    requests = {"nothing": b"", "heartbeat": beat(node), "ordinary": ordinary, "half": ordinary[:20]}
    with Raw(scene, node.files) as raw:
        raw.send(requests[asked])
        if asked in ("heartbeat", "ordinary"):
            assert raw.answer() is not None
        else:
            wait_until(lambda: made, what="the connection")
        if abrupt:
            raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    wait_until(lambda: made and not any(one() for one in made), what="its end")
