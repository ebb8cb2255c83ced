"""Three receivers in processes of their own on one Redis: killed, added, and without their Redis."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from httpx import codes

from support.command import ReceiverCommand
from support.nodes import PlayedNode, mutual_tls_client
from support.redis import RedisServer
from support.sse import Events
from support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    import httpx

    from support.pki import Pki

SHORT = "min_interval = 1\nmax_interval = 120\ndefault_interval = 60"


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    (tmp_path / "redis").mkdir()
    server = RedisServer(tmp_path / "redis", "--appendonly", "yes")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def receivers(pki: Pki, tmp_path: Path, redis_server: RedisServer) -> Iterator[list[ReceiverCommand]]:
    commands = []
    for number in range(3):
        directory = tmp_path / f"receiver{number}"
        directory.mkdir()
        command = ReceiverCommand(directory, pki, extra=SHORT, store=f'url = "{redis_server.url}"')
        command.start()
        commands.append(command)
    for command in commands:
        command.ready(timeout=180)
    yield commands
    for command in commands:
        command.stop()


class Swarm:
    """Some nodes that beat at any receiver."""

    def __init__(self, pki: Pki, receivers: list[ReceiverCommand], count: int) -> None:
        self._pki = pki
        self._receivers = receivers
        self.nodes = [PlayedNode(pki, receivers[0].url, interval=120) for _ in range(count)]
        self.acknowledged: Counter[str] = Counter()

    def beat(self, *places: int) -> None:
        """Let each node beat at each of these receivers."""
        for node in self.nodes:
            for place in places:
                _, request = node.next_request()
                url = f"{self._receivers[place].url}/openclaw/availability"
                allowed = {"recorded"}
                while (answer := node.client.post(url, **request)).status_code == codes.SERVICE_UNAVAILABLE:
                    # On a crowded machine: the same once more, which may have been stored.
                    allowed.add("duplicate")
                    time.sleep(0.2)
                assert answer.json().get("result") in allowed, answer.text
                self.acknowledged[node.node_id] += 1

    def close(self) -> None:
        for node in self.nodes:
            node.close()

    def reader(self, place: int) -> httpx.Client:
        return mutual_tls_client(self._pki.ca, self._pki.reader(), base_url=self._receivers[place].url)

    def shown(self, place: int) -> dict[str, str]:
        """Return the states of all nodes, as a receiver shows them."""
        with self.reader(place) as client:
            nodes: list[dict[str, Any]] = client.get("/openclaw/nodes").json()["nodes"]
        return {node["node_id"]: node["state"] for node in nodes}

    def stored(self, place: int) -> Counter[str]:
        """Return how many arrivals of each node a receiver tells."""
        with self.reader(place) as client:
            return Counter(
                {
                    node.node_id: len(client.get(f"/openclaw/nodes/{node.node_id}/history").json()["history"])
                    for node in self.nodes
                }
            )


def total(receivers: list[ReceiverCommand], name: str) -> float:
    """Return a metric's sum over all receivers and series."""
    return sum(
        value
        for receiver in receivers
        for sample, value in receiver.metrics().items()
        if sample.partition("{")[0] == name
    )


def test_receivers_die_and_come_back_and_nothing_acknowledged_is_lost(
    pki: Pki, receivers: list[ReceiverCommand]
) -> None:
    swarm = Swarm(pki, receivers, 5)
    try:
        with swarm.reader(1) as client, client.stream("GET", "/openclaw/events") as response:
            messages = iter(Events(response))
            swarm.beat(0, 1, 2)
            told = [next(messages) for _ in range(5)]
        assert {message.event for message in told} == {"registered"}
        last_id = told[-1].last_id
        wait_until(
            lambda: total(receivers, "openclaw_registry_node_registered_total") == 5,
            what="the registrations, counted",
        )
        for number, receiver in enumerate(receivers):
            others = [one for one in range(3) if one != number]
            receiver.kill()
            swarm.beat(*others)
            assert swarm.stored(others[0]) == swarm.acknowledged
            receiver.start()
            receiver.ready(timeout=180)
            swarm.beat(number)
            wait_until(lambda one=number: set(swarm.shown(one).values()) == {"up"}, what="all nodes again")
            assert swarm.stored(number) == swarm.acknowledged
        swarm.nodes[0].interval = 1
        swarm.beat(0)
        silent = swarm.nodes[0].node_id
        for one in range(3):
            with (
                swarm.reader(one) as client,
                client.stream("GET", "/openclaw/events", headers={"Last-Event-ID": last_id}) as response,
            ):
                told = []
                for message in Events(response):
                    told.append((message.event, message.node_id))
                    if message.event == "expired":
                        break
                assert told == [("late", silent), ("expired", silent)]
        wait_until(
            lambda: total(receivers, "openclaw_registry_node_expired_total") == 1, what="the expiry, counted"
        )
        # One of them counts the fleet for all.
        wait_until(
            lambda: total(receivers, "openclaw_registry_node_count") == 5,
            what="the fleet, counted once",
        )
    finally:
        swarm.close()


def test_without_its_redis_a_receiver_says_so_and_recovers(
    pki: Pki, receivers: list[ReceiverCommand], redis_server: RedisServer
) -> None:
    swarm = Swarm(pki, receivers, 2)
    try:
        swarm.beat(0, 1, 2)
        redis_server.stop()
        node = swarm.nodes[0]
        for receiver in receivers:
            _, request = node.next_request()
            answer = node.client.post(f"{receiver.url}/openclaw/availability", **request)
            assert (answer.status_code, answer.json()["type"].rpartition(":")[2]) == (
                503,
                "store-unavailable",
            )
            assert int(answer.headers["retry-after"]) > 0
        # Reading goes on.
        assert set(swarm.shown(1).values()) == {"up"}
        redis_server.start()
        for receiver in receivers:
            receiver.ready(timeout=180)
        swarm.beat(0, 1, 2)
        assert swarm.stored(2) == swarm.acknowledged
        assert total(receivers, "openclaw_registry_node_expired_total") == 0
        wait_until(
            lambda: total(receivers, "openclaw_registry_store_partition_away") == 0,
            what="every partition, back",
        )
        for receiver in receivers:
            assert "Traceback" not in receiver.text()
    finally:
        swarm.close()
