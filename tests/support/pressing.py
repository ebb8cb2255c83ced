"""Nodes that publish one heartbeat after the other, each until it is acknowledged."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from support.nodes import PlayedNode

_LATER = (httpx.codes.BAD_GATEWAY, httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.GATEWAY_TIMEOUT)


class Pressing(threading.Thread):
    """Publishes one node's heartbeats.

    Args:
        node: The node.
        pause: Seconds between an answer and the next heartbeat.

    Attributes:
        acknowledged: The times (keys) of those that were answered 200, and when that was, Unix seconds.
        refusals: Every other answer but those that say to come back later.
    """

    def __init__(self, node: PlayedNode, pause: float) -> None:
        super().__init__(daemon=True)
        self.node = node
        node.client.timeout = 10  # it tries again, and must not be silent for two intervals meanwhile
        self.pause = pause
        self.acknowledged: dict[int, float] = {}
        self.refusals: list[int] = []
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.is_set():
            sent_ms, request = self.node.next_request()
            while not self._publish(sent_ms, request) and not self.done.wait(0.02):
                pass
            self.done.wait(self.pause)
        self.node.close()

    def end(self) -> None:
        """Stop, and wait until it has."""
        self.done.set()
        self.join(180)

    def _publish(self, sent_ms: int, request: dict[str, object]) -> bool:
        try:
            answer = self.node.client.post(self.node.url, **request)  # type: ignore[arg-type]
        except httpx.TransportError:
            return False
        if answer.status_code == httpx.codes.OK:
            self.acknowledged[sent_ms] = time.time()
        elif answer.status_code not in _LATER:
            self.refusals.append(answer.status_code)
        return answer.status_code not in _LATER
