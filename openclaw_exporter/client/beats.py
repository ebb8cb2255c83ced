"""Making heartbeats: what the node says now, in the contract's words, each with its own time and sequence."""

from __future__ import annotations

import logging
import socket
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from openclaw_exporter.client.outgoing import Outgoing
from openclaw_exporter.errors import ConfigError, ConfigProblem, FieldsError
from openclaw_exporter.wire.fields import REQUIRED_RESOURCES
from openclaw_exporter.wire.headers import Sequence
from openclaw_exporter.wire.heartbeat import build, encode
from openclaw_exporter.wire.timestamps import format_ms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from openclaw_exporter.client.clock import Clock
    from openclaw_exporter.client.settings import ClientSettings
    from openclaw_exporter.logs import Episodes

_REMEMBERED: Final = 4096
"""Sent times to stay clear of: at the shortest sensible interval, more than the hour that keys live."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the node says of itself now.

    Attributes:
        version: The version of the service that the node runs; None for the settings' own.
        capacity: Resource to amount; `workers` and `available_slots` count as 0 where they are missing.
        queue_depth: Topic to number of entries that wait.
        tags: Routing hints, `key:value` by convention.
        uptime_seconds: How long the node has run, in seconds.
        hostname: The node's host name; None for the settings' own.
    """

    version: str | None = None
    capacity: Mapping[str, int | float] = field(default_factory=dict)
    queue_depth: Mapping[str, int] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    uptime_seconds: int | None = None
    hostname: str | None = None


class BeatMaker:
    """Makes the heartbeats of one process, each with the next sequence and a `last_heartbeat` of its own.

    Args:
        settings: Host name, version and configured interval.
        node_id: The node.
        epoch: This process's epoch, Unix milliseconds.
        source: Returns what the node says now. Whatever it raises, a heartbeat goes out.
        clock: The time.
        taken: `sent_ms` of heartbeats that were made before and may still be delivered.
        episodes: Where a source that fails is logged.

    Raises:
        ConfigError: Host name or version cannot be sent.
    """

    def __init__(
        self,
        settings: ClientSettings,
        *,
        node_id: str,
        epoch: int,
        source: Callable[[], Report],
        clock: Clock,
        taken: Iterable[int],
        episodes: Episodes,
    ) -> None:
        self._node_id = node_id
        self._hostname = settings.hostname or socket.gethostname()
        self._version = settings.version or "unknown"
        self._interval = settings.interval
        self._source = source
        self._clock = clock
        self._episodes = episodes
        self._taken: set[int] = set(taken)
        self._order = deque(sorted(self._taken))
        self._last_good = Report()
        self._number = 0
        self.epoch = epoch
        self._check()

    def make(self) -> Outgoing:
        """Make the next heartbeat: of what the node says now, or last said where that cannot be sent."""
        sent_ms = self._unique_ms()
        body = self._body(self._ask(), sent_ms)
        outgoing = Outgoing(body, str(Sequence(self.epoch, self._number)), self._interval, sent_ms)
        self._number += 1
        return outgoing

    def with_epoch(self, outgoing: Outgoing, epoch: int) -> Outgoing:
        """Go over to another epoch, and return a heartbeat that was refused as one of that epoch."""
        self.epoch = epoch
        number = Sequence.parse(outgoing.sequence).number
        return outgoing._replace(sequence=str(Sequence(epoch, number)))

    def _ask(self) -> Report:
        try:
            report = self._source()
        except Exception as error:  # noqa: BLE001 - foreign code, and the heartbeat goes out whatever it does
            cause = type(error).__name__
            message = f"the node's report failed ({cause}): heartbeats repeat the last good one"
            self._episodes.begin("report", cause, message, level=logging.ERROR)
            return self._last_good
        return report

    def _body(self, report: Report, sent_ms: int) -> bytes:
        try:
            body = self._encode(report, sent_ms)
        except (FieldsError, TypeError, ValueError, AttributeError) as error:
            cause = str(error) if isinstance(error, FieldsError) else type(error).__name__
            message = f"the node's report cannot be sent ({cause}): heartbeats repeat the last good one"
            self._episodes.begin("report", cause, message, level=logging.ERROR)
            return self._encode(self._last_good, sent_ms)
        if report is not self._last_good:
            self._last_good = report
            self._episodes.end("report", "the node's report can be sent again")
        return body

    def _encode(self, report: Report, sent_ms: int) -> bytes:
        heartbeat = build(
            node_id=self._node_id,
            hostname=report.hostname or self._hostname,
            version=report.version or self._version,
            capacity={**dict.fromkeys(REQUIRED_RESOURCES, 0), **report.capacity},
            queue_depth=report.queue_depth,
            last_heartbeat=format_ms(sent_ms),
            tags=report.tags,
            uptime_seconds=report.uptime_seconds,
        )
        return encode(heartbeat)

    def _unique_ms(self) -> int:
        """Return the time in Unix milliseconds, or the next one that no heartbeat of this node has yet.

        The sequence orders heartbeats, so a clock that was set back may go through its times again.
        """
        sent_ms = int(self._clock.wall() * 1000)
        while sent_ms in self._taken:
            sent_ms += 1
        self._taken.add(sent_ms)
        self._order.append(sent_ms)
        if len(self._order) > _REMEMBERED:
            self._taken.discard(self._order.popleft())
        return sent_ms

    def _check(self) -> None:
        try:
            self._encode(Report(), 0)
        except FieldsError as error:
            raise ConfigError(
                tuple(
                    ConfigProblem(f"openclaw.{problem.field}", f"cannot be sent: {problem.message}")
                    for problem in error.problems
                )
            ) from None
