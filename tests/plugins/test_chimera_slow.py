"""The chimera plugin over a slow way to a real Redis, which also counts the round trips."""

from __future__ import annotations

import select
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from support.chimera import Bench, depths

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.redis import RedisServer


class SlowWay:
    """A relay that passes on what one side said once that side has been silent for `hold` seconds.

    So a batch arrives as a whole however it was cut into packets, and `turns` counts how often the client
    spoke: its round trips.
    """

    def __init__(self, port: int) -> None:
        self._server = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.hold = 0.05
        self.turns = 0
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        """Stop listening, and wait for the last connection to end."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client, socket.create_connection(self._server) as server:
                while self._pass_on(client, server):
                    pass

    def _pass_on(self, client: socket.socket, server: socket.socket) -> bool:
        ready, _, _ = select.select([client, server], [], [])
        side = ready[0]
        said = self._all_of(side)
        if not said:
            return False
        self.turns += side is client
        try:
            (server if side is client else client).sendall(said)
        except OSError:
            return False
        return True

    def _all_of(self, side: socket.socket) -> bytes:
        said = b""
        while not said or select.select([side], [], [], self.hold)[0]:
            try:
                more = side.recv(65_536)
            except OSError:
                more = b""
            if not more:
                break
            said += more
        return said


@pytest.fixture
def bench(redis_server: RedisServer) -> Iterator[Bench]:
    bench = Bench(redis_server)
    yield bench
    bench.close()


@pytest.fixture
def way(redis_server: RedisServer) -> Iterator[SlowWay]:
    way = SlowWay(redis_server.port)
    yield way
    way.close()


def test_a_thousand_keys_are_one_round_trip(bench: Bench, way: SlowWay) -> None:
    pipeline = bench.client.pipeline()
    for number in range(1_000):
        pipeline.rpush(f"q:{number}", *range(number % 3)) if number % 3 else pipeline.zadd(
            f"q:{number}", {"a": 1}
        )
        pipeline.xadd("s", {"n": number})
    pipeline.execute()
    queues = bench.queues(
        url=f"redis://127.0.0.1:{way.port}/0",
        queues={"worker": ["q:*"], "judge": ["s"], "planner": ["none"]},
        created_at=["created_at"],
        max_keys=2_000,
    )
    expected = {"worker": 1_333, "judge": 1_000, "planner": 0}
    assert depths(queues) == expected
    before = way.turns
    assert depths(queues) == expected
    assert way.turns - before == 1
    queues.close()


def test_a_way_that_is_too_slow_is_unknown_and_comes_back_when_it_is_faster(
    bench: Bench, way: SlowWay
) -> None:
    queues = bench.queues(url=f"redis://127.0.0.1:{way.port}/0", queues={"worker": ["l"]}, socket_timeout=2.0)
    bench.client.rpush("l", 1)
    assert depths(queues) == {"worker": 1}
    way.hold = 4.0
    with pytest.raises(TimeoutError, match=r"gave no answer within 2 s"):
        queues.collect()
    way.hold = 0.01
    assert depths(queues) == {"worker": 1}
    queues.close()
