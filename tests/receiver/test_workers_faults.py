"""What goes wrong with workers: readers that do not read, silent clients, hung workers, torn files."""

from __future__ import annotations

import contextlib
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import httpx
import psutil
from receiver.raw import LONG_TAGS, reading_nothing
from receiver.scene import receiver_settings, running
from receiver.test_workers import WORKERS, clients, connections, nodes_of, publish, started, workers_of

from openclaw_exporter.receiver.discovery import streaming
from openclaw_exporter.receiver.settings import DiscoverySettings
from openclaw_exporter.receiver.store.embedded import EmbeddedStore
from openclaw_exporter.receiver.workers import crew, member
from support.command import ReceiverCommand
from support.wait import wait_until

if TYPE_CHECKING:
    import pytest
    from receiver.scene import Node

    from support.nodes import PlayedNode
    from support.pki import Pki


def test_a_reader_that_does_not_read_loses_its_connection_and_its_place(
    pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "SEND_SECONDS", 0.2)
    discovery = DiscoverySettings(events_kept=100, subscribers=1)
    settings = receiver_settings(pki, tmp_path, workers=2, discovery=discovery)
    with running(pki, settings) as scene, reading_nothing(scene, pki):
        node = scene.node()
        reader = scene.reader()

        def has_left() -> bool:
            for _ in range(50):
                assert node.beat(tags=LONG_TAGS).status_code == 200
            with reader.stream("GET", "/openclaw/events") as response:
                return response.status_code == 200

        # It reads nothing meanwhile, and its place is the only one.
        wait_until(has_left, timeout=240, what="a free place")


def test_clients_that_say_nothing_keep_nobody_out(pki: Pki, tmp_path: Path) -> None:
    receiver = ReceiverCommand(tmp_path, pki, extra=WORKERS)
    config = tmp_path / "receiver.toml"
    config.write_text(config.read_text().replace("burst = 1000", "burst = 1000\nhandshake_timeout = 300"))
    with started(receiver), contextlib.ExitStack() as silent:
        for _ in range(900):
            silent.enter_context(socket.create_connection(("127.0.0.1", receiver.port), timeout=60))
        with nodes_of(pki, receiver, 1) as (node,):
            node.client.timeout = 60
            assert publish(node).status_code == 200


def test_a_worker_that_hangs_gets_no_more_connections(
    pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "_HANGS", 100_000)
    with running(pki, receiver_settings(pki, tmp_path, workers=2)) as scene:
        hanging = _workers()[0]

        for _ in range(16):
            before, node = clients(hanging, scene.port), scene.node()
            assert node.beat().status_code == 200
            if clients(hanging, scene.port) > before:
                node.client.close()
                wait_until(
                    lambda before=before: clients(hanging, scene.port) == before,
                    what="the end of a connection",
                )  # type: ignore[misc]
        hanging.suspend()
        try:
            # The other has many connections, it has none; still none goes to it.
            wait_until(lambda: _answers(scene.node()), timeout=60, what="an answer of the other")
            assert hanging.status() == psutil.STATUS_STOPPED
        finally:
            hanging.resume()


def _answers(node: Node) -> bool:
    node.client.timeout = 5
    try:
        return node.beat().status_code == 200
    except httpx.TransportError:
        return False


