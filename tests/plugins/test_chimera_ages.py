"""How long the oldest message waits, where a real Redis tells it in constant time, and the drain estimate."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from openclaw_exporter.plugin import Measurement
from openclaw_exporter_chimera.drain import Drain
from openclaw_exporter_chimera.stamps import envelope_time
from support.chimera import Bench, ages, depths, observed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.redis import RedisServer


@pytest.fixture
def bench(redis_server: RedisServer) -> Iterator[Bench]:
    bench = Bench(redis_server)
    yield bench
    bench.close()


def ago(seconds: float) -> float:
    return time.time() - seconds


def message(seconds: float, **more: object) -> str:
    return json.dumps({"task": "x", "created_at": ago(seconds), **more})


def entry(seconds: float) -> str:
    """Return a stream's id of that age."""
    return f"{int(ago(seconds) * 1_000)}-0"


def near(seconds: float) -> Any:
    """Whatever the machine's load: not younger, and not a minute older."""
    return pytest.approx(seconds + 30, abs=30.01)


def test_lists_are_looked_at_at_both_ends_and_nowhere_else(bench: Bench) -> None:
    queues = bench.queues(queues={"worker": ["l"], "judge": ["r"]}, created_at=["created_at"])
    bench.client.rpush("l", message(300), *[message(n) for n in range(50)])
    bench.client.lpush("r", message(600), *[message(n) for n in range(50)])
    assert ages(queues) == {"worker": near(300), "judge": near(600)}
    calls = bench.commands(lambda: ages(queues))
    assert calls == {"type": 2, "llen": 2, "lindex": 4}


def test_sorted_sets_are_looked_at_at_both_ends(bench: Bench) -> None:
    queues = bench.queues(queues={"worker": ["z"]}, created_at=["created_at"])
    bench.client.zadd("z", {message(10, n=1): 1, message(99, n=2): 2, message(400, n=3): 9})
    assert ages(queues) == {"worker": near(400)}


def test_of_a_topic_with_many_keys_the_oldest_counts(bench: Bench) -> None:
    queues = bench.queues(queues={"worker": ["q:*", "s"]}, created_at=["created_at"])
    bench.client.rpush("q:a", message(100))
    bench.client.rpush("q:b", message(900))
    bench.client.xadd("s", {"a": 1}, id=entry(50))
    assert ages(queues) == {"worker": near(900)}


def test_without_created_at_no_message_is_read(bench: Bench) -> None:
    queues = bench.queues(queues={"worker": ["l"]})
    bench.client.rpush("l", message(300))
    assert ages(queues) == {"worker": None}
    assert bench.commands(lambda: ages(queues)) == {"type": 1, "llen": 1}


@pytest.mark.parametrize("text", ["", "no JSON", "[]", "{}", '{"created_at": null}', '{"created_at": true}'])
def test_a_message_without_a_time_has_no_age_and_counts(bench: Bench, text: str) -> None:
    queues = bench.queues(queues={"worker": ["l"]}, created_at=["created_at"])
    bench.client.rpush("l", text)
    (depth,) = [o for o in observed(queues) if not isinstance(o, Measurement)]
    assert (depth.depth, depth.oldest_age) == (1, None)


def test_a_clock_that_is_ahead_makes_no_negative_age(bench: Bench) -> None:
    queues = bench.queues(queues={"worker": ["l"]}, created_at=["created_at"])
    bench.client.rpush("l", message(-500))
    assert ages(queues) == {"worker": 0.0}


@pytest.mark.parametrize(
    ("text", "time_"),
    [
        ('{"created_at": 1700000000}', 1_700_000_000.0),
        ('{"created_at": 1700000000500}', 1_700_000_000.5),
        ('{"created_at": "2023-11-14T22:13:20Z"}', 1_700_000_000.0),
        ('{"created_at": "2023-11-15T00:13:20+02:00"}', 1_700_000_000.0),
        ('{"created_at": "2023-11-14 22:13:20"}', 1_700_000_000.0),
        ('{"created_at": "yesterday"}', None),
        ('{"created_at": -5}', None),
        ('{"created_at": 1e400}', None),
        ('{"meta": {"queued": 1700000000}}', 1_700_000_000.0),
        ('{"meta.queued": 1700000000}', 1_700_000_000.0),
        ('{"meta": 3}', None),
        ("[" * 100_000, None),
    ],
)
def test_times_in_messages(text: str, time_: float | None) -> None:
    assert envelope_time(text.encode(), ("created_at", "meta.queued")) == time_


def test_a_huge_message_is_not_looked_into() -> None:
    assert (
        envelope_time(b'{"created_at": 1700000000, "x": "' + b"x" * (1 << 20) + b'"}', ("created_at",))
        is None
    )


