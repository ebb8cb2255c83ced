"""One process full of simulated nodes."""

from __future__ import annotations

import datetime as dt
import logging
import random
import signal
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Final
from uuid import UUID

from openclaw_exporter.cli.authority import Authority, node_uri, reader_uri
from openclaw_exporter.cli.driving import Driver
from openclaw_exporter.cli.load.node import Book, LoadNode
from openclaw_exporter.cli.load.plan import CUT_FROM
from openclaw_exporter.cli.load.stopping import Stop
from openclaw_exporter.cli.load.tally import Tally
from openclaw_exporter.cli.pki_files import PkiDirectory
from openclaw_exporter.client import Registry, RegistryError
from openclaw_exporter.wire.timestamps import format_ms

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from pathlib import Path

    from openclaw_exporter.cli.load.plan import Plan
    from openclaw_exporter.client import Node

_TELL_EVERY: Final = 0.5
_MOST_THREADS: Final = 16
_MOST_CHECKED: Final = 1000
"""Nodes whose history is compared at the end."""
_HISTORY_MS: Final = 50 * 60 * 1000
"""The receiver keeps an hour of it."""
_STOP_SECONDS: Final = 2.0
_ROUNDING: Final = 0.05
"""Seconds: the API's times are whole milliseconds, and listening time is another clock."""


def work(plan: Plan, number: int, directory: Path, pipe: Connection, stopping: Connection) -> None:
    """Run a worker's share of a load test, and send a `Tally` now and then and at the end.

    Args:
        plan: What to do.
        number: Which worker this is.
        directory: For its certificates.
        pipe: Takes each `Tally`; then None.
        stopping: Its other end is closed where it has to end early.
    """
    # Ctrl-C reaches every process of the terminal; the parent decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What fails is counted, and not told by every node.
    logging.disable(logging.CRITICAL)
    with pipe:
        try:
            worker = Worker(plan, number, directory)
            worker.run(pipe, Stop(stopping))
            pipe.send(worker.book.tally)
            pipe.send(None)
        except BrokenPipeError:
            # The parent has gone, and nobody wants to know.
            return


def issue(authority: Authority, certificate: Path, uri: str) -> Path:
    """Write a client's certificate, and its key beside it; return the certificate's path.

    The directory has to be its owner's alone.
    """
    issued = authority.client([uri], lifetime=dt.timedelta(days=2))
    certificate.write_bytes(issued.certificate_pem)
    certificate.with_suffix(".key").write_bytes(issued.key_pem)
    return certificate


def open_registry(plan: Plan, pki: PkiDirectory, certificate: Path) -> Registry:
    """Return a connection to the registry that is tested."""
    return Registry(plan.endpoint, ca=pki.ca, certificate=certificate, key=certificate.with_suffix(".key"))


