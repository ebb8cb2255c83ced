"""GET /openclaw/events: what is told, resuming, slow readers, limits and the end, over real sockets."""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from receiver.raw import LONG_TAGS, Raw, reading_nothing
from receiver.scene import problem, receiver_settings, running
from receiver.virtual import World, arrival, node_id

from openclaw_exporter.receiver.discovery import streaming
from openclaw_exporter.receiver.discovery.events import Filter, Hub, OverrunError
from openclaw_exporter.receiver.settings import DiscoverySettings
from openclaw_exporter.wire.certificates import thumbprint
from support.nodes import mutual_tls_client
from support.sse import Events
from support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import httpx
    from receiver.scene import Running

    from support.pki import Pki

EVENTS = "/openclaw/events"
DRAINING = {"OpenClaw-State": "draining"}


@contextmanager
def listening(
    scene: Running, last_id: str | None = None, **parameters: Any
) -> Iterator[tuple[Events, httpx.Response]]:
    """Subscribe; when this yields, the receiver has the subscription."""
    headers = {} if last_id is None else {"Last-Event-ID": last_id}
    reader = mutual_tls_client(scene.pki.ca, scene.pki.reader(), base_url=scene.url)
    with reader, reader.stream("GET", EVENTS, params=parameters, headers=headers, timeout=60) as response:
        yield Events(response), response


def has_a_place(scene: Running) -> bool:
    """Whether one reader more may listen."""
    reader = mutual_tls_client(scene.pki.ca, scene.pki.reader(), base_url=scene.url)
    with reader, reader.stream("GET", EVENTS) as response:
        return response.status_code == 200


@pytest.fixture
def quick(pki: Pki, tmp_path: Path) -> Iterator[Running]:
    """A receiver whose nodes may have an interval of a second."""
    with running(pki, receiver_settings(pki, tmp_path, min_interval=1)) as started:
        yield started


def test_the_life_of_a_node_is_told_in_order(quick: Running) -> None:
    node = quick.node()
    tag = f"node:{node.node_id}"
    life = ["registered", "draining", "late", "expired", "returned"]
    with listening(quick, tag=tag) as (events, _):
        node.beat({"OpenClaw-Interval": "4"}, tags=[tag])
        node.beat({"OpenClaw-Interval": "4", **DRAINING}, tags=[tag])
        # Back to up without an event, then silence.
        node.beat({"OpenClaw-Interval": "4"}, tags=[tag])
        messages = events.take(4)
        node.beat({"OpenClaw-Interval": "4"}, tags=[tag])
        messages += events.take(1)
        assert [message.event for message in messages] == life
        assert [message.data["event"] for message in messages] == life
        assert {message.node_id for message in messages} == {node.node_id}
        states = [message.data["node"]["state"] for message in messages]
        assert states == ["up", "draining", "late", "expired", "up"]
        assert messages[0].data["node"]["heartbeat"]["hostname"] == "chimera-01.test"
        assert messages[0].data["at"].endswith("Z")
        assert 2_000 <= events.retry_ms <= 8_000
        ids = [message.last_id for message in messages]
        assert len(set(ids)) == 5


def test_updates_and_the_rest_come_on_request_alone(pki: Pki, tmp_path: Path) -> None:
    settings = receiver_settings(pki, tmp_path, min_interval=1, retention=1)
    with running(pki, settings) as scene:
        node = scene.node()
        with listening(scene, event=["updated", "forgotten", "offline"]) as (events, _):
            for _ in range(3):
                node.beat()
            node.beat({"OpenClaw-Interval": "1", **DRAINING})
            messages = events.take(4)
    # The first heartbeat registered the node, and the last one changed its state: neither is an update.
    assert [message.event for message in messages] == ["updated", "updated", "offline", "forgotten"]
    assert messages[0].last_id == messages[1].last_id


def test_a_reader_that_comes_back_has_missed_nothing(quick: Running) -> None:
    nodes = [quick.node() for _ in range(3)]
    tag = f"node:{nodes[0].node_id}"
    with listening(quick, tag=tag) as (events, _):
        nodes[0].beat(tags=[tag])
        (first,) = events.take(1)
    nodes[1].beat(tags=[tag])
    nodes[2].beat(tags=["other"])
    nodes[0].beat(DRAINING, tags=[tag])
    with listening(quick, first.last_id, tag=tag) as (events, _):
        again = events.take(2)
        assert [(m.event, m.node_id) for m in again] == [
            ("registered", nodes[1].node_id),
            ("draining", nodes[0].node_id),
        ]
    with listening(quick, again[0].last_id, tag=tag) as (events, _):
        assert events.take(1) == again[1:]


