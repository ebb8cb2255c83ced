"""New connections: so many in a round, none that has waited too long, none lost for want of descriptors."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

import pytest
from receiver.scene import receiver_settings, running

from openclaw_exporter.receiver import entrance
from openclaw_exporter.receiver.entrance import Entrance, has_waited_too_long
from openclaw_exporter.receiver.listener import bind
from openclaw_exporter.receiver.workers.door import Door, next_passed
from support.wait import come_true

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.pki import Pki


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with bind("127.0.0.1", 0, "test") as made:
        yield made


def connect(listening: socket.socket, count: int) -> list[socket.socket]:
    clients = []
    for _ in range(count):
        client = socket.create_connection(listening.getsockname())
        # Whoever is let go may hear of it before saying anything.
        with contextlib.suppress(ConnectionError):
            client.sendall(b"hello")
        clients.append(client)
    return clients


def is_let_go(address: tuple[str, int]) -> bool:
    """Connect, and wait for the end; the reset may come at any step."""
    try:
        with socket.create_connection(address, timeout=60) as late:
            late.sendall(b"hello")
            return not late.recv(1)
    except ConnectionError:
        return True


class Guests:
    """Whoever was taken; each stays until told to go."""

    def __init__(self) -> None:
        self.taken: list[socket.socket] = []
        self.going = asyncio.Event()

    async def take(self, connection: socket.socket) -> None:
        self.taken.append(connection)
        await self.going.wait()
        connection.close()


def test_so_many_are_begun_in_a_round(listening: socket.socket) -> None:
    async def run() -> None:
        clients = connect(listening, 40)
        guests = Guests()
        doors = Entrance(listening, lambda: listening.accept()[0], guests.take)
        doors._look()
        assert doors.handshakes == 16
        await come_true(lambda: len(guests.taken) == 40)
        assert (doors.count, doors.handshakes) == (40, 40)
        guests.going.set()
        await come_true(lambda: doors.handshakes == 0)
        assert not doors.has_turned_away()
        await doors.close()
        for client in clients:
            client.close()

    asyncio.run(run())


def test_who_has_gone_or_waited_for_too_long_is_let_go(
    listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        gone, waiting = connect(listening, 2)
        gone.close()
        guests = Guests()
        doors = Entrance(listening, lambda: listening.accept()[0], guests.take)
        await come_true(lambda: doors.count == 2)
        assert len(guests.taken) == 1
        assert doors.has_turned_away()
        assert not doors.has_turned_away()
        # Now nobody has the patience.
        monkeypatch.setattr(entrance, "_PATIENCE_MS", -1)
        assert await asyncio.to_thread(is_let_go, listening.getsockname())
        assert doors.has_turned_away()
        assert len(guests.taken) == 1
        # A handshake that is under way is given up at the end.
        await doors.close()
        guests.taken[0].close()
        waiting.close()

    asyncio.run(run())


def test_what_is_no_tcp_has_not_waited() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert not has_waited_too_long(one)


def test_who_finds_no_descriptor_is_taken_when_there_is_one(listening: socket.socket) -> None:
    async def run() -> None:
        (client,) = connect(listening, 1)
        guests = Guests()
        failures = [OSError(24, "Too many open files")]

        def receive() -> socket.socket:
            if failures:
                raise failures.pop()
            return listening.accept()[0]

        doors = Entrance(listening, receive, guests.take)
        await come_true(lambda: len(guests.taken) == 1)
        failures.append(OSError(24, "Too many open files"))
        (second,) = connect(listening, 1)
        await come_true(lambda: not failures)
        await doors.close()
        for one in (client, second, *guests.taken):
            one.close()

    asyncio.run(run())


class FullTaker:
    """Takes a connection at the second try."""

    load = 0

    def __init__(self) -> None:
        self.tries = 0

    def pass_on(self, connection: socket.socket) -> bool:
        assert connection.fileno() >= 0
        self.tries += 1
        return self.tries > 1


def test_a_connection_that_no_worker_has_room_for_is_held(listening: socket.socket) -> None:
    async def run() -> None:
        taker = FullTaker()
        doors = Door(listening, lambda: [taker])
        doors.open()
        clients = connect(listening, 1)
        await come_true(lambda: taker.tries == 2)
        taker.tries = -1_000_000
        clients += connect(listening, 1)
        await come_true(lambda: taker.tries > -1_000_000)
        # One that is still held at the end is closed.
        doors.close()
        clients[1].settimeout(60)
        with contextlib.suppress(ConnectionResetError):
            assert clients[1].recv(1) == b""
        for client in clients:
            client.close()

    asyncio.run(run())


def test_a_worker_s_entrance_ends_with_the_process_that_passes_connections() -> None:
    async def run() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.setblocking(False)
        with theirs, pytest.raises(BlockingIOError):
            next_passed(theirs)
        ours.close()

    asyncio.run(run())


def test_a_receiver_lets_nobody_expire_while_clients_are_let_go(
    pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(pki, receiver_settings(pki, tmp_path)) as scene:
        node = scene.node()
        assert node.beat().status_code == 200
        monkeypatch.setattr(entrance, "_PATIENCE_MS", -1)
        assert is_let_go(("127.0.0.1", scene.port))
        # Its connection is open, and it is heard.
        assert node.beat().status_code == 200
