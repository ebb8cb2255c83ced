"""401, 403 and 409: once again with what is new, then parked."""

from __future__ import annotations

import itertools
import json
import logging
from typing import TYPE_CHECKING

import pytest
from client.stub import Answer, StubReceiver
from client.virtual import Reply, VirtualClock, Wire, drive, http_date

from openclaw_exporter.client import Outcome
from openclaw_exporter.wire.tokens.compact import parse

if TYPE_CHECKING:
    from collections.abc import Callable

    from openclaw_exporter.client import Publisher

    Make = Callable[..., Publisher]


def token_of(request: object) -> str:
    return request.headers["authorization"].removeprefix("Bearer ")  # type: ignore[attr-defined]


def test_401_mints_a_new_token_and_succeeds(publish: Make, stub: StubReceiver) -> None:
    stub.script.append(Answer(401, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'}))
    publisher = publish(endpoint=stub.url)
    publisher.tick()
    first, second = stub.seen
    assert first.token != second.token
    assert first.body == second.body
    assert first.headers["openclaw-sequence"] == second.headers["openclaw-sequence"]
    assert first.connection == second.connection
    assert publisher.stats.buffered == 0


def test_401_twice_parks_until_the_next_interval(virtual: Make, clock: VirtualClock, wire: Wire) -> None:
    wire.answer = lambda _request: Reply(401)
    publisher = virtual()
    drive(publisher, clock, 600)
    beats = publisher.stats.made
    assert len(wire.requests) == 2 * beats
    assert publisher.stats.buffered == beats
    wire.answer = lambda _request: Reply()
    drive(publisher, clock, 1200)
    assert publisher.stats.buffered == 0
    assert publisher.stats.replayed == beats


@pytest.mark.parametrize("offset", [-24 * 3600, -3600, -31, 700, 3600, 24 * 3600])
def test_401_with_another_clock_mints_by_it(
    offset: int, virtual: Make, clock: VirtualClock, wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    def answer(request: object) -> Reply:
        now = clock.wall() + offset
        claims = parse(token_of(request)).claims
        ok = claims["nbf"] - 30 <= now <= claims["exp"] + 30
        return Reply(200 if ok else 401, {"Date": http_date(now)})

    wire.answer = answer
    publisher = virtual()
    drive(publisher, clock, 3600)
    assert publisher.stats.failure == 1
    assert publisher.stats.success == publisher.stats.made
    apart = [
        record for record in caplog.records if "tokens are minted by the receiver's clock" in record.message
    ]
    assert len(apart) == 1


def test_the_offset_is_forgotten_when_the_clock_is_set(
    virtual: Make, clock: VirtualClock, wire: Wire
) -> None:
    truth = clock.wall

    def answer(request: object) -> Reply:
        now = true_time()
        claims = parse(token_of(request)).claims
        return Reply(200 if abs(claims["iat"] - now) < 600 else 401, {"Date": http_date(now)})

    shift = -7200.0
    start_wall, start_mono = truth(), clock.now

    def true_time() -> float:
        return start_wall + (clock.now - start_mono)

    clock.step += shift
    wire.answer = answer
    publisher = virtual()
    drive(publisher, clock, 1200)
    assert publisher.stats.failure == 1
    clock.step -= shift
    drive(publisher, clock, 3600)
    assert publisher.stats.failure <= 2
    assert publisher.stats.buffered == 0


@pytest.mark.parametrize("offset", [-30, -5, 5, 30, 26 * 3600, -26 * 3600])
def test_a_near_or_absurd_date_moves_no_token(
    offset: int, virtual: Make, clock: VirtualClock, wire: Wire
) -> None:
    wire.answer = lambda _request: Reply(401, {"Date": http_date(clock.wall() + offset)})
    virtual().tick()
    for request in wire.requests:
        assert abs(parse(token_of(request)).claims["iat"] - clock.wall()) <= 1


def test_the_offset_works_over_tls(publish: Make, stub: StubReceiver) -> None:
    stub.script.append(Answer(401, date=7200))
    publish(endpoint=stub.url).tick()
    first, second = (parse(seen.token).claims["iat"] for seen in stub.seen)
    assert 7198 <= second - first <= 7202


def test_403_parks_and_keeps(virtual: Make, clock: VirtualClock, wire: Wire) -> None:
    wire.answer = lambda _request: Reply(403)
    publisher = virtual()
    drive(publisher, clock, 600)
    assert len(wire.requests) == publisher.stats.made == publisher.stats.buffered


def conflict(epoch: int) -> Reply:
    return Reply(
        409, body=json.dumps({"type": "urn:openclaw:problem:epoch-conflict", "epoch": epoch}).encode()
    )


def epoch_of(request: object) -> int:
    return int(request.headers["openclaw-sequence"].partition(".")[0])  # type: ignore[attr-defined]


def test_a_new_process_goes_over_a_newer_epoch_once(
    virtual: Make, publish: Make, clock: VirtualClock, wire: Wire
) -> None:
    heard = int(clock.wall() * 1000) + 5_000_000

    wire.answer = lambda request: Reply() if epoch_of(request) > heard else conflict(heard)
    publisher = virtual()
    publisher.tick()
    first, second = wire.requests
    assert epoch_of(second) == heard + 1
    assert first.body == second.body
    assert publisher.stats.success == 1
    publisher.stop(draining=False)
    # It is kept: the next process does not fall behind it.
    again = virtual()
    again.tick()
    assert epoch_of(wire.requests[-1]) >= heard + 2


def test_only_once(virtual: Make, clock: VirtualClock, wire: Wire) -> None:
    wire.answer = lambda request: conflict(epoch_of(request) + 10)
    publisher = virtual()
    drive(publisher, clock, 600)
    assert len(wire.requests) == publisher.stats.made + 1
    assert len({epoch_of(request) for request in wire.requests}) == 2


def test_a_process_that_was_heard_parks(
    virtual: Make, clock: VirtualClock, wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    publisher = virtual()
    publisher.tick()
    wire.answer = lambda request: conflict(epoch_of(request) + 1)
    drive(publisher, clock, 600)
    assert len(wire.requests) == publisher.stats.made
    assert publisher.stats.buffered == publisher.stats.made - 1
    assert len({epoch_of(request) for request in wire.requests}) == 1
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "two processes have one identity" in errors[0].message


@pytest.mark.parametrize("epoch", [None, 7])
def test_the_same_key_with_another_body_parks(
    epoch: int | None,
    virtual: Make,
    clock: VirtualClock,
    wire: Wire,
    caplog: pytest.LogCaptureFixture,
) -> None:
    problem = {"type": "urn:openclaw:problem:key-conflict", "epoch": epoch}
    wire.answer = lambda _request: Reply(409, body=json.dumps(problem).encode())
    publisher = virtual()
    drive(publisher, clock, 600)
    assert publisher.stats.buffered == publisher.stats.made == len(wire.requests)
    assert publisher.stats.dropped == 0
    assert publisher.last_result is not None
    assert publisher.last_result.outcome is Outcome.CONFLICT
    messages = [record.message for record in caplog.records if "key-conflict" in record.message]
    assert len(messages) == 1
    assert "another heartbeat with the same node_id and last_heartbeat" in messages[0]


@pytest.mark.parametrize("epoch", [-1, 0, 2**53 - 1, 2**60, "7", 1.5, None, True])
def test_an_epoch_that_helps_nobody_is_not_followed(
    epoch: object, virtual: Make, clock: VirtualClock, wire: Wire
) -> None:
    wire.answer = lambda _request: Reply(409, body=json.dumps({"epoch": epoch}).encode())
    publisher = virtual()
    publisher.tick()
    assert len(wire.requests) == 1


def test_a_refusal_is_logged_once_per_cause(
    virtual: Make, clock: VirtualClock, wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    problem = {
        "type": "urn:openclaw:problem:invalid-fields",
        "errors": [{"field": "capacity.workers", "message": "canary"}, {"field": "x\ny"}, 7],
        "detail": "canary",
    }
    replies = itertools.cycle([Reply(422, body=json.dumps(problem).encode()), Reply(503), Reply(404)])
    wire.answer = lambda _request: next(replies)
    publisher = virtual()
    drive(publisher, clock, 7200)
    causes = [record.message for record in caplog.records if record.name.endswith("publisher")]
    assert len(causes) == 3
    assert any("422: invalid-fields capacity.workers" in message for message in causes)
    assert "canary" not in caplog.text
    wire.answer = lambda _request: Reply()
    caplog.set_level(logging.INFO)
    drive(publisher, clock, 120)
    assert "accepts heartbeats again" in caplog.records[-1].message
