"""Old keys of nodes that have many arrivals: found as by a walk of all of them, without walking all again."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from openclaw_exporter.receiver.listening import Moment
from openclaw_exporter.receiver.registry import KeyRow
from openclaw_exporter.receiver.store import sqlite, trails
from openclaw_exporter.receiver.store.records import NOWHERE, Batch, place
from openclaw_exporter.receiver.store.sqlite import Database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Log:
    """A database and what is in it, each listening second one batch."""

    def __init__(self, path: Path) -> None:
        self.database = Database(path)
        self.database.open()
        self.now = 0
        self.rows: dict[str, list[KeyRow]] = {}
        self.trails: dict[str, int] = {}

    def record(self, *arrivals: tuple[str, int]) -> None:
        """Store arrivals: node and the heartbeat's time."""
        self.now += 1
        keys = []
        for index, (node, sent_ms) in enumerate(arrivals):
            digest = self.now.to_bytes(16) + index.to_bytes(16)
            row = KeyRow(node, sent_ms, digest, "recorded", 0, float(self.now), 1, self.now)
            keys.append((row, self.trails.get(node, NOWHERE)))
            self.trails[node] = place(self.now, index)
            self.rows.setdefault(node, []).append(row)
        self.database.commit(Batch(self.now, Moment(0, float(self.now), 0), keys))

    def forget(self, node: str) -> None:
        """Let a node begin anew."""
        self.rows.pop(node, None)
        self.trails.pop(node, None)

    def found(self, node: str, sent_ms: int, since: float = 0.0) -> bytes | None:
        """Return what the database finds."""
        key = (node, sent_ms, self.trails.get(node, NOWHERE))
        return self.database.lookup([key], since=since).digests.get((node, sent_ms))

    def expected(self, node: str, sent_ms: int, since: float) -> bytes | None:
        """Return what is right."""
        rows = reversed(self.rows.get(node, []))
        return next((row.digest for row in rows if row.sent_ms == sent_ms and row.heard_at >= since), None)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    made = Log(tmp_path / "registry.sqlite")
    yield made
    made.database.close()


def test_what_is_found_is_what_is_there_whatever_happens(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trails, "SHORT", 4)
    monkeypatch.setattr(sqlite, "SHORT", 4)
    monkeypatch.setattr(trails, "MOST", 60)
    dice = random.Random(7)
    nodes = [str(uuid4()) for _ in range(5)]
    since = 0.0
    for _ in range(3000):
        match dice.choices(("record", "find", "age", "forget", "reopen"), (40, 100, 3, 1, 0.5))[0]:
            case "record":
                some = dice.choices(nodes, (8, 8, 4, 1, 1), k=dice.randrange(1, 4))
                log.record(*((node, dice.randrange(80)) for node in some))
            case "find":
                node, sent_ms = dice.choice(nodes), dice.randrange(80)
                assert log.found(node, sent_ms, since) == log.expected(node, sent_ms, since)
            case "age":
                since = max(since, log.now - dice.randrange(10, 60))
                if dice.random() < 0.5:
                    log.database.purge(since, 1000)
            case "forget":
                log.forget(dice.choice(nodes))
            case "reopen":
                log.database.recover(Moment(0, float(log.now), 0), log.now, [])


def test_the_second_of_two_old_duplicates_walks_nothing_again(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, count = str(uuid4()), trails.SHORT + 500
    for sent_ms in range(1, count + 1):
        log.record((node, sent_ms))
    read = []
    record = Database._record
    monkeypatch.setattr(Database, "_record", lambda *where: read.append(where) or record(*where))
    for sent_ms, walked in ((1, count), (2, 2), (3, 2)):
        read.clear()
        assert log.found(node, sent_ms) == log.rows[node][sent_ms - 1].digest
        assert len(read) == walked
    # What has come since is walked once.
    log.record((node, count + 1))
    read.clear()
    assert log.found(node, 0) is None
    assert len(read) == 2


def test_trails_are_given_up_for_others(monkeypatch: pytest.MonkeyPatch, log: Log) -> None:
    monkeypatch.setattr(trails, "MOST", 2 * trails.SHORT + 2)
    nodes = [str(uuid4()) for _ in range(3)]
    for sent_ms in range(1, trails.SHORT + 2):
        log.record(*((node, sent_ms) for node in nodes))
    for node in (*nodes, *nodes):
        assert log.found(node, 1) == log.rows[node][0].digest
    assert len(log.database._trails._kept) == 2
    log.database._trails.clear()
    assert log.database._trails._arrivals == 0
