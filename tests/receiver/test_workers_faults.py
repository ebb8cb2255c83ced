"""What goes wrong with workers: readers that do not read, silent clients, hung workers, torn files."""

from __future__ import annotations

import contextlib
import gc
import logging
import socket
import sys
from typing import TYPE_CHECKING
from uuid import uuid4

import httpx
import msgspec
import psutil
import pytest
from receiver.raw import LONG_TAGS, reading_nothing
from receiver.scene import problem, receiver_settings, running
from receiver.test_workers import WORKERS, clients, connections, nodes_of, publish, started, workers_of

from openclaw_exporter.receiver.discovery import streaming
from openclaw_exporter.receiver.kept import Kept, TlsFiles
from openclaw_exporter.receiver.settings import DiscoverySettings
from openclaw_exporter.receiver.store.embedded import EmbeddedStore
from openclaw_exporter.receiver.workers import crew, member
from openclaw_exporter.receiver.workers.door import next_passed
from openclaw_exporter.receiver.workers.keeper import Keeper
from openclaw_exporter.receiver.workers.messages import Greeting
from support.command import ReceiverCommand
from support.descriptors import none_left
from support.key_server import KeyServer
from support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from receiver.scene import Node, Running

    from support.nodes import PlayedNode
    from support.pki import Pki


@pytest.fixture
def key_server(pki: Pki) -> Iterator[KeyServer]:
    server = KeyServer(pki.jwks.read_bytes())
    yield server
    server.close()


def test_a_connection_without_a_descriptor_is_not_the_end_of_them() -> None:
    registry, worker = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours, theirs = socket.socketpair()
    with registry, worker, ours, theirs:
        for _ in range(2):
            socket.send_fds(registry, [b"-"], [theirs.fileno()])
        with none_left(), pytest.raises(OSError, match="Too many open files"):
            next_passed(worker)
        passed = next_passed(worker)
        assert passed is not None
        passed.close()
        registry.close()
        assert next_passed(worker) is None


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
            wait_until(lambda: _answers(scene.node()), what="an answer of the other")
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
        wait_until(lambda: turned_away, what="time that is no listening time")


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


def _is_refused(node: Node) -> bool:
    try:
        return node.beat().status_code == 403
    except httpx.RemoteProtocolError:
        # Whoever is denied loses the connection, here while a request was on its way.
        return False


def _workers() -> list[psutil.Process]:
    """Return the receiver's: other tests may have left this process children of their own."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            line = " ".join(child.cmdline())
            if "openclaw_exporter.receiver.workers" in line or "time.sleep(3600)" in line:
                found.append(child)
    return found


@pytest.mark.parametrize("torn", ["ca", "certificate", "key", "jwks", "deny_list"])
def test_workers_that_start_while_a_file_is_torn_serve_with_the_last_good_one(
    pki: Pki, tmp_path: Path, caplog: pytest.LogCaptureFixture, torn: str
) -> None:
    server = pki.server()
    contents = {
        "ca": pki.ca.read_bytes(),
        "certificate": server.certificate.read_bytes(),
        "key": server.key.read_bytes(),
        "jwks": pki.jwks.read_bytes(),
        "deny_list": f"{uuid4()}\n".encode(),
    }
    files = {name: tmp_path / name for name in contents}
    for name, content in contents.items():
        files[name].write_bytes(content)
    tls = {name: path for name, path in files.items() if name != "jwks"}
    settings = receiver_settings(pki, tmp_path, workers=2, tls=tls, tokens={"jwks": str(files["jwks"])})
    with running(pki, settings) as scene, caplog.at_level(logging.INFO):
        denied = scene.node()
        # What was good when it started is not what is good now.
        files["deny_list"].write_bytes(f"{denied.node_id}\n".encode())
        wait_until(lambda: _is_refused(denied), what="the denial")
        wait_until(lambda: denied.node_id.encode() in _kept(), what="the registry's process to know of it")
        good = files[torn].read_bytes()
        files[torn].write_bytes(good[:-30])
        wait_until(lambda: "stays in" in caplog.text, what="what is wrong")
        _replace_workers(scene)
        assert scene.node().beat().status_code == 200
        assert problem(denied.beat()) == (403, "node-denied")
        # They find it good again as those did that they stand in for.
        files[torn].write_bytes(good)
        wait_until(lambda: "can be used again" in caplog.text, what="the end of it")


def test_workers_that_start_while_the_keys_url_is_away_verify_at_once(
    pki: Pki, tmp_path: Path, key_server: KeyServer
) -> None:
    settings = receiver_settings(pki, tmp_path, workers=2, tokens={"jwks": key_server.url})
    with running(pki, settings) as scene:
        assert scene.node().beat().status_code == 200
        key_server.close()
        _replace_workers(scene)
        assert [scene.node().beat().status_code for _ in range(4)] == [200] * 4


def test_nothing_prints_a_key_that_is_handed_over() -> None:
    files = TlsFiles(b"CA", b"CERTIFICATE", b"SECRET")
    greeting = Greeting(b"", 0, Kept(files, b"", {}))
    assert "SECRET" not in repr(greeting)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(greeting), type=Greeting).kept.tls == files


def _replace_workers(scene: Running) -> None:
    """Kill all workers and wait for others."""
    before = {worker.pid for worker in _workers()}
    for worker in _workers():
        worker.kill()
    wait_until(lambda: not before & {one.pid for one in _workers()}, what="their end")
    wait_until(lambda: scene.admin.get("/readyz").status_code == 200, what="other workers")


def _kept() -> bytes:
    """Return the deny list that the registry's process would hand to a worker now."""
    keepers = [one for one in gc.get_objects() if type(one) is Keeper]
    return b"".join(keeper.kept.denied or b"" for keeper in keepers)


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
