"""What is turned away and when it may come back: the loop's lag, and a herd of 100 000 in virtual time."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from typing import TYPE_CHECKING

from receiver.scene import problem, receiver_settings, running
from receiver.virtual import VirtualClock

from openclaw_exporter.receiver.pulse import Pulse
from openclaw_exporter.receiver.refusals import SheddingError
from openclaw_exporter.receiver.shedding import FIRST_SECONDS, LAST_SECONDS, Shedding
from support.wait import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from support.pki import Pki


def refused(shedding: Shedding, attempts: int = 2000) -> float:
    """Return the share of heartbeats that is refused."""
    count = 0
    for _ in range(attempts):
        try:
            shedding.check()
        except SheddingError:
            count += 1
    return count / attempts


def test_a_loop_that_is_late_twice_in_a_row_sheds_and_recovers() -> None:
    clock = VirtualClock()
    shedding = Shedding(clock, max_lag=2.0, readmissions=400)
    # One late pulse is a process that was stopped, and no overload.
    for lag in (9.0, 0.0, 9.0, 0.1, 1.9, 2.0):
        shedding.note_lag(lag)
        assert refused(shedding, 10) == 0
    assert not shedding.active
    shedding.note_lag(2.5)
    shedding.note_lag(2.5)
    assert shedding.share == 0.25
    assert 0.1 < refused(shedding) < 0.4
    for _ in range(10):
        shedding.note_lag(2.5)
    assert shedding.share == 0.95
    # Some always pass, or nobody would know when it is over.
    assert 0.9 < refused(shedding) < 1
    for _ in range(20):
        assert shedding.active
        shedding.note_lag(0.0)
    assert refused(shedding) == 0
    # Those that were turned away have not all been due yet.
    assert shedding.active
    clock.pass_(LAST_SECONDS)
    assert not shedding.active


def test_those_turned_away_come_back_one_after_the_other() -> None:
    shedding = Shedding(VirtualClock(), max_lag=2.0, readmissions=10)
    waits = [shedding.turn_away() for _ in range(1000)]
    assert waits == sorted(waits)
    assert min(waits) == FIRST_SECONDS + 1
    assert set(Counter(waits).values()) <= {9, 10, 11}


def test_more_than_can_be_spread_come_back_in_the_second_half() -> None:
    shedding = Shedding(VirtualClock(), max_lag=2.0, readmissions=1)
    waits = [shedding.turn_away() for _ in range(10_000)]
    assert max(waits) <= LAST_SECONDS
    beyond = waits[LAST_SECONDS:]
    assert min(beyond) >= LAST_SECONDS // 2
    assert max(Counter(beyond).values()) < 150


def test_a_herd_of_100_000_is_absorbed() -> None:
    """The receiver takes 500 a second; all come at once, obey, and are served in time."""
    clock = VirtualClock()
    shedding = Shedding(clock, max_lag=2.0, readmissions=400)
    dice = random.Random(1)
    start = clock.elapsed()
    due = [(start + dice.random(), number) for number in range(100_000)]
    heapq.heapify(due)
    attempts: Counter[int] = Counter()
    served: Counter[int] = Counter()
    second, room = 0, 500
    while due:
        at, number = heapq.heappop(due)
        clock.now = at
        if int(at - start) > second:
            second, room = int(at - start), 500
        attempts[number] += 1
        if room:
            room -= 1
            served[second] += 1
        else:
            # A publisher waits for what it was told, and spreads within the second.
            heapq.heappush(due, (at + shedding.turn_away() + dice.random(), number))
    assert sum(served.values()) == 100_000
    assert max(served) <= LAST_SECONDS
    assert max(attempts.values()) <= 4
    assert sum(attempts.values()) < 230_000
    # The second wave never meets more than the receiver takes, but for chance.
    assert sum(count for count in attempts.values() if count > 2) < 5000


def test_a_late_loop_turns_heartbeats_away_over_http_and_stops_listening(
    pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(pki, receiver_settings(pki, tmp_path)) as scene:
        node = scene.node()
        assert node.beat().status_code == 200
        monkeypatch.setattr(Pulse, "last_lag", property(lambda _: 9.0))

        def turned_away() -> bool:
            answer = node.beat()
            if answer.status_code == 200:
                return False
            assert problem(answer) == (503, "shedding")
            assert FIRST_SECONDS <= int(answer.headers["retry-after"]) <= LAST_SECONDS
            return True

        wait_until(turned_away, what="a refusal")
        monkeypatch.undo()
        wait_until(lambda: all(node.beat().status_code == 200 for _ in range(20)), what="the end")
        samples = scene.samples()
        assert sum(value for name, value in samples.items() if 'error_type="shedding"' in name) >= 1
