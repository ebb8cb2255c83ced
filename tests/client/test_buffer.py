"""The buffer on a disk that works, that is full, that is read-only and that lies."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import subprocess
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_exporter.client import BufferSettings
from openclaw_exporter.client.buffer import Buffer
from openclaw_exporter.client.outgoing import Outgoing
from openclaw_exporter.logs import Episodes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def beat(number: int, size: int = 300) -> Outgoing:
    return Outgoing(b"%08d" % number + b"x" * (size - 8), f"1.{number}", 60, number)


class Opened:
    """A buffer, and what it told of its drops."""

    def __init__(self, file: Path | None, limits: BufferSettings | None = None) -> None:
        self.told: Counter[str] = Counter()
        self.buffer = Buffer(
            file,
            limits or BufferSettings(),
            episodes=Episodes(logging.getLogger("test")),
            dropped=lambda reason, number: self.told.update({reason: number}),
        )

    def drain(self) -> list[int]:
        """Take everything out, and return the numbers."""
        numbers = []
        while (waiting := self.buffer.oldest()) is not None:
            numbers.append(int(waiting.outgoing.sequence.partition(".")[2]))
            self.buffer.remove(waiting.key)
        return numbers


@pytest.fixture
def file(fast_path: Path) -> Path:
    return fast_path / "buffer.sqlite3"


@contextlib.contextmanager
def opened(file: Path | None, limits: BufferSettings | None = None) -> Iterator[Opened]:
    made = Opened(file, limits)
    try:
        yield made
    finally:
        made.buffer.close()


def test_it_outlives_its_process(file: Path) -> None:
    with opened(file) as first:
        for number in range(20):
            first.buffer.add(beat(number))
        first.buffer.remove(1)
    with opened(file) as second:
        assert len(second.buffer) == 19
        assert second.buffer.sent_times() == set(range(1, 20))
        waiting = second.buffer.oldest()
        assert waiting is not None
        assert waiting.outgoing == beat(1)
        assert second.drain() == list(range(1, 20))
    with opened(file) as third:
        assert len(third.buffer) == 0
        assert third.buffer.bytes == 0


def test_the_file_is_the_owners_alone(file: Path) -> None:
    with opened(file) as made:
        made.buffer.add(beat(1))
    assert file.stat().st_mode & 0o777 == 0o600


def test_no_file_before_the_first_heartbeat(file: Path) -> None:
    with opened(file):
        assert not file.exists()


@given(
    sizes=st.lists(st.integers(8, 16_384), max_size=120),
    most=st.integers(1, 50),
)
def test_bounds_in_memory(sizes: list[int], most: int) -> None:
    limits = BufferSettings(max_heartbeats=most, max_bytes=256 * 1024)
    with opened(None, limits) as made:
        for number, size in enumerate(sizes):
            made.buffer.add(beat(number, size))
            assert len(made.buffer) <= most
            assert made.buffer.bytes <= 256 * 1024
        assert len(made.buffer) + made.told["overflow"] == len(sizes)
        assert made.drain() == list(range(made.told["overflow"], len(sizes)))


@pytest.mark.parametrize("size", [300, 2200, 5000, 16_384])
def test_the_file_keeps_its_bound(size: int, file: Path) -> None:
    limits = BufferSettings(max_heartbeats=5000, max_bytes=256 * 1024)
    with opened(file, limits) as made:
        for number in range(1500):
            made.buffer.add(beat(number, size))
            assert sum(entry.stat().st_size for entry in file.parent.iterdir()) <= 256 * 1024 + 40_000
        assert file.stat().st_size <= 256 * 1024
        assert len(made.buffer) + made.told["overflow"] == 1500
        assert made.told == made.buffer.drops
        dropped = made.told["overflow"]
    with opened(file, limits) as again:
        assert again.drain() == list(range(dropped, 1500))


def test_narrower_limits_hold_at_once(file: Path) -> None:
    with opened(file) as made:
        for number in range(50):
            made.buffer.add(beat(number))
    with opened(file, BufferSettings(max_heartbeats=10)) as made:
        assert len(made.buffer) == 10
        assert made.told == {"overflow": 40}
        assert made.drain() == list(range(40, 50))


@pytest.mark.parametrize(
    "content", [b"", b"garbage" * 1000, b"SQLite format 3\x00" + b"\xff" * 8000, b"\x00" * 4096]
)
def test_a_corrupt_file_is_put_aside(content: bytes, file: Path, caplog: pytest.LogCaptureFixture) -> None:
    file.write_bytes(content)
    with opened(file) as made:
        made.buffer.add(beat(1))
        made.buffer.add(beat(2))
    aside = list(file.parent.glob("buffer.sqlite3.corrupt-*"))
    if content:
        assert [place.read_bytes() for place in aside] == [content]
        assert str(aside[0]) in caplog.text
    with opened(file) as again:
        assert again.drain() == [1, 2]


def test_a_file_that_breaks_while_we_run_costs_exactly_its_rows(file: Path) -> None:
    with opened(file) as made:
        for number in range(30):
            made.buffer.add(beat(number))
        content = bytearray(file.read_bytes())
        content[: 4096 * 2] = os.urandom(4096 * 2)
        file.write_bytes(content)
        for number in range(30, 40):
            made.buffer.add(beat(number))
        assert len(made.buffer) + made.told.total() == 40
        assert made.told["disk"] == 30
        assert made.drain() == list(range(30, 40))
    assert len(list(file.parent.glob("*.corrupt-*"))) == 1


def test_a_file_that_breaks_is_noticed_by_reading_too(file: Path) -> None:
    with opened(file) as made:
        for number in range(3):
            made.buffer.add(beat(number))
        file.write_bytes(os.urandom(file.stat().st_size))
        assert made.buffer.oldest() is None
        assert made.told == {"disk": 3}
        assert made.buffer.sent_times() == set()
        made.buffer.add(beat(3))
        assert made.drain() == [3]


def test_a_file_that_breaks_is_noticed_by_deleting_too(file: Path) -> None:
    with opened(file) as made:
        for number in range(3):
            made.buffer.add(beat(number))
        waiting = made.buffer.oldest()
        assert waiting is not None
        file.write_bytes(os.urandom(file.stat().st_size))
        made.buffer.remove(waiting.key)
        assert len(made.buffer) == 0
        # The one that was delivered is not lost.
        assert made.told == {"disk": 2}


def test_a_row_that_vanished_is_counted(file: Path) -> None:
    with opened(file) as made:
        for number in range(3):
            made.buffer.add(beat(number))
        with contextlib.closing(sqlite3.connect(file)) as database, database:
            database.execute("DELETE FROM heartbeats WHERE sent_ms = 1")
        assert made.drain() == [0, 2]
        assert made.told == {"disk": 1}


def test_what_is_dropped_for_good_is_counted_once(file: Path) -> None:
    with opened(file) as made:
        key = made.buffer.add(beat(0))
        made.buffer.drop(key, "refused")
        made.buffer.drop(key, "refused")
        assert not made.buffer.remove(key)
        assert made.told == {"refused": 1}


def test_a_changed_row_is_dropped_not_sent(file: Path) -> None:
    with opened(file) as made:
        for number in range(3):
            made.buffer.add(beat(number))
    with contextlib.closing(sqlite3.connect(file)) as database, database:
        database.execute("UPDATE heartbeats SET body = ? WHERE sent_ms = 1", (b"other",))
    with opened(file) as made:
        assert made.drain() == [0, 2]
        assert made.told == {"disk": 1}


def test_a_newer_format_is_put_aside(file: Path) -> None:
    with contextlib.closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA user_version = 2")
    with opened(file) as made:
        made.buffer.add(beat(1))
        assert made.drain() == [1]
    assert len(list(file.parent.glob("*.corrupt-*"))) == 1


def test_a_file_that_somebody_locks_costs_nothing(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    with opened(file) as made:
        for number in range(5):
            made.buffer.add(beat(number))
        with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            for number in range(5, 30):
                made.buffer.add(beat(number))
            made.buffer.remove(1)
            assert made.buffer.oldest() is None
            assert len(made.buffer) == 29
            other.execute("ROLLBACK")
        assert sum("wait in memory" in record.message for record in caplog.records) == 1
        made.buffer.add(beat(30))
        assert len(made.buffer) == 30
    with opened(file) as again:
        assert sorted(again.drain()) == list(range(1, 31))
        assert again.told.total() == 0


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB, which fills up like any other."""
    place = tmp_path / "tiny"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("a tmpfs cannot be mounted here (needs root)")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_moves_to_memory_and_back(tiny_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tiny_disk / "buffer.sqlite3"
    ballast = tiny_disk / "ballast"
    limits = BufferSettings(max_heartbeats=400)
    with opened(file, limits) as made:
        made.buffer.add(beat(0))
        free = os.statvfs(tiny_disk)
        ballast.write_bytes(b"x" * (free.f_bavail * free.f_bsize))
        for number in range(1, 500):
            made.buffer.add(beat(number))
            assert len(made.buffer) <= 400
        assert made.told == {"overflow": 100}
        assert sum("wait in memory" in record.message for record in caplog.records) == 1
        caplog.set_level(logging.INFO)
        ballast.unlink()
        # What was dropped of what is on disk stays dropped, and the rest moves over bit by bit.
        for number in range(500, 540):
            made.buffer.add(beat(number))
        assert "can be written again" in caplog.text
        assert made.told == {"overflow": 140}
        numbers = made.drain()
        assert numbers == list(range(140, 540))


def test_a_disk_that_fills_up_loses_nothing(tiny_disk: Path) -> None:
    file = tiny_disk / "buffer.sqlite3"
    with opened(file) as made:
        for number in range(600):
            made.buffer.add(beat(number))
        assert len(made.buffer) == 600
        assert file.stat().st_size < 64 * 1024
        assert made.drain() == list(range(600))
        assert made.told.total() == 0


def test_a_read_only_disk(tiny_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tiny_disk / "buffer.sqlite3"
    with opened(file) as made:
        for number in range(3):
            made.buffer.add(beat(number))
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    with opened(file) as made:
        for number in range(3, 10):
            made.buffer.add(beat(number))
        assert len(made.buffer) == 7
        assert sum("wait in memory" in record.message for record in caplog.records) == 1
        subprocess.run(["mount", "-o", "remount,rw", str(tiny_disk)], check=True)
        made.buffer.add(beat(10))
        assert made.told.total() == 0
        # What lay on the disk could not be deleted before, so it is delivered only now, and first.
        assert made.drain() == list(range(11))
    with opened(file) as again:
        assert len(again.buffer) == 0


def test_deliveries_while_the_disk_is_full_are_not_repeated(tiny_disk: Path) -> None:
    file = tiny_disk / "buffer.sqlite3"
    ballast = tiny_disk / "ballast"
    with opened(file) as made:
        for number in range(30):
            made.buffer.add(beat(number))
        free = os.statvfs(tiny_disk)
        ballast.write_bytes(b"x" * (free.f_bavail * free.f_bsize))
        # Not even a deletion finds room for its journal.
        for expected in range(20):
            waiting = made.buffer.oldest()
            assert waiting is not None
            assert waiting.outgoing == beat(expected)
            made.buffer.remove(waiting.key)
        ballast.unlink()
        made.buffer.add(beat(30))
    with opened(file) as again:
        assert again.drain() == list(range(20, 31))


def test_a_directory_that_is_gone(file: Path) -> None:
    missing = file.parent / "missing" / "buffer.sqlite3"
    with opened(missing) as made:
        for number in range(5):
            made.buffer.add(beat(number))
        missing.parent.mkdir()
        made.buffer.add(beat(5))
    with opened(missing) as again:
        assert again.drain() == list(range(6))
