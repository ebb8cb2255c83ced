"""The example's own tests: `pip install -e . --group test && pytest`."""

# ruff: noqa: D103, S101 - a test's name is its documentation, and assert is how it speaks

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from openclaw_celery_plugin import Broker, Options

from openclaw_exporter.plugin import Capacity, Measurement, QueueDepth
from openclaw_exporter.plugin.testing import (
    Collected,
    assert_all_observations_covered,
    assert_conforms,
    assert_observation,
    assert_unknown,
)

if TYPE_CHECKING:
    from pathlib import Path

Run = Callable[..., Collected]


@pytest.fixture
def collector(broker: Any) -> Broker:
    """The collector under test; the kit's fixture `collected` runs it."""
    return Broker(Options(url=broker.url, queues=("celery", "emails"), concurrency=4))


def test_a_fresh_broker_has_drained_queues_and_no_workers(collected: Collected) -> None:
    assert_observation(collected, QueueDepth("celery", 0))
    assert_observation(collected, QueueDepth("emails", 0))
    assert_observation(collected, Measurement, name="celery.message.unacked", value=0)
    assert_observation(collected, Measurement, name="celery.worker.count", value=0)
    assert_observation(collected, Capacity("workers", 0))
    assert_all_observations_covered(collected)


def test_priorities_add_up(broker: Any, collector: Broker, run_collector: Run) -> None:
    broker.fill("emails", 3)
    broker.fill("emails", 4, priority=3)
    broker.fill("emails", 1, priority=9)
    broker.take(5)
    collected = run_collector(collector)
    assert_observation(collected, QueueDepth("emails", 8))
    assert_observation(collected, Measurement, name="celery.message.unacked", value=5)


def test_depth_follows_while_the_queue_drains(broker: Any, collector: Broker, run_collector: Run) -> None:
    broker.fill("celery", 5)
    for left in range(5, -1, -1):
        assert_observation(run_collector(collector), QueueDepth("celery", left))
        with broker.client() as client:
            client.rpop("celery")


def test_workers_are_counted_and_a_killed_one_is_not(
    broker: Any, collector: Broker, run_collector: Run
) -> None:
    with broker.worker("celery@one"), broker.worker("celery@two"):
        assert_observation(run_collector(collector), Capacity("workers", 8))
    broker.leave_mailbox("celery@killed")
    assert_observation(run_collector(collector), Measurement, name="celery.worker.count", value=0)


def test_a_prefix_of_the_keys_is_used(broker: Any, run_collector: Run) -> None:
    broker.fill("{shop}:celery", 2)
    options = Options(url=broker.url, key_prefix="{shop}:")
    assert_observation(run_collector(Broker(options)), QueueDepth("celery", 2))


def test_a_broker_that_is_away_is_unknown_and_comes_back(
    broker: Any, collector: Broker, run_collector: Run
) -> None:
    broker.fill("celery", 2)
    assert_observation(run_collector(collector), QueueDepth("celery", 2))
    with broker.away():
        gone = run_collector(collector)
        assert_unknown(gone)
        assert gone.run.error_type == "ConnectionError"
    assert_observation(run_collector(collector), QueueDepth("celery", 2))


def test_a_key_of_another_type_is_an_error_and_not_zero(
    broker: Any, collector: Broker, run_collector: Run
) -> None:
    with broker.client() as client:
        client.xadd("emails", {"not": "a list"})
    gone = run_collector(collector)
    assert_unknown(gone)
    assert "WRONGTYPE" in str(gone.error)


def test_the_password_is_read_again_after_it_was_refused(
    locked_broker: Any, run_collector: Run, tmp_path: Path
) -> None:
    secret = tmp_path / "password"
    secret.write_text("wrong horse")
    collector = Broker(Options(url=locked_broker.url, password_file=secret))
    refused = run_collector(collector)
    assert_unknown(refused)
    assert "horse" not in str(refused.error)
    secret.write_text(f"{locked_broker.password}\n")
    assert_observation(run_collector(collector), QueueDepth("celery", 0))


def test_where_clients_may_not_be_listed_only_the_workers_are_unknown(
    broker: Any, run_collector: Run, tmp_path: Path
) -> None:
    secret = tmp_path / "password"
    secret.write_text("pass")
    with broker.client() as client:
        client.execute_command(
            "ACL", "SETUSER", "reader", "on", ">pass", "~*", "+@read", "+@connection", "-client|list"
        )
    collected = run_collector(Broker(Options(url=broker.url, username="reader", password_file=secret)))
    assert_unknown(collected, Capacity)
    assert_observation(collected, QueueDepth("celery", 0))
    assert [rejection.reason for rejection in collected.rejected] == ["partial"]


def test_the_collector_conforms(broker: Any, collector: Broker) -> None:
    broker.fill("celery", 2)
    with broker.worker("celery@one"):
        assert_conforms(collector)


def test_the_collector_conforms_while_its_broker_comes_and_goes(broker: Any, collector: Broker) -> None:
    broker.fill("celery", 2)
    assert_conforms(collector, break_source=broker.away)


def test_an_options_mistake_is_named(load_plugin: Callable[..., Any]) -> None:
    (loaded,) = load_plugin("celery", {"queues": ["celery", "emails"], "priority_steps": [0, 5]})
    assert loaded.name == "broker"
    with pytest.raises(pytest.fail.Exception, match=r"plugins\.celery\.queue: unknown key.*'queues'"):
        load_plugin("celery", {"queue": "celery"})
