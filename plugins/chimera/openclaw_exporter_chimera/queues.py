"""The collector `queues`: every topic's depth, and what else Redis tells, in one round trip."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec.structs import replace

from openclaw_exporter.plugin import Capacity, Measurement, Observation, QueueDepth
from openclaw_exporter_chimera.connection import AuthenticationError
from openclaw_exporter_chimera.drain import Drain
from openclaw_exporter_chimera.links import Link, link
from openclaw_exporter_chimera.reading import OtherTypeError, Reader, Reading, TopicError
from openclaw_exporter_chimera.search import Search
from openclaw_exporter_chimera.stamps import earliest
from openclaw_exporter_chimera.systems import Source
from openclaw_exporter_chimera.wire import AwayError
from openclaw_exporter_chimera.workers import counter, present

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from openclaw_exporter_chimera.links import Request
    from openclaw_exporter_chimera.options import Options

_BLOCKED: Final = re.compile(rb"^blocked_clients:(\d+)", re.MULTILINE)


class _Topic(msgspec.Struct, frozen=True):
    """One topic: its keys, its patterns, and what is asked of its streams."""

    sources: tuple[Source, ...]
    patterns: tuple[str, ...]
    consumers: bool
    busy: bool


class _Seen(msgspec.Struct):
    """What one collection has read."""

    readings: dict[bytes, Reading]
    blocked: int | TopicError = 0


class Queues:
    """Every configured topic's depth, oldest message and drain estimate, and the slots where Redis tells."""

    name = "queues"

    def __init__(self, options: Options) -> None:
        self._options = options
        self._link: Link | None = None
        self._reader = Reader(options)
        self._searches = {pattern: Search(pattern, options) for pattern in options.patterns}
        self._topics = {topic: _topic(options, topic) for topic in options.topics}
        self._drains = {topic: Drain(options.drain_window) for topic in options.topics}
        self._workers = counter(options)
        self._names = re.compile(os.fsencode(options.consumer_names))

    def collect(self) -> list[Observation | Exception]:
        """Return what is known of each topic, and an error for each that cannot be read.

        Raises:
            PermissionError: Redis refuses user or password, or a file for the connection cannot be read.
            TimeoutError: Redis did not answer in time.
            ConnectionError: Redis cannot be reached, or none of the topics can be read.
        """
        place = self._options.place
        try:
            seen = self._see()
        except Exception as error:
            self._forget_depths()
            self.close()  # the next connection reads the password's file again
            if isinstance(error, AuthenticationError):
                raise PermissionError(f"{place} refuses the user name or password") from None
            if isinstance(error, TimeoutError):
                wait = f"{self._options.socket_timeout:g} s"
                raise TimeoutError(f"{place} gave no answer within {wait}") from None
            if isinstance(error, PermissionError):  # of a file, which it names
                raise
            if isinstance(error, (AwayError, OSError)):
                raise ConnectionError(f"{place} cannot be read: {error}") from None
            raise
        depths = {topic: self._depth(topic, seen) for topic in self._topics}
        if all(isinstance(depth, Exception) for depth in depths.values()):
            self._forget_depths()
            raise ConnectionError(f"no topic at {place} can be read: {next(iter(depths.values()))}")
        slots = self._slots(seen) if self._options.redis_tells_slots else []
        return [*depths.values(), *self._drain(depths), *slots]

    def close(self) -> None:
        """Close the connection."""
        link, self._link = self._link, None
        if link is not None:
            with suppress(Exception):
                link.close()

    def _see(self) -> _Seen:
        """Ask Redis. Once every pattern was searched, and as long as no key changes, it is one round trip."""
        if self._link is None:
            self._link = link(self._options)
        way = self._link
        places = way.places()
        running = [search for search in self._searches.values() if search.complete]
        for search in self._searches.values():
            search.failed = None
        while fresh := [s for s in self._searches.values() if not (s.complete or s.failed)]:
            _step(fresh, way, places)
        steps = [(search, search.requests(places)) for search in running]
        others: list[Request] = [request for _, requests in steps for request in requests]
        if self._options.blocked_hint:
            others += [(place, (b"INFO", b"clients")) for place in places]
        sources = self._sources()
        readings, answers = self._reader.read(way, sources, others)
        given = iter(answers)
        for search, requests in steps:
            search.take([next(given) for _ in requests])
        found = self._sources() if steps else sources
        new = {key: source for key, source in found.items() if key not in sources}
        if new:
            readings |= self._reader.read(way, new)[0]
        self._reader.forget(found)
        return _Seen(readings, _blocked(list(given)))

    def _sources(self) -> dict[bytes, Source]:
        """Return all keys that are read now; one that two topics have is asked what either needs."""
        found: dict[bytes, Source] = {}
        for topic in self._topics.values():
            for source in self._of(topic):
                wanted = replace(source, consumers=True) if topic.consumers and not source.work else source
                known = found.get(source.key)
                if known is None or wanted.consumers:
                    found[source.key] = wanted
        return found

    def _of(self, topic: _Topic) -> Iterable[Source]:
        yield from (source for source in topic.sources if topic.busy or not source.work)
        for pattern in topic.patterns:
            yield from map(Source, self._searches[pattern].keys)

    def _depth(self, name: str, seen: _Seen) -> QueueDepth | TopicError:
        """Add up one topic: each key once, however many patterns find it."""
        topic = self._topics[name]
        counted: dict[bytes, Reading] = {}
        for source in topic.sources:
            if not source.work:
                counted[source.key] = seen.readings[source.key]
        for pattern in topic.patterns:
            search = self._searches[pattern]
            if search.failed:
                return TopicError(f"topic {name!r}: {search.failed}")
            for key in search.keys - counted.keys():
                reading = seen.readings[key]
                if not isinstance(reading.depth, OtherTypeError):  # a search finds what is no queue as well
                    counted[key] = reading
        depth = 0
        for reading in counted.values():
            if isinstance(reading.depth, TopicError):
                return TopicError(f"topic {name!r}: {reading.depth}")
            depth += reading.depth
        oldest = earliest(reading.oldest for reading in counted.values())
        return QueueDepth(name, depth, None if oldest is None else max(0.0, time.time() - oldest))

    def _drain(self, depths: Mapping[str, QueueDepth | TopicError]) -> list[Observation | Exception]:
        if not self._options.drain_window:
            return []
        now = time.monotonic()
        found: list[Observation | Exception] = []
        for topic, known in depths.items():
            seconds = self._drains[topic].seconds(now, known.depth if isinstance(known, QueueDepth) else None)
            if seconds is not None:
                attributes = {"messaging.destination.name": topic}
                found.append(Measurement("chimera.queue.drain.time", seconds, "s", "gauge", attributes))
        return found

    def _forget_depths(self) -> None:
        for drain in self._drains.values():
            drain.seconds(0.0, None)

    def _slots(self, seen: _Seen) -> list[Observation | Exception]:
        """Return workers, where they are consumers, and the slots: workers less busy ones."""
        options = self._options
        at_work = {source.key for t in self._topics.values() if t.busy for source in t.sources if source.work}
        working = [seen.readings[key].depth for key in sorted(at_work)]
        consumers = [seen.readings[key].consumers for key in self._streams(seen)]
        unknown = [item for item in (*working, *consumers, seen.blocked) if isinstance(item, TopicError)]
        if unknown:
            return [TopicError(f"available_slots: {unknown[0]}")]
        found = present(
            (consumer for part in consumers if isinstance(part, tuple) for consumer in part),
            self._names,
            options.consumer_idle,
        )
        told: list[Observation | Exception] = []
        if options.worker_consumers:
            told.append(Capacity("workers", found.workers))
        workers = found.workers if options.worker_consumers else self._workers()
        busy = found.busy + sum(depth for depth in working if isinstance(depth, int))
        slots = max(0, workers - busy)
        if options.blocked_hint and isinstance(seen.blocked, int):
            slots = min(slots, seen.blocked)
        return [*told, Capacity("available_slots", slots)]

    def _streams(self, seen: _Seen) -> set[bytes]:
        """Return the keys whose consumers count."""
        keys = {s.key for topic in self._topics.values() if topic.consumers for s in self._of(topic)}
        return keys & seen.readings.keys()


def _topic(options: Options, name: str) -> _Topic:
    return _Topic(
        options.sources(name),
        tuple(key for key in options.queues.get(name, ()) if key in options.patterns),
        consumers=name in options.worker_consumers or name in options.busy_from,
        busy=name in options.busy_from,
    )


def _step(searches: list[Search], way: Link, places: tuple[str, ...]) -> None:
    """Take one SCAN call of each search in a round trip of their own."""
    steps = [(search, search.requests(places)) for search in searches]
    answers = iter(way.run([request for _, requests in steps for request in requests]))
    for search, requests in steps:
        search.take([next(answers) for _ in requests])


def _blocked(answers: list[Any]) -> int | TopicError:
    """Add up the clients that block, as INFO of each master tells."""
    total = 0
    for answer in answers:
        found = None if isinstance(answer, Exception) else _BLOCKED.search(answer)
        if found is None:
            return TopicError(
                f"INFO clients: {answer if isinstance(answer, Exception) else 'no blocked_clients'}"
            )
        total += int(found[1])
    return total
