"""Every status code: the contract's column, exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from client.stub import Answer, StubReceiver
from client.virtual import Reply, SkippingClock, VirtualClock, Wire, drive, http_date

from openclaw_exporter.client import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from openclaw_exporter.client import Publisher

    Make = Callable[..., Publisher]

SUCCESS = set(range(200, 300))
BACKOFF = {408, 425, 429, *range(500, 600), *range(100, 200)}
PARK = {401, 403, 409}
DROP = set(range(300, 500)) - BACKOFF - PARK

REPRESENTATIVES = [
    200,
    201,
    202,
    204,
    299,
    300,
    301,
    302,
    304,
    307,
    308,
    400,
    401,
    402,
    403,
    404,
    408,
    409,
    410,
]
REPRESENTATIVES += [413, 415, 418, 422, 425, 429, 431, 451, 499, 500, 501, 502, 503, 504, 511, 599]


@pytest.mark.parametrize("status", range(100, 600))
def test_row(status: int, virtual: Make, clock: VirtualClock, wire: Wire) -> None:
    wire.answer = lambda _request: Reply(status)
    publisher = virtual(state_dir=None)
    beat = publisher.tick()
    retried = publisher.stats.buffered == 1 and beat < clock.now + 1.0 + 1e-9
    drive(publisher, clock, 0.0)
    sent, stats = len(wire.requests), publisher.stats
    if status in SUCCESS:
        assert (sent, stats.success, stats.failure, stats.buffered, stats.dropped) == (1, 1, 0, 0, 0)
    elif status in BACKOFF:
        assert (sent, stats.failure, stats.buffered, stats.dropped) == (1, 1, 1, 0)
        assert retried
    elif status == 401:
        assert (sent, stats.failure, stats.buffered, stats.dropped) == (2, 2, 1, 0)
    elif status in PARK:
        assert (sent, stats.failure, stats.buffered, stats.dropped) == (1, 1, 1, 0)
    else:
        assert status in DROP
        assert (sent, stats.failure, stats.buffered, stats.dropped) == (1, 1, 0, 1)
    if status not in BACKOFF:
        # Nothing more until the next beat.
        drive(publisher, clock, beat - clock.now - 0.001)
        assert len(wire.requests) == sent
        drive(publisher, clock, 0.002)
        assert len(wire.requests) == sent * 2


@pytest.mark.parametrize("status", REPRESENTATIVES)
def test_row_over_tls(status: int, publish: Make, stub: StubReceiver) -> None:
    stub.default = Answer(status, headers={"Location": f"{stub.url}/elsewhere"})
    publisher = publish(endpoint=stub.url)
    publisher.tick()
    assert len(stub.seen) == (2 if status == 401 else 1)
    assert {seen.target for seen in stub.seen} == {"/openclaw/availability"}
    assert publisher.last_result is not None
    assert publisher.last_result.status == status
    stats = publisher.stats
    assert (stats.success, stats.buffered, stats.dropped) == (
        1 if status in SUCCESS else 0,
        1 if status in BACKOFF | PARK else 0,
        1 if status in DROP else 0,
    )


def test_switching_protocols_is_a_broken_connection(publish: Make, stub: StubReceiver) -> None:
    stub.default = Answer(101, headers={"Upgrade": "other", "Connection": "Upgrade"}, manner="close")
    publisher = publish(endpoint=stub.url)
    publisher.tick()
    assert publisher.last_result is not None
    assert publisher.last_result.outcome is Outcome.BACKOFF
    assert publisher.stats.buffered == 1


@pytest.mark.parametrize("status", [600, 799, 999])
def test_a_status_that_does_not_exist_counts_as_5xx(status: int, publish: Make, stub: StubReceiver) -> None:
    stub.default = Answer(status)
    publisher = publish(endpoint=stub.url)
    publisher.tick()
    assert publisher.stats.buffered == 1


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b"OK", b'{"interval_seconds": "soon"}', b"\xff" * 99_999]
)
def test_any_body_of_2xx_is_success(body: bytes, publish: Make, stub: StubReceiver) -> None:
    stub.default = Answer(202, body=body)
    publisher = publish(endpoint=stub.url)
    publisher.tick()
    assert publisher.stats.success == 1
    assert publisher.interval == 60


@pytest.mark.parametrize("status", [200, 302, 400, 401, 403, 404, 408, 409, 413, 422, 425, 429, 500, 503])
@pytest.mark.parametrize("form", ["seconds", "date"])
@pytest.mark.parametrize("asked", [1, 45, 200, 300, 86_400])
def test_nothing_is_sent_before_retry_after(
    status: int, form: str, asked: int, virtual: Make, clock: VirtualClock, wire: Wire
) -> None:
    value = str(asked) if form == "seconds" else http_date(clock.wall() + asked)
    replies = [Reply(status, {"Retry-After": value, "Date": http_date(clock.wall())})]
    wire.answer = lambda _request: replies.pop() if replies else Reply()
    publisher = virtual(state_dir=None)
    drive(publisher, clock, 400)
    obeyed = min(asked, 300)
    assert len(wire.requests) > 1
    assert wire.requests[1].at >= wire.requests[0].at + obeyed
    # And publishing goes on afterwards: within half an interval what was put off, or the next beat.
    assert wire.requests[1].at <= wire.requests[0].at + obeyed + 60


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_over_tls(form: str, publish: Make, stub: StubReceiver) -> None:
    clock = SkippingClock()
    moment = int(clock.wall()) + 45
    value = "45" if form == "seconds" else http_date(moment)
    stub.script.append(Answer(503, headers={"Retry-After": value}, date=0))
    publisher = publish(endpoint=stub.url, clock=clock)
    publisher.tick()
    while clock.wall() < moment - 10:
        publisher.tick()
        clock.skipped += 5
    assert len(stub.seen) == 1
    clock.skipped += 60
    publisher.tick()
    assert len(stub.seen) == 2


@pytest.mark.parametrize("value", ["", "soon", "-5", "1.5", "٣", "Fri, 99 Nov 2099 00:00:00 GMT", "9" * 400])
def test_a_retry_after_that_nobody_can_read_is_none(
    value: str, virtual: Make, clock: VirtualClock, wire: Wire
) -> None:
    wire.answer = lambda _request: Reply(503, {"Retry-After": value.encode().decode("latin-1")})
    publisher = virtual(state_dir=None)
    due = publisher.tick()
    assert due <= clock.now + 1.0


def test_retry_after_on_success_holds_the_next_beats(virtual: Make, clock: VirtualClock, wire: Wire) -> None:
    replies = [Reply(200, {"Retry-After": "200"})]
    wire.answer = lambda _request: replies.pop() if replies else Reply()
    publisher = virtual(state_dir=None)
    drive(publisher, clock, 230)
    # Three beats fell due meanwhile; the newest goes first, the others follow as replay.
    assert wire.requests[1].at >= 1200.0
    assert not wire.requests[1].replay
    assert publisher.stats.made >= 4
    drive(publisher, clock, 300)
    assert len(wire.replays) >= 2
    assert publisher.stats.buffered == 0
