"""Whole histories by their number, and the stores that live through them."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from unittest import mock

import redis
from receiver.happenings import Fleet, steps
from receiver.redis_subject import PARTITIONS, SharedRedis
from receiver.subjects import Embedded, InlineWriter
from receiver.trial import live_through, shortest_tail

from openclaw_exporter.receiver.liveness import Rules
from openclaw_exporter.receiver.registry import Registry
from openclaw_exporter.receiver.store import embedded, tail
from openclaw_exporter.receiver.store.batching import BatchingStore
from openclaw_exporter.receiver.store.redis import store as redis_store
from support.redis import RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from receiver.happenings import Happening
    from receiver.subjects import Subject

STORES = ("embedded", "redis")

_MEMORY = Path("/dev/shm")  # noqa: S108 - where there is one, so that no disk is waited for


class Setting(NamedTuple):
    """A fleet and the configuration of its receivers."""

    rules: Rules
    size: int
    intervals: tuple[int | None, ...]
    pace: float = 0.4


SETTINGS = (
    # A short memory: nodes come, go and are forgotten.
    Setting(Rules(default_interval=12, max_interval=24, retention=120.0), 24, (None, 8, 12, 24)),
    # Few nodes: the brake does not hold.
    Setting(Rules(default_interval=30, max_interval=60, retention=7200.0), 9, (None, 20, 30, 60), 0.9),
    # Nodes outlive their keys.
    Setting(Rules(default_interval=30, max_interval=60, retention=86_400.0), 14, (None, 20, 30, 40), 0.9),
    # Intervals follow the size of the fleet.
    Setting(
        Rules(default_interval=12, max_interval=48, retention=600.0, target_rate=0.7), 30, (None, 12, 20, 40)
    ),
)


def history_of(store: str, seed: int, count: int) -> tuple[Setting, list[Happening]]:
    """Return what a number stands for."""
    receivers, parts = receivers_of(store, seed), PARTITIONS if store == "redis" else 1
    setting = SETTINGS[seed % len(SETTINGS)]
    default = setting.rules.default_interval
    fleet = Fleet(seed, setting.size, setting.intervals, default, setting.pace, receivers, parts)
    return setting, list(fleet.happenings(count))


def receivers_of(store: str, seed: int) -> int:
    """Return how many receivers a history is for: of a shared registry now and then three."""
    return 3 if store == "redis" and seed % 3 == 0 else 1


def failure_of(store: str, seed: int, count: int) -> str | None:
    """Let a store live through a history; return what is wrong, and the shortest way there."""
    setting, history = history_of(store, seed, count)
    with ExitStack() as stack:
        memory = _MEMORY if _MEMORY.is_dir() else None
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=memory)))
        # Nothing waits for real time or another thread, and nothing is logged of thousands of faults.
        stack.enter_context(mock.patch.object(embedded, "Writer", InlineWriter))
        stack.enter_context(mock.patch.object(redis_store, "_FOLLOW_EVERY", 1e6))
        for kind in (BatchingStore, redis_store.RedisStore):
            stack.enter_context(mock.patch.multiple(kind, _gather=0.0, _pace_seconds=0.0))
        # Who begins to lead looks within a second at those that came due before; here at once.
        stack.enter_context(mock.patch.object(Registry, "turn"))
        if seed % 2:
            # Fold what is stored from the first states on, a few at a time.
            stack.enter_context(mock.patch.multiple(tail, SPARE=5, _STEP=30))
        stack.callback(logging.disable, logging.root.manager.disable)
        logging.disable(logging.CRITICAL)
        if store == "redis":
            server = RedisServer(place)
            server.start()
            stack.callback(server.stop)
            fresh = partial(_empty_redis, server, setting.rules, receivers_of(store, seed))
        else:
            fresh = partial(_empty_file, place, setting.rules)
        return asyncio.run(_failure(seed, setting.rules, history, fresh))


def _empty_redis(server: RedisServer, rules: Rules, receivers: int) -> Subject:
    with redis.Redis(port=server.port) as client:
        client.flushall()
    return SharedRedis(server.url, rules, receivers)


def _empty_file(place: Path, rules: Rules) -> Subject:
    return Embedded(Path(tempfile.mkdtemp(dir=place)), rules)


async def _failure(
    seed: int, rules: Rules, history: Sequence[Happening], fresh: Callable[[], Subject]
) -> str | None:
    failure = await live_through(fresh, rules, history)
    if failure is None:
        return None
    lived = history[: failure.index + 1]
    tail, again = await shortest_tail(fresh, rules, lived) or (lived[-20:], failure)
    told = "\n".join(f"  {happening}" for happening in tail)
    return (
        f"history {seed} (MODEL_SEED={seed}) fails after {sum(map(steps, lived))} steps:\n"
        f"{failure.text}\nThe shortest end of it that fails by itself, with {rules}:\n{told}\n{again.text}"
    )