class Worker:
    """The nodes of one process.

    Args:
        plan: What to do.
        number: Which worker this is.
        directory: For its certificates.
    """

    def __init__(self, plan: Plan, number: int, directory: Path) -> None:
        self._plan = plan
        self._tag = plan.tag(number)
        self._directory = directory
        self._pki = PkiDirectory.open(plan.pki)
        self._authority = Authority.load(self._pki.ca, self._pki.path / "ca.key")
        self._chance = random.Random(f"{plan.run}-{number}")  # noqa: S311 - who is replaced is no secret
        self.book = Book(Tally())
        share = plan.share(number)
        self._nodes = [self._make() for _ in range(share)]
        self._known = {node.node_id: node for node in self._nodes}
        self._driver = Driver(min(_MOST_THREADS, 2 + share // 50))
        self._replaced = 0.0
        self._reader = issue(
            self._authority,
            directory / "reader.pem",
            reader_uri(self._pki.trust_domain, f"{plan.run}-{number}"),
        )

    def run(self, pipe: Connection, stop: Stop) -> None:
        """Drive the nodes until the time is over, compare, and let them leave."""
        watching = threading.Thread(target=self._watch, name="load-events", daemon=True)
        watching.start()
        began = time.monotonic()
        for node in self._nodes:
            self._driver.add(node.turn, began + self._plan.ramp * self._chance.random())
        self._driver.start()
        try:
            while (passed := time.monotonic() - began) < self._plan.seconds and not stop.is_set():
                self._cut(passed)
                self._churn(passed)
                self.book.tally.late = self._driver.latest
                with self.book.lock:
                    pipe.send(self.book.tally)
                stop.wait(_TELL_EVERY)
        finally:
            self._driver.stop()
            self.book.tally.late = self._driver.latest
            self._compare()
            self._leave(stop)

    def _make(self) -> LoadNode:
        # Not uuid4(): the same run has the same nodes.
        node_id = str(UUID(int=self._chance.getrandbits(128), version=4))
        uri = node_uri(self._pki.trust_domain, node_id)
        certificate = issue(self._authority, self._directory / f"{node_id}.pem", uri)
        return LoadNode(
            self._plan, self._pki, certificate=certificate, node_id=node_id, tag=self._tag, book=self.book
        )

    def _cut(self, passed: float) -> None:
        begins = CUT_FROM * self._plan.seconds
        is_cut = begins <= passed < begins + self._plan.partition_seconds
        for node in self._nodes[: round(len(self._nodes) * self._plan.partition / 100)]:
            node.wire.is_cut = is_cut

    def _churn(self, passed: float) -> None:
        due = passed / 60 * len(self._nodes) * self._plan.churn / 100
        while self._replaced + 1 <= due:
            self._replaced += 1
            # From the end: those at the beginning are the ones that a partition cuts off.
            place = len(self._nodes) - 1 - self._chance.randrange(max(1, len(self._nodes) // 2))
            leaving, fresh = self._nodes[place], self._make()
            self._nodes[place] = self._known[fresh.node_id] = fresh
            leaving.leave(draining=self._replaced % 2 == 0)
            self._driver.add(fresh.turn, time.monotonic())

    def _watch(self) -> None:
        """Count expiries, and those that should not have been."""
        try:
            with open_registry(self._plan, self._pki, self._reader) as registry:
                for event in registry.events(events=["expired"], tags=[self._tag]):
                    if event.node is not None and event.at is not None:
                        self.expired(event.node, event.at)
        except RegistryError:
            # It is told by the comparison, which needs the same.
            return

    def expired(self, seen: Node, at: dt.datetime) -> None:
        """Count an expiry, and judge it: by the receiver's own times, and by what the node was answered.

        Args:
            seen: The node, as the registry had it.
            at: When it expired, by the receiver's clock.
        """
        intervals = 2 * seen.interval_seconds
        too_soon = (at - seen.last_seen).total_seconds() < intervals - _ROUNDING
        node = self._known.get(seen.node_id)
        # The event may be on its way for a while; an answer that is that young proves nothing.
        slack = max(1.0, seen.interval_seconds / 4)
        now = time.monotonic()
        heard = () if node is None else tuple(node.heard)
        false = too_soon or any(slack < now - answered < intervals - slack for answered in heard)

        def note(tally: Tally) -> None:
            tally.expiries += 1
            tally.false_expiries += false

        self.book.note(note)

    def _compare(self) -> None:
        """Look for every acknowledged heartbeat in the registry."""
        oldest = format_ms(int(time.time() * 1000) - _HISTORY_MS)
        tally = self.book.tally
        try:
            with open_registry(self._plan, self._pki, self._reader) as registry:
                for node in self._nodes[:_MOST_CHECKED]:
                    stored = [
                        format_ms(round(heard.last_heartbeat.timestamp() * 1000))
                        for heard in registry.history(node.node_id)
                    ]
                    expected = {sent for sent in node.wire.acknowledged if sent > oldest}
                    tally.checked += len(expected)
                    tally.lost += len(expected.difference(stored))
                    tally.twice += len(stored) - len(set(stored))
        except RegistryError as error:
            tally.unanswered.update([f"comparison: {error}"])

    def _leave(self, stop: Stop) -> None:
        """Let every node say good-bye, so that nothing is left to expire; less where it has to be quick."""
        tally = self.book.tally
        threads = Driver(min(_MOST_THREADS, 2 + len(self._nodes) // 50))
        left = threading.Semaphore(0)

        def leave(node: LoadNode) -> float:
            node.leave(draining=not stop.is_set() and node.publisher.stats.success > 0)
            left.release()
            return float("inf")

        for node in self._nodes:
            stats = node.publisher.stats
            tally.waiting += stats.buffered
            tally.dropped += stats.dropped
            threads.add(partial(leave, node), time.monotonic())
        threads.start()
        for _ in self._nodes:
            left.acquire(timeout=_STOP_SECONDS)
        threads.stop()