def test_a_stream_tells_its_oldest_unread_or_pending_entry(bench: Bench) -> None:
    queues = bench.queues(queues={"worker": ["s"]}, groups=["g"])
    bench.client.xgroup_create("s", "g", id="0", mkstream=True)
    for seconds in (900, 600, 300):
        bench.client.xadd("s", {"a": 1}, id=entry(seconds))
    ages(queues)
    assert ages(queues) == {"worker": near(900)}
    ((_, taken),) = bench.client.xreadgroup("g", "w", {"s": ">"}, count=2)
    # Both are pending, so the oldest is one that nobody has done yet.
    assert ages(queues) == {"worker": near(900)}
    bench.client.xack("s", "g", taken[0][0])
    assert ages(queues) == {"worker": near(600)}
    bench.client.xack("s", "g", taken[1][0])
    ages(queues)
    assert ages(queues) == {"worker": near(300)}
    ((_, taken),) = bench.client.xreadgroup("g", "w", {"s": ">"}, count=2)
    bench.client.xack("s", "g", taken[0][0])
    assert ages(queues) == {"worker": None}
    assert depths(queues) == {"worker": 0}


def test_a_group_that_has_read_on_since_gives_no_stale_age(bench: Bench) -> None:
    """What follows the id of the last collection is done by now; the next one is not known yet."""
    queues = bench.queues(queues={"worker": ["s"]})
    bench.client.xgroup_create("s", "g", id="0", mkstream=True)
    for seconds in (900, 300):
        bench.client.xadd("s", {"a": 1}, id=entry(seconds))
    ages(queues)
    bench.client.xreadgroup("g", "w", {"s": ">"}, count=1, noack=True)
    assert ages(queues) == {"worker": None}
    assert ages(queues) == {"worker": near(300)}


def test_a_stream_without_groups_tells_its_first_entry(bench: Bench) -> None:
    queues = bench.queues(queues={"worker": ["s"]})
    bench.client.xadd("s", {"a": 1}, id=entry(120))
    bench.client.xadd("s", {"a": 2})
    assert ages(queues) == {"worker": near(120)}


def test_an_age_that_may_not_be_read_is_left_out_and_not_asked_for_again(bench: Bench) -> None:
    rights = "+client +select +type +llen +xlen +xinfo|groups"
    bench.client.execute_command("ACL", "SETUSER", "small", "on", ">word", "~*", *rights.split())
    url = bench.server.url.replace("://", "://small:word@")
    queues = bench.queues(url=url, queues={"worker": ["l"], "judge": ["s"]}, created_at=["created_at"])
    bench.client.rpush("l", message(100))
    bench.client.xadd("s", {"a": 1})
    assert ages(queues) == {"worker": None, "judge": None}
    bench.client.config_resetstat()
    assert depths(queues) == {"worker": 1, "judge": 1}
    assert bench.client.info("stats")["total_error_replies"] == 0


def drained(queues: Any) -> dict[str, float]:
    return {
        str(o.attributes["messaging.destination.name"]): o.value
        for o in observed(queues)
        if isinstance(o, Measurement) and o.name == "chimera.queue.drain.time"
    }


def test_a_queue_that_shrinks_has_a_drain_estimate(bench: Bench) -> None:
    queues = bench.queues(queues={"worker": ["l"], "judge": ["none"]})
    bench.client.rpush("l", *range(100))
    assert drained(queues) == {"judge": 0.0}
    assert drained(queues) == {"judge": 0.0}
    for _ in range(3):
        bench.client.lpop("l", 20)
        last = drained(queues)
    assert last["worker"] > 0
    bench.client.rpush("l", *range(1_000))
    assert drained(queues) == {"judge": 0.0}
    bench.server.stop()
    with pytest.raises(ConnectionError):
        queues.collect()
    bench.server.start()
    assert drained(queues) == {"worker": 0.0, "judge": 0.0}


def test_a_drain_estimate_is_the_depth_by_the_slope_of_the_window() -> None:
    drain = Drain(60)
    assert [drain.seconds(at, 1_000 - at) for at in (0, 10, 20)] == [None, None, pytest.approx(980)]
    assert drain.seconds(30, 970) == pytest.approx(970)
    # A burst: over the window it grows, so no end is in sight.
    assert drain.seconds(40, 2_000) is None
    assert drain.seconds(50, None) is None
    assert drain.seconds(60, 500) is None
    # What is older than the window does not count.
    shrinking = [drain.seconds(at, 700 - at) for at in (200, 210, 220)]
    assert shrinking == [None, None, pytest.approx(480)]
    assert drain.seconds(230, 0) == 0.0


def test_a_queue_that_stands_still_has_no_drain_estimate() -> None:
    drain = Drain(60)
    assert [drain.seconds(at, 5) for at in range(0, 100, 10)] == [None] * 10


def test_a_drain_window_of_zero_turns_the_estimate_off(bench: Bench) -> None:
    queues = bench.queues(queues={"worker": ["l"]}, drain_window=0)
    assert drained(queues) == {}
    assert depths(queues) == {"worker": 0}


def test_the_age_is_told_in_utc() -> None:
    moment = datetime.now(UTC) - timedelta(seconds=77)
    text = json.dumps({"created_at": moment.isoformat()}).encode()
    assert envelope_time(text, ("created_at",)) == pytest.approx(moment.timestamp())