@pytest.mark.parametrize("last_id", ["00000000-3", "nonsense", "-1", "12"])
def test_an_id_that_is_not_known_is_told_so_before_anything_else(quick: Running, last_id: str) -> None:
    node = quick.node()
    node.beat(tags=["gap:test"])
    with listening(quick, last_id) as (events, _):
        (gap,) = events.take(1)
        assert gap.event == "gap"
        assert "/openclaw/nodes" in gap.data["reason"]
        # What is still kept follows.
        known = set()
        while node.node_id not in known:
            known.add(events.take(1)[0].node_id)


def test_a_quiet_stream_is_kept_alive_and_its_id_moves_on(
    quick: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "KEEP_ALIVE_SECONDS", 0.05)
    node = quick.node()
    with listening(quick, tag="nobody:has-this") as (events, response):
        before = ""
        for line in response.iter_lines():
            if line.startswith("id: "):
                if not before:
                    before = line
                    node.beat()
                elif line != before:
                    break
            events.comments += line.startswith(":")
    assert events.comments >= 1


@pytest.mark.parametrize("query", ["event=gone", "event=", "state=up", "limit=1"])
def test_a_parameter_that_is_not_valid_is_refused(quick: Running, query: str) -> None:
    assert problem(quick.reader().get(f"{EVENTS}?{query}")) == (400, "invalid-query")


def test_only_readers_may_listen(quick: Running) -> None:
    assert problem(quick.node().client.get(EVENTS)) == (403, "role-not-allowed")
    head = quick.reader().head(EVENTS)
    assert (head.status_code, head.headers["content-type"]) == (200, "text/event-stream")
    assert problem(quick.reader().post(EVENTS)) == (405, "method-not-allowed")


def test_one_reader_too_many_is_told_to_come_back(pki: Pki, tmp_path: Path) -> None:
    settings = receiver_settings(pki, tmp_path, discovery=DiscoverySettings(subscribers=2))
    with running(pki, settings) as scene:
        with listening(scene), listening(scene):
            refused = scene.reader().get(EVENTS)
            assert problem(refused) == (503, "shedding")
            assert int(refused.headers["retry-after"]) > 0

        # Those who have gone are noticed.
        wait_until(lambda: has_a_place(scene), what="a free place")


