"""A registry that knows very many nodes before a receiver starts: the receiver's own store writes it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import uvloop
from million_fleet import node_id
from million_receiver import LONGEST
from opentelemetry.metrics import NoOpMeterProvider
from proxy_load import body_of

from openclaw_exporter.receiver.clock import SystemClock
from openclaw_exporter.receiver.discovery.events import Hub
from openclaw_exporter.receiver.discovery.observers import Observers
from openclaw_exporter.receiver.intake import shared_tags
from openclaw_exporter.receiver.liveness import Arrival, Rules
from openclaw_exporter.receiver.metrics import ReceiverMetrics
from openclaw_exporter.receiver.store.embedded import EmbeddedStore
from openclaw_exporter.receiver.store.sqlite import Database
from openclaw_exporter.wire.headers import Sequence
from openclaw_exporter.wire.heartbeat import decode, digest, encode

if TYPE_CHECKING:
    from pathlib import Path

_IN_FLIGHT = 4096
_STAND_IN = node_id(0)


def seed(path: Path, numbers: range) -> None:
    """Let a registry know these nodes, each by one heartbeat of now with the longest interval.

    Args:
        path: The registry's file.
        numbers: The nodes'.
    """
    started = time.monotonic()
    uvloop.run(_seed(path, numbers))
    print(
        f"  {len(numbers)} nodes written into the registry in {time.monotonic() - started:.0f} s", flush=True
    )


async def _seed(path: Path, numbers: range) -> None:
    metrics = ReceiverMetrics(NoOpMeterProvider().get_meter("bench"), "sqlite")
    rules = Rules(default_interval=60, max_interval=LONGEST, retention=86_400.0)
    store = EmbeddedStore(Database(path), rules, SystemClock(), Observers(metrics, Hub(4096)))
    await store.open()
    sent_ms = int(time.time() * 1000)
    heartbeat = decode(body_of(_STAND_IN, sent_ms))
    form, tags = encode(heartbeat), shared_tags(heartbeat.tags)
    waiting = []
    for number in numbers:
        name = node_id(number)
        payload = form.replace(_STAND_IN, name)
        arrival = Arrival(
            node_id=name.decode(),
            payload=payload,
            digest=digest(payload),
            tags=tags,
            version=heartbeat.version,
            slots=5,
            sent_ms=heartbeat.sent_ms,
            sequence=Sequence(sent_ms, 0),
            interval=LONGEST,
        )
        waiting.append(store.record(arrival))
        if len(waiting) == _IN_FLIGHT:
            await asyncio.gather(*waiting)
            waiting.clear()
            store.tick()
    await asyncio.gather(*waiting)
    await store.close()
