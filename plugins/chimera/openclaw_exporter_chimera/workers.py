"""How many workers this node runs: configured, counted among its processes, or among a stream's consumers."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from openclaw_exporter.plugin import Capacity, Observation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from openclaw_exporter_chimera.options import Options
    from openclaw_exporter_chimera.streams import Consumer


class Workers:
    """Workers that are known without Redis.

    Where nothing tells which are busy, each counts as a slot; where Redis does, the slots are the other
    collector's, and unknown while Redis is away.
    """

    name = "workers"

    def __init__(self, options: Options) -> None:
        self._count = counter(options)
        self._slots = not options.redis_tells_slots

    def collect(self) -> Iterator[Observation]:
        """Yield what is known.

        Raises:
            OSError: There is no `/proc` to count processes in.
        """
        workers = self._count()
        yield Capacity("workers", workers)
        if self._slots:
            yield Capacity("available_slots", workers)


def counter(options: Options) -> Callable[[], int]:
    """Return what counts the workers that are known without Redis."""
    if options.worker_processes is None:
        fixed = options.workers or 0
        return lambda: fixed
    pattern = re.compile(os.fsencode(options.worker_processes))
    return lambda: count_processes(pattern)


def count_processes(pattern: re.Pattern[bytes]) -> int:
    """Count the processes of this machine (or container) whose command line has the pattern; not our own.

    One that was killed and not reaped yet has no command line any more. The lines are looked at and dropped:
    they may hold secrets.

    Raises:
        OSError: There is no `/proc`.
    """
    own = str(os.getpid())
    found = 0
    for name in os.listdir("/proc"):  # noqa: PTH208 - half the time of pathlib's, and one runs every interval
        if not name.isdecimal() or name == own:
            continue
        with suppress(OSError):  # it has ended meanwhile
            line = os.open(f"/proc/{name}/cmdline", os.O_RDONLY | os.O_CLOEXEC)
            try:
                text = os.read(line, 4_096)
            finally:
                os.close(line)
            found += pattern.search(text.replace(b"\0", b" ")) is not None
    return found


class Present(msgspec.Struct, frozen=True):
    """The consumers that are there: how many, and how many of them hold entries."""

    workers: int
    busy: int


def present(consumers: Iterable[Consumer], names: re.Pattern[bytes], idle: float) -> Present:
    """Count the consumers of this node that gave a sign in the last `idle` seconds.

    One that reads several streams is one worker. Redis keeps a consumer that was killed, with its entries: it
    is no worker, and what it holds is no work.
    """
    here: dict[bytes, bool] = {}
    for consumer in consumers:
        if consumer.idle < idle and names.match(consumer.name):
            here[consumer.name] = here.get(consumer.name, False) or consumer.pending > 0
    return Present(len(here), sum(here.values()))
