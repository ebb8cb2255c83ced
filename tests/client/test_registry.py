"""The read client and the real receiver."""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools
import queue
import socket
import threading
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from receiver.scene import receiver_settings, running

from openclaw_exporter.client import Registry, RegistryError
from openclaw_exporter.client import registry as module
from openclaw_exporter.client.events import EventParser, NodeEvent
from openclaw_exporter.errors import CredentialError, UserError
from openclaw_exporter.receiver.discovery import streaming
from support.pki import Pki
from support.ports import free_port
from support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from receiver.scene import Running

    from support.pki import Files


@pytest.fixture(scope="module")
def scene(pki: Pki, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(pki, receiver_settings(pki, tmp_path_factory.mktemp("receiver"))) as started:
        yield started


def opened(scene: Running, files: Files | None = None) -> Registry:
    shown = files or scene.pki.reader()
    return Registry(scene.url, ca=scene.pki.ca, certificate=str(shown.certificate), key=shown.key)


@pytest.fixture(scope="module")
def registry(scene: Running) -> Iterator[Registry]:
    with opened(scene) as reading:
        yield reading


def test_a_node_is_shown_with_its_types(scene: Running, registry: Registry) -> None:
    node = scene.node()
    before = dt.datetime.now(dt.UTC)
    sequence = {"OpenClaw-Sequence": "1700000000000.5"}
    assert node.beat(sequence, tags=["kind:typed"], uptime_seconds=7).status_code == 200
    found = registry.node(node.node_id.upper())
    assert found is not None
    assert (found.node_id, found.state, found.live, found.available_slots) == (node.node_id, "up", True, 5)
    assert abs(found.last_seen - before) < dt.timedelta(minutes=5)
    assert found.first_seen == found.last_seen < found.expires_at
    assert found.heartbeat.capacity == {"workers": 24, "available_slots": 5}
    assert found.heartbeat.tags == ("kind:typed",)
    assert found.heartbeat.uptime_seconds == 7
    (heard,) = registry.history(node.node_id)
    assert (heard.result, heard.sequence) == ("recorded", "1700000000000.5")
    assert heard.last_heartbeat == found.heartbeat.last_heartbeat
    assert node.beat({"OpenClaw-State": "draining"}).status_code == 200
    gone = registry.node(node.node_id)
    assert gone is not None
    assert (gone.state, gone.live, gone.available_slots) == ("draining", False, 0)


def test_nodes_are_filtered_and_paged(
    scene: Running, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAGE", 3)
    fleet = [scene.node() for _ in range(8)]
    for slots, node in enumerate(fleet):
        tags = ["fleet:paged", "half:a" if slots % 2 else "half:b c&d"]
        node.beat(capacity={"workers": 10, "available_slots": slots}, tags=tags)
    ids = sorted(node.node_id for node in fleet)
    assert [node.node_id for node in registry.nodes(tags=["fleet:paged"])] == ids
    assert [node.node_id for node in registry.nodes(states=["up"], tags=["fleet:paged"])] == ids
    assert list(registry.nodes(states=["expired"], tags=["fleet:paged"])) == []
    half = {node.available_slots for node in registry.nodes(tags=["fleet:paged", "half:b c&d"])}
    assert half == {0, 2, 4, 6}
    free = {node.available_slots for node in registry.nodes(tags=["fleet:paged"], min_available_slots=6)}
    assert free == {6, 7}
    assert [node.available_slots for node in registry.best(3, tags=["fleet:paged"])] == [7, 6, 5]
    assert len(registry.best(100, tags=["fleet:paged"])) == 7
    assert len(registry.best(100, tags=["fleet:paged"], min_available_slots=None)) == 8


def test_what_a_fleet_has_together(scene: Running, registry: Registry) -> None:
    for slots in (1, 2, 3):
        node = scene.node()
        capacity = {"workers": 4, "available_slots": slots, "gpus": 0.5}
        node.beat(capacity=capacity, queue_depth={"planner": 10 * slots}, tags=["fleet:sum", "swarm:blue"])
    found = registry.capacity(tags=["fleet:sum", "swarm:blue"])
    assert (found.nodes, found.workers, found.available_slots) == (3, 12, 6)
    assert (found.queue_depth, found.queue_depth_sum, found.resources) == ({"planner": 30}, 30, {"gpus": 1.5})
    assert registry.capacity(tags=["fleet:nobody"]).nodes == 0


def test_events_come_as_they_happen_and_go_on_behind_an_id(scene: Running, registry: Registry) -> None:
    node = scene.node()
    tags = ["fleet:events"]
    started = registry.events(tags=tags)
    heard: queue.Queue[NodeEvent] = queue.Queue()

    def listen() -> None:
        for event in started:
            heard.put(event)
            if event.event == "draining":
                return

    thread = threading.Thread(target=listen)
    thread.start()
    # Whether or not the reader is there already, later events say so.
    states = itertools.cycle([{}, {"OpenClaw-State": "draining"}])
    while thread.is_alive():
        assert node.beat(next(states), tags=tags).status_code == 200
        thread.join(0.2)
    events = [heard.get_nowait() for _ in range(heard.qsize())]
    assert events[-1].event == "draining"
    assert events[-1].node is not None
    assert (events[-1].node.node_id, events[-1].node.state) == (node.node_id, "draining")
    assert events[-1].at is not None
    started.close()  # type: ignore[attr-defined] # a generator
    assert node.beat(tags=tags).status_code == 200
    fresh = scene.node()
    assert fresh.beat(tags=tags).status_code == 200
    following = registry.events(tags=tags, events=["registered"], last_event_id=events[-1].last_event_id)
    found = next(following)
    assert found.node is not None
    assert (found.event, found.node.node_id) == ("registered", fresh.node_id)
    lost = next(registry.events(last_event_id="00000000-7"))
    assert (lost.event, lost.node, lost.at) == ("gap", None, None)


def test_events_go_on_after_the_receiver_was_away(
    pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "_RETRY_MS", (50, 100))
    settings = dataclasses.replace(receiver_settings(pki, tmp_path), port=free_port())
    files = pki.reader("listener")
    endpoint = f"https://localhost:{settings.port}"
    with Registry(endpoint, ca=pki.ca, certificate=files.certificate, key=files.key) as registry:
        with pytest.raises(RegistryError, match="does not answer"):
            next(registry.events())
        found: list[NodeEvent] = []
        with running(pki, settings) as scene:
            listening = registry.events()
            ahead = scene.node()

            def listen() -> None:
                for event in listening:
                    found.append(event)
                    if len({one.node.node_id for one in found if one.node}) == 2:
                        return

            thread = threading.Thread(target=listen)
            thread.start()
            states = itertools.cycle([{}, {"OpenClaw-State": "draining"}])

            def heard() -> bool:
                ahead.beat(next(states))
                return bool(found)

            wait_until(heard, what="the first event")
        with running(pki, settings) as scene:
            node = scene.node()

            def ended() -> bool:
                node.beat(next(states))
                return not thread.is_alive()

            wait_until(ended, what="an event of the receiver that came back")
    assert "gap" in [event.event for event in found]


def test_events_are_refused_to_nodes(scene: Running, registry: Registry) -> None:
    with opened(scene, scene.node().files) as wrong, pytest.raises(RegistryError, match="answered 403"):
        next(wrong.events())
    with pytest.raises(RegistryError, match="answered 400"):
        next(registry.events(events=["born"]))


STREAM = """retry: 250
id: 1

: a comment
event: gap
data: {"event":
data:"other"}
unknown: x

id: 2

data: {"event":"late"}
retry: soon

id: 3
data: {"event":"never whole"}"""


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("size", [1, 2, 7, 10_000])
def test_a_stream_is_parsed_wherever_it_is_cut(end: str, size: int) -> None:
    text = STREAM.replace("\n", end)
    raw = text.encode()
    parser = EventParser("0")
    found = list(parser.parse(raw[at : at + size] for at in range(0, len(raw), size)))
    assert [(one.event, one.last_event_id) for one in found] == [("gap", "1"), ("late", "2")]
    assert (parser.last_event_id, parser.retry) == ("2", 0.25)
    with pytest.raises(ValueError, match="JSON"):
        list(parser.parse([b"data: <html>\n\n"]))
    with pytest.raises(ValueError, match="without an end"):
        list(parser.parse(itertools.repeat(b"data: " * 10_000)))


def test_who_is_not_known_is_nobody(registry: Registry) -> None:
    assert registry.node(str(uuid4())) is None
    assert registry.history(str(uuid4())) == []
    with pytest.raises(UserError, match="is no node_id"):
        registry.node("../nodes")


def test_a_refusal_is_told_with_its_case(scene: Running, registry: Registry) -> None:
    with opened(scene, scene.node().files) as wrong, pytest.raises(RegistryError) as refused:
        next(wrong.nodes())
    assert (refused.value.status, refused.value.problem) == (403, "role-not-allowed")
    assert "openclaw-exporter pki reader" in str(refused.value)
    with pytest.raises(RegistryError) as refused:
        next(registry.nodes(states=["asleep"]))
    assert (refused.value.status, refused.value.problem) == (400, "invalid-query")


def test_a_receiver_that_comes_back_is_found_again(pki: Pki, tmp_path: Path) -> None:
    settings = dataclasses.replace(receiver_settings(pki, tmp_path), port=free_port())
    files = pki.reader()
    endpoint = f"https://localhost:{settings.port}"
    with Registry(endpoint, ca=pki.ca, certificate=files.certificate, key=files.key) as registry:
        for _ in range(2):
            with running(pki, settings) as scene:
                node = scene.node()
                node.beat()
                assert registry.node(node.node_id) is not None
            with pytest.raises(RegistryError, match="does not answer") as away:
                registry.node(node.node_id)
            assert away.value.status is None


def test_a_certificate_that_is_renewed_is_shown(scene: Running, tmp_path: Path) -> None:
    certificate, key = tmp_path / "reader.pem", tmp_path / "reader.key"
    (tmp_path / "other").mkdir()
    stranger = Pki(tmp_path / "other").reader()
    certificate.write_bytes(stranger.certificate.read_bytes())
    key.write_bytes(stranger.key.read_bytes())
    with Registry(scene.url, ca=scene.pki.ca, certificate=certificate, key=key) as registry:
        with pytest.raises(RegistryError, match="does not answer"):
            registry.node(str(uuid4()))
        renewed = scene.pki.reader("renewed")
        key.write_bytes(renewed.key.read_bytes())
        # The pair does not fit yet: the old one stays in use.
        with pytest.raises(RegistryError, match="does not answer"):
            registry.node(str(uuid4()))
        certificate.write_bytes(renewed.certificate.read_bytes())
        assert registry.node(str(uuid4())) is None


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("http://receiver.example", "no https URL"),
        ("receiver:8443", "no https URL"),
        ("https://", "no https URL"),
        ("https://receiver:8443", "needs ca, certificate"),
    ],
)
def test_endpoints_that_will_not_do(endpoint: str, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        Registry(endpoint)


def test_files_that_cannot_be_used_are_named(pki: Pki, tmp_path: Path) -> None:
    files = pki.reader()
    with pytest.raises(CredentialError, match="nowhere"):
        Registry("https://a:1", ca=tmp_path / "nowhere", certificate=files.certificate, key=files.key)
    with pytest.raises(CredentialError, match="is not the key of"):
        Registry("https://a:1", ca=pki.ca, certificate=files.certificate, key=pki.token_key)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"200 OK\r\nContent-Length: 2\r\n\r\n[]", "did not answer as a registry does"),
        (b"200 OK\r\nContent-Length: 15\r\n\r\n<html>no</html>", "did not answer as a registry does"),
        (b"200 OK\r\nContent-Length: 99999999999\r\n\r\n", "more than|does not answer"),
        (b"502 Bad Gateway\r\nContent-Length: 2\r\n\r\n[]", "answered 502"),
        (b"404 Not Found\r\nContent-Length: 0\r\n\r\n", "answered 404"),
        (b"302 Found\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n", "answered 302"),
        (b"nonsense\r\n\r\n", "does not answer"),
    ],
)
def test_answers_of_something_else_are_told(answer: bytes, expected: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 " + answer)

        thread = threading.Thread(target=serve)
        thread.start()
        endpoint = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with Registry(endpoint) as registry, pytest.raises(RegistryError, match=expected):
            registry.node(str(uuid4()))
        thread.join()


def test_the_receivers_certificate_has_to_be_its_authoritys(scene: Running, tmp_path: Path) -> None:
    files = scene.pki.reader()
    registry = Registry(scene.url, ca=Pki(tmp_path).ca, certificate=files.certificate, key=files.key)
    with registry, pytest.raises(RegistryError, match="is of no authority in the CA file"):
        registry.node(str(uuid4()))
