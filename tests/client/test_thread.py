"""The publisher's own thread: starting, turning, outliving errors, and ending in time."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest
from client.relay import Relay
from client.stub import Answer, StubReceiver
from client.virtual import Reply

from support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from client.virtual import VirtualClock, Wire

    from openclaw_exporter.client import Publisher

    Make = Callable[..., Publisher]


def test_it_publishes_by_itself_and_says_when_it_leaves(publish: Make, stub: StubReceiver) -> None:
    publisher = publish(endpoint=stub.url, interval=1, min_interval=1)
    stub.default = Answer(body=b"")
    turns = []
    publisher.on_turn(lambda: turns.append(threading.current_thread().name))
    publisher.start()
    wait_until(lambda: len(stub.seen) >= 3, what="three beats")
    publisher.stop()
    assert stub.seen[-1].headers["openclaw-state"] == "draining"
    assert [seen.headers.get("openclaw-state") for seen in stub.seen[:-1]] == [None] * (len(stub.seen) - 1)
    assert set(turns) == {"openclaw-publisher"}
    numbers = [int(seen.headers["openclaw-sequence"].partition(".")[2]) for seen in stub.seen]
    assert numbers == list(range(len(numbers)))
    publisher.stop()
    assert publisher.tick() == float("inf")


def test_it_starts_once(publish: Make, stub: StubReceiver) -> None:
    publisher = publish(endpoint=stub.url)
    publisher.start()
    with pytest.raises(RuntimeError):
        publisher.start()
    publisher.stop(draining=False)
    with pytest.raises(RuntimeError):
        publisher.start()


@pytest.mark.parametrize("draining", [True, False])
def test_stop_cuts_an_exchange_that_hangs(*, draining: bool, publish: Make, stub: StubReceiver) -> None:
    stub.script.append(Answer(manner="hang"))
    publisher = publish(endpoint=stub.url, timeout=30)
    publisher.start()
    wait_until(lambda: stub.seen, what="the first beat")
    publisher.stop(draining=draining, timeout=6.0)
    # The exchange was cut, its heartbeat kept, and the last one went out on a new connection.
    states = [seen.headers.get("openclaw-state") for seen in stub.seen]
    assert states == ([None, "draining"] if draining else [None])
    assert publisher.stats.buffered == 1
    assert not any(thread.name == "openclaw-publisher" for thread in threading.enumerate())


def test_stop_ends_though_nobody_answers_at_all(publish: Make, stub: StubReceiver) -> None:
    with Relay(stub.port) as relay:
        publisher = publish(endpoint=f"https://localhost:{relay.port}", timeout=30, connect_timeout=30)
        publisher.start()
        wait_until(lambda: publisher.stats.success, what="the first beat")
        relay.dark_for_all = True
        began = time.monotonic()
        publisher.stop(timeout=3.0)
        assert time.monotonic() - began < 29, "it waited for an answer"
        wait_until(lambda: publisher.stats.buffered == 1, what="the last beat in the buffer")


def test_stop_obeys_retry_after(virtual: Make, clock: VirtualClock, wire: Wire) -> None:
    wire.answer = lambda _request: Reply(503, {"Retry-After": "60"})
    publisher = virtual()
    publisher.tick()
    publisher.stop()
    assert len(wire.requests) == 1


def test_a_last_heartbeat_that_is_refused_is_counted(virtual: Make, wire: Wire) -> None:
    publisher = virtual()
    publisher.tick()
    wire.answer = lambda _request: Reply(422)
    publisher.stop()
    assert publisher.stats.dropped == 1
    assert publisher.stats.made == 2


def test_a_tick_in_another_thread_does_not_hold_stop(publish: Make, stub: StubReceiver) -> None:
    stub.script.append(Answer(manner="hang"))
    publisher = publish(endpoint=stub.url, timeout=30)
    ticker = threading.Thread(target=publisher.tick)
    ticker.start()
    wait_until(lambda: stub.seen, what="the first beat")
    publisher.stop(timeout=6.0)
    ticker.join(60)
    assert stub.seen[-1].headers.get("openclaw-state") == "draining"


def test_an_error_in_a_callback_ends_nothing(
    publish: Make, stub: StubReceiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("openclaw_exporter.client.publisher.LONGEST_WAIT", 0.01)
    publisher = publish(endpoint=stub.url, interval=1, min_interval=1)
    stub.default = Answer(body=b"")
    failures = iter([RuntimeError("once"), RuntimeError("twice")])

    def fail() -> None:
        failure = next(failures, None)
        if failure:
            raise failure

    publisher.on_turn(fail)
    publisher.start()
    wait_until(lambda: len(stub.seen) >= 2, what="two beats")
    publisher.stop(draining=False)
    assert sum("the publishing loop met an error" in record.message for record in caplog.records) == 1


def test_a_switched_off_publisher_turns_but_sends_nothing(
    publish: Make, stub: StubReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openclaw_exporter.client.publisher.LONGEST_WAIT", 0.01)
    publisher = publish(endpoint=stub.url, enabled=False)
    turned = threading.Event()
    publisher.on_turn(turned.set)
    publisher.start()
    assert turned.wait(60)
    publisher.stop()
    assert stub.seen == []
    assert publisher.last_result is None
    assert publisher.stats.made == 0
