"""A node's life in virtual time: beats, retries, outages and what follows them."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from client.virtual import Reply, VirtualClock, Wire, away, drive, node_whose_phase

from openclaw_exporter.client import BufferSettings, Report, TlsSettings
from openclaw_exporter.client.rollout import stable_fraction

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from client.virtual import Request

    from openclaw_exporter.client import Publisher
    from support.pki import Pki

    Make = Callable[..., Publisher]


def sent_at(request: Request) -> str:
    return str(json.loads(request.body)["last_heartbeat"])


def sequence(request: Request) -> tuple[int, int]:
    epoch, number = request.headers["openclaw-sequence"].split(".")
    return int(epoch), int(number)


def test_the_first_beat_goes_at_once_and_the_others_keep_the_phase(
    virtual: Make, clock: VirtualClock, wire: Wire
) -> None:
    wire.takes = 3.7
    publisher = virtual()
    drive(publisher, clock, 3600)
    first, *others = [request.at for request in wire.requests]
    assert first == 1000.0
    phase = 60 * stable_fraction(publisher.node_id, "phase")
    assert {round((at - 1000.0 - phase) % 60, 6) % 60 for at in others} == {0.0}
    assert len(others) in (59, 60)
    assert [sequence(request)[1] for request in wire.requests] == list(range(len(wire.requests)))
    assert {request.headers["openclaw-interval"] for request in wire.requests} == {"60"}


def test_a_beat_that_is_due_during_the_first_exchange_follows_it(
    publish: Callable[..., Publisher], clock: VirtualClock, wire: Wire, pki: Pki
) -> None:
    node_id = node_whose_phase(lambda fraction: 0.01 < fraction < 0.05)
    files = pki.node(node_id)
    tls = TlsSettings(ca=pki.ca, certificate=files.certificate, key=files.key)
    wire.takes = 3.7
    publisher = publish(clock=clock, transport=wire, node_id=node_id, tls=tls)
    drive(publisher, clock, 120)
    phase = 60 * stable_fraction(node_id, "phase")
    # The second is late by what was left of the exchange, and the third is in its time again.
    assert [round(request.at - 1000.0, 6) for request in wire.requests[:3]] == [
        0.0,
        3.7,
        round(60 + phase, 6),
    ]


def test_a_late_thread_skips_beats(virtual: Make, clock: VirtualClock, wire: Wire) -> None:
    publisher = virtual()
    publisher.tick()
    clock.now += 605
    drive(publisher, clock, 0.0)
    assert len(wire.requests) == 2
    assert publisher.tick() > clock.now


def test_the_receivers_interval_is_adopted_within_bounds(
    virtual: Make, clock: VirtualClock, wire: Wire
) -> None:
    for answered, adopted in ((90, 90), (600, 120), (5, 30), (60, 60)):
        body = json.dumps({"interval_seconds": answered}).encode()
        wire.answer = lambda _request, body=body: Reply(body=body)  # type: ignore[misc]
        publisher = virtual(state_dir=None)
        drive(publisher, clock, 130)
        before = len(wire.requests)
        drive(publisher, clock, adopted * 10)
        assert publisher.interval == adopted
        assert len(wire.requests) - before == 10
        # The header says what is configured, not what was adopted.
        assert wire.requests[-1].headers["openclaw-interval"] == "60"


def test_retries_repeat_the_same_bytes(virtual: Make, clock: VirtualClock, wire: Wire) -> None:
    wire.answer = lambda _request: Reply(503) if len(wire.requests) < 4 else Reply()
    publisher = virtual(node_id="", interval=60)
    drive(publisher, clock, 59 * stable_fraction(publisher.node_id, "phase"))
    drive(publisher, clock, 200)
    bodies = {}
    for request in wire.requests:
        bodies.setdefault(request.headers["openclaw-sequence"], set()).add(request.body)
    assert all(len(body) == 1 for body in bodies.values())
    assert publisher.stats.success + publisher.stats.failure == len(wire.requests)


def test_the_newest_goes_first_and_the_rest_follow_as_replay(
    virtual: Make, clock: VirtualClock, wire: Wire
) -> None:
    wire.answer = away
    publisher = virtual()
    drive(publisher, clock, 1800)
    made = publisher.stats.made
    assert publisher.stats.buffered == made
    wire.requests.clear()
    wire.answer = lambda _request: Reply()
    drive(publisher, clock, 900)
    first = wire.requests[0]
    assert not first.replay
    assert sequence(first)[1] >= made
    replayed = [sequence(request)[1] for request in wire.replays]
    assert replayed == sorted(replayed) == list(range(len(replayed)))
    assert len(replayed) == made
    assert publisher.stats.buffered == 0
    assert publisher.stats.dropped == 0


def test_replays_keep_their_pace(virtual: Make, clock: VirtualClock, wire: Wire, fast_path: Path) -> None:
    wire.answer = away
    publisher = virtual(state_dir=fast_path)
    drive(publisher, clock, 12 * 3600)
    backlog = publisher.stats.buffered
    assert backlog > 700
    wire.answer = lambda _request: Reply()
    wire.requests.clear()
    drive(publisher, clock, 2 * 3600)
    replays = [request.at for request in wire.replays]
    assert len(replays) == backlog
    for start in range(int(replays[0]), int(replays[-1]), 30):
        assert sum(start <= at < start + 60 for at in replays) <= 12 + 2
    # Spread, not in bursts, and never two in one instant.
    assert all(later > earlier for earlier, later in pairwise(replays))


def test_replays_stop_at_the_first_failure_and_go_on_after_the_next_beat(
    virtual: Make, clock: VirtualClock, wire: Wire
) -> None:
    wire.answer = away
    publisher = virtual()
    drive(publisher, clock, 600)
    backlog = publisher.stats.buffered
    wire.answer = lambda request: Reply(503) if request.replay else Reply()
    wire.requests.clear()
    drive(publisher, clock, 600)
    assert len(wire.replays) <= len(wire.live)
    assert publisher.stats.buffered == backlog
    assert publisher.stats.dropped == 0


def test_a_refused_replay_is_dropped_and_counted(virtual: Make, clock: VirtualClock, wire: Wire) -> None:
    wire.answer = away
    publisher = virtual()
    drive(publisher, clock, 600)
    backlog = publisher.stats.buffered
    wire.answer = lambda request: Reply(422) if request.replay else Reply()
    drive(publisher, clock, 600)
    assert publisher.stats.dropped == backlog
    assert publisher.stats.buffered == 0


@pytest.mark.parametrize("interval", [30, 60, 120])
def test_ten_minutes_of_503(interval: int, virtual: Make, clock: VirtualClock, wire: Wire) -> None:
    publisher = virtual(interval=interval)
    drive(publisher, clock, 3600)
    wire.requests.clear()
    wire.answer = lambda _request: Reply(503)
    drive(publisher, clock, 600)
    normal = 600 / interval
    assert len(wire.requests) <= 2 * normal
    assert publisher.stats.buffered >= normal - 1


def test_after_one_interval_only_beats_go_out(virtual: Make, clock: VirtualClock, wire: Wire) -> None:
    publisher = virtual()
    publisher.tick()
    wire.answer = away
    drive(publisher, clock, 3600)
    failures = wire.requests[1:]
    began = failures[0].at
    late = [request for request in failures if request.at > began + 60]
    assert len({request.headers["openclaw-sequence"] for request in late}) == len(late)
    early = [request for request in failures if request.at <= began + 60]
    assert 2 <= len(early) <= 11


def test_every_heartbeat_is_accepted_waiting_or_dropped(
    virtual: Make, clock: VirtualClock, wire: Wire
) -> None:
    statuses = iter([503, 200, 422, 403, 409, 301, 503, 503, 200, 401, 401, 200, 500, 408] * 40)
    wire.answer = lambda _request: Reply(next(statuses))
    publisher = virtual(buffer=BufferSettings(max_heartbeats=5))
    drive(publisher, clock, 3600)
    stats = publisher.stats
    assert stats.made == stats.success + stats.buffered + stats.dropped
    assert stats.buffered <= 5


def test_a_week_of_outage_stays_in_its_bounds(
    virtual: Make, clock: VirtualClock, wire: Wire, fast_path: Path
) -> None:
    tags = tuple(f"key-{number}:{'v' * 100}" for number in range(32))
    big = Report(capacity={"workers": 1, "available_slots": 1}, tags=tags)
    wire.answer = away
    limits = BufferSettings(max_heartbeats=10_000, max_bytes=512 * 1024)
    publisher = virtual(state_dir=fast_path / "state", buffer=limits, source=lambda: big, interval=120)
    drive(publisher, clock, 7 * 86_400)
    stats = publisher.stats
    assert stats.made in (5040, 5041)
    assert stats.made == stats.buffered + stats.dropped
    size = sum(file.stat().st_size for file in (fast_path / "state").iterdir() if "buffer" in file.name)
    assert 256 * 1024 < size <= 512 * 1024
    wire.requests.clear()
    wire.answer = lambda _request: Reply()
    drive(publisher, clock, 6 * 3600)
    # The oldest went first: what is left are the latest, every one of them, once.
    numbers = [sequence(request)[1] for request in wire.replays]
    assert numbers == list(range(stats.dropped, stats.made))


def test_a_clock_that_steps_back_makes_no_second_key(virtual: Make, clock: VirtualClock, wire: Wire) -> None:
    publisher = virtual()
    for _ in range(20):
        drive(publisher, clock, 60)
        clock.step -= 60
    drive(publisher, clock, 60)
    keys = [sent_at(request) for request in wire.requests]
    assert len(set(keys)) == len(keys)
    order = [sequence(request) for request in wire.requests]
    assert order == sorted(order)


def test_a_frozen_clock_adds_a_millisecond(virtual: Make, clock: VirtualClock, wire: Wire) -> None:
    publisher = virtual()
    wall = clock.wall()
    clock.wall = lambda: wall  # type: ignore[method-assign]
    drive(publisher, clock, 180)
    keys = [sent_at(request) for request in wire.requests]
    assert keys[:3] == ["2027-01-15T08:00:00Z", "2027-01-15T08:00:00.001Z", "2027-01-15T08:00:00.002Z"]


def test_a_restart_replays_what_was_left_and_never_repeats_an_epoch(
    virtual: Make, clock: VirtualClock, wire: Wire
) -> None:
    wire.answer = away
    publisher = virtual()
    drive(publisher, clock, 300)
    left = publisher.stats.buffered
    first_epoch = sequence(wire.requests[0])[0]
    publisher.stop(draining=False)
    clock.step -= 86_400
    wire.answer = lambda _request: Reply()
    wire.requests.clear()
    again = virtual()
    drive(again, clock, 300)
    assert sequence(wire.live[0])[0] == first_epoch + 1
    assert [sequence(request)[0] for request in wire.replays] == [first_epoch] * left
    assert again.stats.replayed == left


def test_switched_off_publishes_nothing(virtual: Make, clock: VirtualClock, wire: Wire, node_id: str) -> None:
    publisher = virtual(enabled=False)
    drive(publisher, clock, 600)
    assert wire.requests == []
    assert not publisher.publishing
    assert publisher.node_id == node_id
    assert publisher.tick() == float("inf")


def test_the_rollout_leaves_nodes_out(virtual: Make, clock: VirtualClock, wire: Wire) -> None:
    publisher = virtual(rollout_percent=0.0)
    drive(publisher, clock, 600)
    assert wire.requests == []
    publisher.stop()
    publisher = virtual(rollout_percent=100.0)
    drive(publisher, clock, 600)
    assert wire.requests != []


def test_a_source_that_fails_delays_no_beat(
    virtual: Make, clock: VirtualClock, wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    good = Report(version="9", capacity={"workers": 3, "available_slots": 1})
    bad = Report(version="9", queue_depth={"bad topic\n": 1})
    reports = iter([good, RuntimeError("canary"), bad, "no report", good, *[RuntimeError("canary")] * 90])

    def source() -> Report:
        report = next(reports)
        if isinstance(report, Exception):
            raise report
        return report  # type: ignore[return-value]

    publisher = virtual(source=source)
    drive(publisher, clock, 3600)
    assert publisher.stats.made == publisher.stats.success == len(wire.requests)
    assert {json.loads(request.body)["capacity"]["workers"] for request in wire.requests} == {3}
    assert "canary" not in caplog.text
    assert 1 <= len(caplog.records) <= 4


def test_a_source_that_never_worked_still_beats(virtual: Make, clock: VirtualClock, wire: Wire) -> None:
    def source() -> Report:
        raise OSError

    publisher = virtual(source=source, version="7")
    publisher.tick()
    body = json.loads(wire.requests[0].body)
    assert body["capacity"] == {"workers": 0, "available_slots": 0}
    assert body["version"] == "7"


def test_callbacks_hear_of_every_beat(virtual: Make, clock: VirtualClock, wire: Wire) -> None:
    heard = []
    publisher = virtual()
    publisher.on_beat(heard.append)
    drive(publisher, clock, 600)
    assert [attempt.status for attempt in heard] == [200] * len(wire.requests)
    assert publisher.last_result is heard[-1]


def test_nothing_is_kept_where_there_is_no_state_directory(
    virtual: Make, clock: VirtualClock, wire: Wire, tmp_path: Path
) -> None:
    wire.answer = away
    publisher = virtual(state_dir=None)
    drive(publisher, clock, 600)
    assert publisher.stats.buffered == publisher.stats.made
    assert not (tmp_path / "state").exists()
    assert publisher.node_id != str(uuid4())
