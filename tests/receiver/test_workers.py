"""A receiver with two worker processes: kept connections, reading, limits, rotation, deaths, its end."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

import httpx
import psutil
import pytest
from receiver.scene import problem, receiver_settings, running

from openclaw_exporter.errors import UserError
from openclaw_exporter.receiver import key_sources
from openclaw_exporter.receiver.workers import crew, member
from support.command import ReceiverCommand
from support.key_server import KeyServer
from support.nodes import PlayedNode, mutual_tls_client
from support.sse import Events
from support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.pki import Pki

WORKERS = "workers = 2\n"
RECEIVED = "openclaw_registry_heartbeat_received_total"
REFUSED = "openclaw_registry_heartbeat_refused_total"
REQUESTS = "http_server_request_duration_seconds_count"


@pytest.fixture(scope="module")
def two(pki: Pki, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReceiverCommand]:
    """A receiver with two workers, for the tests that leave it as it was."""
    with started(ReceiverCommand(tmp_path_factory.mktemp("two"), pki, extra=WORKERS)) as receiver:
        yield receiver


@contextmanager
def started(receiver: ReceiverCommand) -> Iterator[ReceiverCommand]:
    receiver.start()
    try:
        receiver.ready()
        yield receiver
    finally:
        assert receiver.stop() == 0
    assert "Traceback" not in receiver.text(), receiver.text()


@contextmanager
def nodes_of(pki: Pki, receiver: ReceiverCommand, count: int) -> Iterator[list[PlayedNode]]:
    nodes = [PlayedNode(pki, receiver.url) for _ in range(count)]
    try:
        yield nodes
    finally:
        for node in nodes:
            node.close()


def workers_of(receiver: ReceiverCommand) -> list[psutil.Process]:
    assert receiver.process is not None
    return [child for child in psutil.Process(receiver.process.pid).children() if not _is_zombie(child)]


def connections(receiver: ReceiverCommand) -> list[int]:
    """How many clients each worker has."""
    return [clients(worker, receiver.port) for worker in workers_of(receiver)]


def clients(worker: psutil.Process, port: int) -> int:
    """How many clients of a port a worker has; none where it has ended meanwhile."""
    try:
        return sum(one.laddr.port == port for one in worker.net_connections("tcp"))
    except psutil.NoSuchProcess:
        return 0


def publish(node: PlayedNode, **changes: object) -> httpx.Response:
    return node.client.post(node.url, **node.next_request(**changes)[1])


def reader(pki: Pki, receiver: ReceiverCommand) -> httpx.Client:
    return mutual_tls_client(pki.ca, pki.reader(), base_url=receiver.url)


def total(receiver: ReceiverCommand, *parts: str) -> float:
    return sum(value for name, value in receiver.metrics().items() if all(part in name for part in parts))


def test_kept_connections_are_spread_evenly(pki: Pki, two: ReceiverCommand) -> None:
    # Those of other tests are gone first.
    wait_until(lambda: sum(connections(two)) == 0, what="no connections")
    with nodes_of(pki, two, 8) as nodes:
        for count, node in enumerate(nodes, 1):
            assert publish(node).json()["result"] == "recorded"
            least, most = sorted(connections(two))
            assert (least + most, most - least) == (count, count % 2)


def test_what_one_worker_takes_readers_see_through_any(pki: Pki, two: ReceiverCommand) -> None:
    with nodes_of(pki, two, 2) as nodes, reader(pki, two) as one, reader(pki, two) as other:
        for node in nodes:
            publish(node, tags=("region:seen",))
        for client in (one, other):
            listed = client.get("/openclaw/nodes?tag=region:seen").json()["nodes"]
            assert {shown["node_id"] for shown in listed} == {node.node_id for node in nodes}
        shown = [client.get(f"/openclaw/nodes/{nodes[0].node_id}").json()["state"] for client in (one, other)]
        assert shown == ["up", "up"]
        refused = [client.get("/openclaw/nodes?limit=0") for client in (one, other)]
        assert [answer.status_code for answer in refused] == [400, 400]
        assert refused[0].json() == refused[1].json()
        assert one.head("/openclaw/events").headers["content-type"] == "text/event-stream"
        assert one.get("/openapi.json").json()["openapi"] == other.get("/openapi.json").json()["openapi"]


def test_events_come_through_any_worker_and_resume_through_another(pki: Pki, two: ReceiverCommand) -> None:
    with (
        reader(pki, two) as one,
        reader(pki, two) as other,
        one.stream("GET", "/openclaw/events?event=registered", timeout=60) as first,
        other.stream("GET", "/openclaw/events?event=registered", timeout=60) as second,
        nodes_of(pki, two, 4) as nodes,
    ):
        streams = [Events(first), Events(second)]
        for node in nodes:
            publish(node)
        told = [events.take(4) for events in streams]
        names = [[message.node_id for message in messages] for messages in told]
        assert names[0] == names[1] == [node.node_id for node in nodes]
        after = told[0][1].last_id
        with reader(pki, two) as third:
            again = third.stream("GET", "/openclaw/events?event=registered", headers={"Last-Event-ID": after})
            with again as response:
                assert [message.node_id for message in Events(response).take(2)] == names[0][2:]


def test_only_readers_read_and_only_nodes_publish(pki: Pki, two: ReceiverCommand) -> None:
    with nodes_of(pki, two, 1) as (node,), reader(pki, two) as client:
        assert node.client.get(f"{two.url}/openclaw/nodes").status_code == 403
        assert client.post(node.url, **node.next_request()[1]).status_code == 403


def test_every_worker_counts_once(pki: Pki, tmp_path: Path) -> None:
    with (
        started(ReceiverCommand(tmp_path, pki, extra=WORKERS)) as receiver,
        nodes_of(pki, receiver, 4) as nodes,
    ):
        for node in nodes:
            for _ in range(5):
                assert publish(node).status_code == 200
            assert node.client.post(node.url, content=b"{}", headers=node.headers).status_code == 422

        def counts() -> tuple[float, float, float]:
            requests = total(receiver, REQUESTS, 'http_route="/openclaw/availability"')
            return total(receiver, RECEIVED), total(receiver, REFUSED, "invalid-fields"), requests

        # Workers tell once a second what they have counted.
        wait_until(lambda: counts() == (20, 4, 24), what="the counts of both workers")
        assert receiver.process is not None
        tree = [psutil.Process(receiver.process.pid), *workers_of(receiver)]
        assert total(receiver, "process_memory_usage_bytes") > max(one.memory_info().rss for one in tree)
        used = total(receiver, "process_cpu_time_seconds_total")
        assert used > max(sum(one.cpu_times()[:2]) for one in tree[1:])
        for worker in tree[1:]:
            worker.kill()
        wait_until(lambda: receiver.text().count("another is started") == 2, what="two deaths")
        # What the dead have used is not taken back.
        assert total(receiver, "process_cpu_time_seconds_total") >= used


def test_one_node_is_limited_over_all_workers(pki: Pki, tmp_path: Path) -> None:
    receiver = ReceiverCommand(tmp_path, pki, extra=WORKERS, rate=0.001)
    config = tmp_path / "receiver.toml"
    config.write_text(config.read_text().replace("burst = 1000", "burst = 10"))
    with started(receiver), nodes_of(pki, receiver, 1) as (node,):
        # The same certificate for both, so that one token is good for both.
        clients = [node.client, mutual_tls_client(pki.ca, node.files)]
        answers = [client.post(node.url, **node.next_request()[1]) for _ in range(10) for client in clients]
        assert sorted(connections(receiver)) == [1, 1]
        assert [answer.status_code for answer in answers] == [200] * 10 + [429] * 10
        assert all(int(answer.headers["retry-after"]) > 0 for answer in answers[10:])
        wait_until(lambda: total(receiver, REFUSED, "rate-limited") == 10, what="the count of refusals")
        for client in clients:
            client.close()


def test_what_rotates_rotates_in_every_worker(pki: Pki, tmp_path: Path) -> None:
    deny = tmp_path / "denied"
    deny.write_text("# nobody\n")
    receiver = ReceiverCommand(tmp_path, pki, extra=WORKERS)
    config = tmp_path / "receiver.toml"
    config.write_text(config.read_text().replace("trust_domain", f'deny_list = "{deny}"\ntrust_domain'))
    with started(receiver), nodes_of(pki, receiver, 4) as nodes:
        for node in nodes:
            assert publish(node).status_code == 200
        assert connections(receiver) == [2, 2]
        _replace(deny, "".join(f"{node.node_id}\n" for node in nodes[:2]))
        assert receiver.process is not None
        os.kill(receiver.process.pid, signal.SIGHUP)
        # One of them at each worker: both end their connections.
        wait_until(lambda: connections(receiver) == [1, 1], what="the end of the denied nodes' connections")
        assert [publish(node).status_code for node in nodes] == [403, 403, 200, 200]
        before = {_served(receiver, pki) for _ in range(4)}
        assert len(before) == 1
        pki.server()
        wait_until(
            lambda: before.isdisjoint({_served(receiver, pki) for _ in range(4)}),
            what="the new certificate at both workers",
        )
        assert publish(nodes[3]).status_code == 200
    assert receiver.text().count("the deny list has changed") == 1


def _replace(path: Path, text: str) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(path)


def _served(receiver: ReceiverCommand, pki: Pki) -> str:
    """Return the certificate that a new connection is shown."""
    return ssl.get_server_certificate(("127.0.0.1", receiver.port), ca_certs=str(pki.ca), timeout=30)


def test_a_worker_that_is_killed_is_replaced_and_nobody_waits_for_it(pki: Pki, tmp_path: Path) -> None:
    with started(ReceiverCommand(tmp_path, pki, extra=WORKERS)) as receiver:
        with nodes_of(pki, receiver, 4) as nodes, reader(pki, receiver) as client:
            for node in nodes:
                publish(node)
            with client.stream("GET", "/openclaw/events", timeout=60) as response:
                Events(response)
                for victim in workers_of(receiver):
                    victim.kill()
                with pytest.raises(httpx.TransportError):
                    response.read()
            wait_until(lambda: len(workers_of(receiver)) == 2, what="two other workers")
            for node in nodes:
                wait_until(lambda node=node: _answered(node), what="an answer of another worker")  # type: ignore[misc]
            # What readers of a dead worker held has been let go.
            assert client.get("/openclaw/nodes").status_code == 200
        assert receiver.text().count("has ended with -9; another is started") == 2
        assert total(receiver, "openclaw_registry_node_expired_total") == 0


def _answered(node: PlayedNode) -> bool:
    try:
        return publish(node).status_code == 200
    except httpx.TransportError:
        return False


def test_a_worker_that_is_told_to_end_lets_requests_end(pki: Pki, tmp_path: Path) -> None:
    with started(ReceiverCommand(tmp_path, pki, extra=WORKERS)) as receiver:
        with nodes_of(pki, receiver, 2) as nodes:
            for node in nodes:
                publish(node)
            first = workers_of(receiver)[0]
            first.send_signal(signal.SIGINT)  # as a terminal sends to all
            first.send_signal(signal.SIGTERM)
            wait_until(lambda: first not in workers_of(receiver), what="its end")
            wait_until(lambda: len(workers_of(receiver)) == 2, what="another worker")
            wait_until(lambda: all(_answered(node) for node in nodes), what="answers")
        assert "has ended with 0; another is started" in receiver.text()


def test_workers_end_with_the_process_that_holds_the_registry(pki: Pki, tmp_path: Path) -> None:
    receiver = ReceiverCommand(tmp_path, pki, extra=WORKERS)
    receiver.start()
    receiver.ready()
    with nodes_of(pki, receiver, 2) as nodes:
        for node in nodes:
            assert publish(node).status_code == 200
        orphans = workers_of(receiver)
        receiver.kill()
        _, left = psutil.wait_procs(orphans, timeout=60)
        assert left == []
        # The port is free at once, and what was acknowledged is there.
        with started(receiver), reader(pki, receiver) as client:
            listed = client.get("/openclaw/nodes").json()["nodes"]
            assert {shown["node_id"] for shown in listed} == {node.node_id for node in nodes}


def test_a_worker_that_hangs_stops_listening_time_and_is_replaced(
    pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "_STALLED", 4)
    monkeypatch.setattr(crew, "_HANGS", 120)
    settings = receiver_settings(pki, tmp_path, workers=2, min_interval=1)
    with running(pki, settings) as scene:
        node = scene.node()
        node.beat({"OpenClaw-Interval": "10"})
        hanging = [child for child in psutil.Process().children() if _serves(child, scene.port)]
        assert len(hanging) == 1
        hanging[0].suspend()
        # The node cannot be heard: its 20 seconds pass, and it is not expired.
        wait_until(lambda: not hanging[0].is_running() or _is_zombie(hanging[0]), what="its replacement")
        fresh = scene.node()
        wait_until(lambda: fresh.beat().status_code == 200, what="an answer")
        assert scene.reader().get(f"/openclaw/nodes/{node.node_id}").json()["state"] in ("up", "late")


def _serves(worker: psutil.Process, port: int) -> bool:
    return clients(worker, port) > 0


def _is_zombie(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_worker_that_cannot_start_is_a_clear_error(
    pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(member, "_COMMAND", (sys.executable, "-c", "raise SystemExit(3)"))
    settings = receiver_settings(pki, tmp_path, workers=2)
    with pytest.raises(UserError, match="ended with 3 before it was ready"), running(pki, settings):
        pass


def test_a_worker_that_cannot_be_started_again_is_tried_again(
    pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries = []
    settings = receiver_settings(pki, tmp_path, workers=2)
    with running(pki, settings) as scene:
        start = subprocess.Popen

        def fails_once(*arguments: object, **keywords: object) -> object:
            tries.append(arguments)
            if len(tries) == 1:
                raise OSError(11, "Resource temporarily unavailable")
            return start(*arguments, **keywords)  # type: ignore[call-overload]

        monkeypatch.setattr(member.subprocess, "Popen", fails_once)
        scene.node().beat()
        victim = next(child for child in psutil.Process().children() if _serves(child, scene.port))
        victim.kill()
        wait_until(lambda: len(tries) == 2, what="a second try")
        wait_until(lambda: scene.admin.get("/readyz").status_code == 200, what="readiness")
        assert scene.node().beat().status_code == 200
    assert "a worker cannot be started" in caplog.text


def test_bad_files_are_found_before_a_worker_is_started(pki: Pki, tmp_path: Path) -> None:
    settings = receiver_settings(pki, tmp_path, workers=2, tokens={"jwks": str(tmp_path / f"{uuid4()}.json")})
    with pytest.raises(UserError, match="cannot be read"), running(pki, settings):
        pass


@pytest.fixture
def key_server(pki: Pki) -> Iterator[KeyServer]:
    server = KeyServer(pki.jwks.read_bytes())
    yield server
    server.close()


def test_a_key_set_is_fetched_once_for_all_workers(pki: Pki, tmp_path: Path, key_server: KeyServer) -> None:
    settings = receiver_settings(pki, tmp_path, workers=2, tokens={"jwks": key_server.url})
    with running(pki, settings) as scene:
        nodes = [scene.node() for _ in range(2)]
        assert [node.beat().status_code for node in nodes] == [200, 200]
        for node in nodes:
            node.token = node.mint(kid="nobody's")
            assert problem(node.beat()) == (401, "token-key-unknown")
        assert key_server.fetches == 1


def test_a_key_server_that_is_away_is_asked_for_all_workers_until_it_is_back(
    pki: Pki, tmp_path: Path, key_server: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_sources, "MIN_FETCH_INTERVAL", 0.1)
    document, key_server.document = key_server.document, None
    settings = receiver_settings(pki, tmp_path, workers=2, tokens={"jwks": key_server.url})
    with running(pki, settings) as scene:
        node = scene.node()
        assert problem(node.beat()) == (503, "store-unavailable")
        assert scene.admin.get("/readyz").json()["checks"]["keys"] is False
        key_server.document = document
        # The workers keep to their thirty seconds.
        wait_until(lambda: node.beat().status_code == 200, what="the keys")
