"""All collectors: one thread tells them when to run and gives up those that are overdue."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Final

from openclaw_exporter.agent.snapshot import CollectorState
from openclaw_exporter.agent.sources import ThreadSource
from openclaw_exporter.agent.worker import Worker
from openclaw_exporter.logs import Episodes
from openclaw_exporter.plugin.guard import Guard
from openclaw_exporter.plugin.redaction import describe_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from openclaw_exporter.agent.settings import ProcessSettings
    from openclaw_exporter.agent.snapshot import Board, CollectorKey
    from openclaw_exporter.agent.sources import Source
    from openclaw_exporter.plugin.host import LoadedCollector

_LOGGER: Final = logging.getLogger(__name__)
_IDLE: Final = 3600.0
_LOAD: Final = "load"


class Collection:
    """Runs collectors and puts their results on a board.

    Args:
        board: Where results go.
        process: Returns what holds for collectors in processes of their own.
        on_run: Called with the collector and the duration in seconds of each run that ended.
    """

    def __init__(
        self,
        board: Board,
        process: Callable[[], ProcessSettings],
        on_run: Callable[[LoadedCollector, float], None] = lambda _loaded, _seconds: None,
    ) -> None:
        self._board = board
        self._process = process
        self._on_run = on_run
        self._episodes = Episodes(_LOGGER)
        self._lock = threading.Lock()
        self._workers: dict[CollectorKey, Worker] = {}
        self._ended: list[Worker] = []
        self._guards: dict[CollectorKey, tuple[int, Guard]] = {}
        self._unloaded: dict[str, int] = {}
        self._changed = threading.Event()
        self._closing = False
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._attend, name="collection", daemon=True)

    def start(self) -> None:
        """Start attending to collectors, those added later too."""
        self._began = time.monotonic()
        self._thread.start()

    @property
    def loaded(self) -> tuple[LoadedCollector, ...]:
        """The collectors that run now, in order."""
        return tuple(worker.loaded for worker in self._workers.values())

    @property
    def running(self) -> tuple[LoadedCollector, ...]:
        """The collectors that are in the middle of a run now."""
        return tuple(worker.loaded for worker in self._workers.values() if worker.running)

    def add(self, loaded: Iterable[LoadedCollector]) -> None:
        """Run further collectors, beside those that run."""
        with self._lock:
            self._arrange((*self.loaded, *loaded))

    def replace(self, loaded: Iterable[LoadedCollector]) -> None:
        """Run exactly these collectors. One that is the same object as before goes on undisturbed.

        The first collection of each is due at once. Those after it come at the same moments for all that
        have the same interval: waking a sleeping CPU costs more than most collections, so it happens once.
        """
        with self._lock:
            self._arrange(loaded)

    def note_unloaded(self, plugin: str) -> None:
        """Show on the board that a plugin cannot be loaded: as a failed collector without a name."""
        with self._lock:
            failures = self._unloaded.get(plugin, 0) + 1
            self._unloaded[plugin] = failures
            self._arrange(self.loaded)
            self._board.put(CollectorState(plugin, "", error_type=_LOAD, errors={_LOAD: failures}))

    def note_loaded(self, plugin: str) -> None:
        """Take back `note_unloaded`."""
        with self._lock:
            if self._unloaded.pop(plugin, None):
                self._arrange(self.loaded)

    def wait_for_first(self, timeout: float) -> bool:
        """Wait until every collector has ended or given up its first run; tell whether that came in time."""
        until = time.monotonic() + timeout
        return all(
            worker.first_result.wait(max(0.0, until - time.monotonic()))
            for worker in tuple(self._workers.values())
        )

    def cancel(self) -> None:
        """Stop collecting. Never waits for a collector: what runs is left to itself, or killed."""
        with self._lock:
            self._closing = True
            workers = tuple(self._workers.values())
        self._changed.set()
        for worker in workers:
            worker.cancel()

    def join(self, timeout: float) -> tuple[LoadedCollector, ...]:
        """Wait a bounded time for the threads to end, after `cancel`; return the collectors that go on.

        Those whose `close()` does not end are among them.
        """
        until = time.monotonic() + timeout
        everyone = (*self._workers.values(), *self._ended)
        for worker in everyone:
            worker.join(max(0.0, until - time.monotonic()))
        if self._thread.is_alive():
            self._thread.join(max(0.0, until - time.monotonic()))
        return tuple(worker.loaded for worker in everyone if worker.present)

    def _arrange(self, loaded: Iterable[LoadedCollector]) -> None:
        if self._closing:
            return
        wanted = {(item.plugin, item.name): item for item in sorted(loaded, key=_order)}
        kept = {key: worker for key, worker in self._workers.items() if wanted.get(key) is worker.loaded}
        gone = [worker for key, worker in self._workers.items() if key not in kept]
        for worker in gone:
            worker.cancel()
        self._ended = [worker for worker in (*self._ended, *gone) if worker.present]
        self._board.arrange(sorted((*wanted, *((plugin, "") for plugin in self._unloaded))))
        now = time.monotonic()
        workers: dict[CollectorKey, Worker] = {}
        for key, item in wanted.items():
            worker = kept.get(key) or self._worker(item)
            workers[key] = worker
            if key not in kept:
                worker.start(due=now, grid=self._began)
        self._workers = workers
        self._changed.set()

    def _worker(self, loaded: LoadedCollector) -> Worker:
        guard = self._guard(loaded)
        source: Source
        if loaded.isolation == "process":
            from openclaw_exporter.agent.isolation import ChildSource  # noqa: PLC0415 - only when used

            source = ChildSource(loaded, guard, self._process())
        else:
            source = ThreadSource(loaded.collector, guard)
        return Worker(loaded, source, self._board, self._episodes, self._on_run)

    def _guard(self, loaded: LoadedCollector) -> Guard:
        """Return the collector's guard; it outlives a reload, because the series it has counted do."""
        key = (loaded.plugin, loaded.name)
        budget, guard = self._guards.get(key, (0, None))
        previous = self._workers.get(key)
        if guard is None or budget != loaded.series_budget or (previous is not None and previous.running):
            guard = Guard(loaded.series_budget)
            self._guards[key] = (loaded.series_budget, guard)
        return guard

    def _attend(self) -> None:
        next_time = 0.0
        while not self._closing:
            self._changed.wait(max(0.0, next_time - time.monotonic()))
            self._changed.clear()
            now = time.monotonic()
            next_time = min(
                (self._attend_one(worker, now) for worker in tuple(self._workers.values())),
                default=now + _IDLE,
            )

    def _attend_one(self, worker: Worker, now: float) -> float:
        try:
            return worker.attend(now)
        except Exception as error:  # noqa: BLE001 - our own fault, and the others must go on
            name = f"{worker.loaded.plugin}/{worker.loaded.name}"
            text = f"collector {name} could not be attended to ({describe_error(error)})"
            self._episodes.begin(f"attend {name}", type(error).__name__, text, level=logging.ERROR)
            return now + worker.loaded.interval


def _order(loaded: LoadedCollector) -> CollectorKey:
    return loaded.plugin, loaded.name