def test_a_stream_with_a_request_behind_it_ends_with_its_connection(pki: Pki, tmp_path: Path) -> None:
    settings = receiver_settings(pki, tmp_path, discovery=DiscoverySettings(subscribers=1))
    with running(pki, settings) as scene:
        stream = scene.tls(pki.reader())
        stream.sendall(f"GET {EVENTS} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert stream.recv(12) == b"HTTP/1.1 200"
        stream.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
        stream.close()

        wait_until(lambda: has_a_place(scene), what="its place")


def test_a_receiver_that_stops_ends_its_streams(pki: Pki, tmp_path: Path) -> None:
    with running(pki, receiver_settings(pki, tmp_path)) as scene, listening(scene) as (events, _):
        node = scene.node()
        node.beat()
        assert events.take(1)[0].event == "registered"
        scene.receiver.stop()
        # The end is a proper one: httpx would raise where the last chunk is missing.
        assert list(events) == []


def test_a_reader_that_does_not_read_is_cut_off(
    pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(streaming, "SEND_SECONDS", 0.2)
    caplog.set_level("INFO")
    settings = receiver_settings(pki, tmp_path, discovery=DiscoverySettings(events_kept=100))
    with running(pki, settings) as scene:
        with reading_nothing(scene, pki):
            node = scene.node()

            def is_cut_off() -> bool:
                for _ in range(50):
                    assert node.beat(tags=LONG_TAGS).status_code == 200
                return "too slow" in caplog.text

            wait_until(is_cut_off, timeout=120, what="the end of a slow reader")
        # Everybody else goes on.
        with listening(scene) as (events, _):
            scene.node().beat()
            assert events.take(1)[0].event == "registered"


def test_a_stream_ends_with_its_readers_certificate(pki: Pki, tmp_path: Path) -> None:
    with running(pki, receiver_settings(pki, tmp_path)) as scene:
        files = pki.reader(lifetime=dt.timedelta(seconds=7))
        with Raw(scene, files) as raw:
            raw.send(b"GET /openclaw/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            raw.socket.settimeout(60)
            text = b""
            while piece := raw.socket.recv(4096):
                text += piece
            assert text.startswith(b"HTTP/1.1 200")
            assert text.endswith(b"0\r\n\r\n")


def test_a_stream_ends_when_its_reader_is_denied(pki: Pki, tmp_path: Path) -> None:
    deny = tmp_path / "denied"
    deny.write_text("# nobody\n")
    with running(pki, receiver_settings(pki, tmp_path, tls={"deny_list": deny})) as scene:
        files = pki.reader("stolen")
        der = ssl.PEM_cert_to_DER_cert(files.certificate.read_text())
        client = mutual_tls_client(pki.ca, files, base_url=scene.url)
        with client, client.stream("GET", EVENTS, timeout=60) as response:
            events = Events(response)
            scene.node().beat()
            assert events.take(1)[0].event == "registered"
            fresh = tmp_path / "fresh"
            fresh.write_text(f"{thumbprint(der)}\n")
            fresh.replace(deny)
            assert list(events) == []


class Bench:
    """A hub over a registry in virtual time."""

    def __init__(self, kept: int) -> None:
        self.world = World()
        self.hub = Hub(kept, updates_kept=10)
        self.hub.follow(self.world.registry.listening.read)

    def happen(self, count: int) -> None:
        for _ in range(count):
            number = len(self.world.registry.nodes)
            # A payload that the view can show.
            state = arrival(node_id(number), 1, payload=b'{"n":%d}' % number)
            self.world.arrive(state)
            self.hub.happened("registered", self.world.registry.nodes[node_id(number)])


def test_whom_the_ring_overtakes_is_cut_off() -> None:
    async def main() -> None:
        bench = Bench(100)
        subscription = bench.hub.subscribe(Filter())
        bench.happen(100)
        assert await subscription.read(60, 1)
        bench.happen(100)
        with pytest.raises(OverrunError):
            await subscription.read(60, 1)
        subscription.close()
        subscription.close()
        assert len(bench.hub) == 0

    asyncio.run(main())


def test_what_is_not_asked_for_does_not_put_a_keep_alive_off() -> None:
    async def main() -> None:
        bench = Bench(10_000)
        bench.happen(1)
        subscription = bench.hub.subscribe(Filter(frozenset({"expired"})))

        async def go_on() -> None:
            while True:
                bench.happen(1)
                await asyncio.sleep(0.01)

        others = asyncio.create_task(go_on())
        async with asyncio.timeout(120):
            text = await subscription.read(100, 0.2)
        others.cancel()
        assert text is not None
        assert text.startswith(b": keep-alive\nid: ")

    asyncio.run(main())


def test_an_id_goes_on_for_as_long_as_the_event_behind_it_is_kept() -> None:
    async def main() -> None:
        bench = Bench(100)
        bench.happen(1)
        start = bench.hub.subscribe(Filter()).place
        bench.happen(100)
        text = await bench.hub.subscribe(Filter(), start).read(1000, 1)
        assert text is not None
        assert (text.count(b"event: registered"), text.count(b"event: gap")) == (100, 0)
        bench.happen(1)
        text = await bench.hub.subscribe(Filter(), start).read(1000, 1)
        assert text is not None
        assert (text.count(b"event: registered"), text.count(b"event: gap")) == (100, 1)

    asyncio.run(main())


def test_updates_are_kept_only_while_somebody_asks_for_them() -> None:
    async def main() -> None:
        bench = Bench(100)
        bench.happen(1)
        state = bench.world.registry.nodes[node_id(0)]
        assert not bench.hub.wants_updates
        bench.hub.updated(state)
        subscription = bench.hub.subscribe(Filter(frozenset({"updated"})))
        other = bench.hub.subscribe(Filter())
        assert bench.hub.wants_updates
        bench.hub.updated(state)
        text = await subscription.read(10, 1)
        assert text is not None
        assert text.count(b"event: updated") == 1
        assert b"id:" not in text
        for _ in range(11):
            bench.hub.updated(state)
        with pytest.raises(OverrunError):
            await subscription.read(10, 1)
        # Who did not ask for updates is not overtaken by them.
        assert await other.read(10, 0.01) is not None
        subscription.close()
        assert not bench.hub.wants_updates

    asyncio.run(main())