def test_those_who_were_told_to_wait_are_waited_for_whoever_told_them(
    pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turned_away: list[bool] = []
    shed = EmbeddedStore.shed
    monkeypatch.setattr(EmbeddedStore, "shed", lambda store: turned_away.append(True) or shed(store))  # type: ignore[func-returns-value]
    settings = receiver_settings(pki, tmp_path, workers=2, limits={"connections": 2, "readmissions": 2.0})
    with running(pki, settings) as scene:
        for _ in range(2):
            assert scene.node().beat().status_code == 200
        # One a second of each worker may come back: the last of them in two minutes and more.
        for _ in range(300):
            with scene.tls(pki.node(str(uuid4()))) as one_too_many:
                assert b"503" in one_too_many.recv(100)
        told = {worker.pid for worker in _workers()}
        for worker in _workers():
            worker.kill()
        wait_until(lambda: not told & {one.pid for one in _workers()}, what="their end")
        admin = scene.admin
        wait_until(lambda: admin.get("/readyz").status_code == 200, what="other workers")
        turned_away.clear()
        wait_until(lambda: turned_away, timeout=20, what="time that is no listening time")


def test_a_worker_that_hangs_as_it_starts_is_replaced(
    pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "_HANGS", 30)
    monkeypatch.setattr(crew, "_STARTS", 60, raising=False)
    settings = receiver_settings(pki, tmp_path, workers=2)
    with running(pki, settings) as scene:
        command = member._COMMAND
        monkeypatch.setattr(member, "_COMMAND", (sys.executable, "-c", "import time; time.sleep(3600)"))
        before = _workers()
        before[0].kill()
        wait_until(
            lambda: any("sleep" in " ".join(child.cmdline()) for child in _workers()), what="a hanging one"
        )
        monkeypatch.setattr(member, "_COMMAND", command)
        wait_until(
            lambda: len([one for one in _workers() if "sleep" not in " ".join(one.cmdline())]) == 2,
            what="one that starts in its place",
        )
        wait_until(lambda: scene.node().beat().status_code == 200, what="an answer")


def _workers() -> list[psutil.Process]:
    """Return the receiver's: other tests may have left this process children of their own."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            line = " ".join(child.cmdline())
            if "openclaw_exporter.receiver.workers" in line or "time.sleep(3600)" in line:
                found.append(child)
    return found


def test_a_worker_that_starts_with_bad_files_says_so_and_is_tried_again(pki: Pki, tmp_path: Path) -> None:
    receiver = ReceiverCommand(tmp_path, pki, extra=WORKERS)
    lines = (tmp_path / "receiver.toml").read_text().splitlines()
    certificate = Path(next(line for line in lines if line.startswith("certificate =")).split('"')[1])
    good = certificate.read_bytes()
    with started(receiver):
        try:
            certificate.write_bytes(b"torn")
            workers_of(receiver)[0].kill()
            wait_until(lambda: "a worker cannot start: " in receiver.text(), what="what is wrong")
            with nodes_of(pki, receiver, 2) as nodes:
                for node in nodes:
                    wait_until(lambda node=node: _published(node), what="the other worker")  # type: ignore[misc]
        finally:
            certificate.write_bytes(good)
        wait_until(lambda: _spread(pki, receiver), what="connections at two workers")


def _spread(pki: Pki, receiver: ReceiverCommand) -> bool:
    with nodes_of(pki, receiver, 2) as nodes:
        return all(_published(node) for node in nodes) and sorted(connections(receiver)) == [1, 1]


def _published(node: PlayedNode) -> bool:
    try:
        return publish(node).status_code == 200
    except httpx.TransportError:
        return False


def test_who_connects_while_there_is_no_worker_is_answered_by_the_next(pki: Pki, tmp_path: Path) -> None:
    with started(ReceiverCommand(tmp_path, pki, extra=WORKERS)) as receiver:
        for victim in workers_of(receiver):
            victim.kill()
        wait_until(lambda: receiver.text().count("another is started") == 2, what="two deaths")
        with nodes_of(pki, receiver, 1) as (node,):
            # Nobody else comes, and it tries no second time.
            node.client.timeout = 60
            assert publish(node).status_code == 200


def test_workers_that_come_and_go_leave_nothing_open(pki: Pki, tmp_path: Path) -> None:
    with started(ReceiverCommand(tmp_path, pki, extra=WORKERS)) as receiver:
        assert receiver.process is not None
        holder = psutil.Process(receiver.process.pid)
        before = holder.num_fds()
        for count in range(1, 4):
            for victim in workers_of(receiver):
                victim.kill()
            wait_until(
                lambda count=count: receiver.text().count("another is started") == 2 * count,  # type: ignore[misc]
                timeout=120,
                what="two deaths",
            )
            wait_until(lambda: len(workers_of(receiver)) == 2, timeout=120, what="two workers")
        wait_until(lambda: holder.num_fds() <= before, what="as few descriptors as at first")
