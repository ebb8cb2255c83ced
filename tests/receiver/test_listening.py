"""Listening time: what counts, what does not, and what a gap does to deadlines."""

from __future__ import annotations

import pytest
from receiver.virtual import VirtualClock, World, arrival, node_id

from openclaw_exporter.receiver.listening import ListeningClock

NODE = node_id(1)


def read(listening: ListeningClock) -> tuple[float, int]:
    """Return the listening time and the number of the last interruption."""
    now = listening.read()
    return now.seconds, now.interruption


def test_time_between_readings_counts_up_to_a_stall() -> None:
    clock = VirtualClock()
    listening = ListeningClock(clock, seconds=10.0, interruption=3)
    clock.pass_(5.0)
    assert read(listening) == (15.0, 3)
    clock.pass_(5.25)
    assert read(listening) == (15.0, 4)
    clock.pass_(1.0)
    assert read(listening) == (16.0, 4)


def test_time_stands_still_while_there_is_any_reason() -> None:
    clock = VirtualClock()
    listening = ListeningClock(clock)
    listening.deafen("store")
    clock.pass_(2)
    listening.deafen("shedding")
    listening.hear("store")
    assert not listening.hears
    clock.pass_(60)
    assert read(listening) == (0.0, 0)
    listening.hear("shedding")
    listening.hear("shedding")
    assert listening.hears
    assert read(listening) == (0.0, 1)


def test_a_stopped_process_expires_nobody_and_gives_everybody_three_intervals() -> None:
    world = World()
    world.arrive(arrival(NODE, 1, interval=30))
    world.wait(50)
    world.clock.pass_(90)  # SIGSTOP, then SIGCONT
    world.tick()
    assert world.state(NODE) == "late"
    world.wait(39.75)
    assert world.state(NODE) == "late"
    world.wait(0.25)
    assert world.state(NODE) == "expired"


def test_a_beat_after_the_gap_ends_the_longer_deadline() -> None:
    world = World()
    world.arrive(arrival(NODE, 1, interval=30))
    world.clock.pass_(90)
    world.arrive(arrival(NODE, 2, interval=30))
    world.wait(60)
    assert world.state(NODE) == "expired"


@pytest.mark.parametrize("interval", [30, 60, 120])
def test_a_dead_node_expires_within_four_intervals_though_the_receiver_restarts_every_20_s(
    interval: int,
) -> None:
    world = World()
    world.arrive(arrival(NODE, 1, interval=interval))
    silent = 0.0
    while world.state(NODE) != "expired":
        world.wait(18)
        world.clock.pass_(0.9)  # not stored any more, or down
        world.clock.pass_(1.1)
        world.start()
        silent += 20
        assert silent <= 4 * interval
    assert silent >= 2 * interval
    assert [event for event, _ in world.events].count("expired") == 1


def test_ten_minutes_down_expire_nobody() -> None:
    world = World()
    world.arrive(arrival(NODE, 1, interval=60))
    world.wait(110)
    world.clock.pass_(600)
    world.start()
    world.wait(60)
    assert world.state(NODE) == "late"
    world.arrive(arrival(NODE, 2, interval=60))
    assert world.state(NODE) == "up"
    assert "expired" not in [event for event, _ in world.events]


def test_a_node_heard_while_listening_was_interrupted_has_the_longer_deadline_too() -> None:
    world = World()
    world.registry.listening.deafen("shedding")
    world.arrive(arrival(NODE, 1, interval=30))
    world.wait(60)
    world.registry.listening.hear("shedding")
    world.wait(89.75)
    assert world.state(NODE) == "late"
    world.wait(0.25)
    assert world.state(NODE) == "expired"
