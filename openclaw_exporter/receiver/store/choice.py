"""Which store a receiver has: its URL says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openclaw_exporter.receiver.discovery.observers import Observers
from openclaw_exporter.receiver.safety import store_path
from openclaw_exporter.receiver.store.embedded import EmbeddedStore
from openclaw_exporter.receiver.store.redis.address import is_redis
from openclaw_exporter.receiver.store.redis.target import target_of
from openclaw_exporter.receiver.store.sqlite import Database

if TYPE_CHECKING:
    from collections.abc import Callable

    from openclaw_exporter.receiver.clock import Clock
    from openclaw_exporter.receiver.discovery.events import Hub
    from openclaw_exporter.receiver.liveness import Rules
    from openclaw_exporter.receiver.metrics import ReceiverMetrics
    from openclaw_exporter.receiver.settings import StoreSettings
    from openclaw_exporter.receiver.store import Store


def system_of(url: str) -> str:
    """Return the name of the system behind a store's URL, as `db.system.name` has it."""
    return "redis" if is_redis(url) else EmbeddedStore.system


def make_store(
    settings: StoreSettings,
    rules: Rules,
    clock: Clock,
    metrics: ReceiverMetrics,
    hub: Hub,
    turn_away: Callable[[], int],
) -> Store:
    """Return a store, not open yet.

    Args:
        settings: Where it is.
        rules: The configuration's.
        clock: This machine's clocks.
        metrics: Counts what happens by this receiver's doing.
        hub: Tells of all that happens.
        turn_away: Returns after how many seconds one that is turned away may come back.
    """
    if not is_redis(settings.url):
        return EmbeddedStore(
            Database(store_path(settings.url)),
            rules,
            clock,
            Observers(metrics, hub),
            max_waiting=settings.max_waiting,
            turn_away=turn_away,
        )
    # It needs hiredis, which whoever has a file does not.
    from openclaw_exporter.receiver.store.redis.link import Link  # noqa: PLC0415
    from openclaw_exporter.receiver.store.redis.scripts import ALL  # noqa: PLC0415
    from openclaw_exporter.receiver.store.redis.store import RedisStore  # noqa: PLC0415

    target = target_of(settings)
    store = RedisStore(
        Link(target, ALL),
        target.partitions,
        rules,
        clock,
        Observers(metrics, hub, is_shared=True),
        hub,
        max_waiting=settings.max_waiting,
        turn_away=turn_away,
    )
    metrics.watch_shared(lambda: store.conflicts, lambda: store.partitions_away)
    return store
