"""Reading a receiver's registry, with a reader's certificate."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import urlencode

import msgspec

from openclaw_exporter.client.events import EventParser
from openclaw_exporter.client.nodes import FleetCapacity, Node, NodeHistory, NodePage
from openclaw_exporter.client.reading import Line, RegistryError, refusal
from openclaw_exporter.errors import UserError
from openclaw_exporter.wire.fields import UUID

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from typing import Self

    from openclaw_exporter.client.events import NodeEvent
    from openclaw_exporter.client.nodes import HeardHeartbeat

T = TypeVar("T")

PAGE: Final = 500
_OK: Final = 200
_LATER: Final = (None, 429, 503)
_NOT_FOUND: Final = 404

_is_node_id = re.compile(UUID).fullmatch


class Registry:
    """A connection to one receiver's registry, kept between calls; a context manager.

    For one thread at a time. The files are read again when they change.

    Args:
        endpoint: The receiver's base URL; `http://` for a receiver with insecure_dev on this machine, which
            needs no files.
        ca: PEM file of the authorities that sign the receiver's certificate.
        certificate: PEM file of the reader's certificate.
        key: PEM file of its private key; by default it is looked for in the certificate's file.
        timeout: Seconds that one exchange may take.

    Raises:
        CredentialError: One of the files cannot be used.
        UserError: The endpoint is no https URL, or a file is missing.

    Example:
        >>> from openclaw_exporter.client import Registry
        >>> Registry("http://receiver.example:8443")
        Traceback (most recent call last):
        ...
        openclaw_exporter.errors.UserError: the endpoint 'http://receiver.example:8443' is no https URL, ...
    """

    def __init__(
        self,
        endpoint: str,
        *,
        ca: Path | str | None = None,
        certificate: Path | str | None = None,
        key: Path | str | None = None,
        timeout: float = 10.0,
    ) -> None:
        self._line = Line(endpoint, ca, certificate, key, timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next call opens another one."""
        self._line.close()

    def nodes(
        self,
        *,
        states: Iterable[str] = (),
        tags: Iterable[str] = (),
        min_available_slots: int | None = None,
    ) -> Iterator[Node]:
        """Yield nodes by node_id, page after page.

        Args:
            states: Nodes in one of these states; none: in any.
            tags: Nodes that have all of these tags.
            min_available_slots: Live nodes that offer at least so many slots.

        Raises:
            RegistryError: The receiver does not answer, or refuses.
        """
        query = [*_query(states, tags, min_available_slots), ("limit", str(PAGE))]
        cursor: list[tuple[str, str]] = []
        while True:
            page = self._get("/openclaw/nodes", query + cursor, NodePage)
            yield from page.nodes
            if page.next_cursor is None:
                return
            cursor = [("cursor", page.next_cursor)]

    def best(
        self, count: int, *, tags: Iterable[str] = (), min_available_slots: int | None = 1
    ) -> list[Node]:
        """Return the nodes that offer the most slots, the best first.

        Args:
            count: How many at most, 1 to 1000.
            tags: Nodes that have all of these tags.
            min_available_slots: Nodes that offer at least so many.

        Raises:
            RegistryError: The receiver does not answer, or refuses.
        """
        query = _query((), tags, min_available_slots)
        query += [("sort", "-available_slots"), ("limit", str(count))]
        return self._get("/openclaw/nodes", query, NodePage).nodes

    def node(self, node_id: str) -> Node | None:
        """Return one node; None where the registry does not know it.

        Raises:
            RegistryError: The receiver does not answer, or refuses.
        """
        return self._find(f"/openclaw/nodes/{_checked(node_id)}", Node)

    def history(self, node_id: str) -> list[HeardHeartbeat]:
        """Return what arrived from a node in the last hour, oldest first; nothing for one that is not known.

        Raises:
            RegistryError: The receiver does not answer, or refuses.
        """
        found = self._find(f"/openclaw/nodes/{_checked(node_id)}/history", NodeHistory)
        return [] if found is None else found.history

    def capacity(self, *, tags: Iterable[str] = ()) -> FleetCapacity:
        """Return what the live nodes with all of these tags have together.

        Raises:
            RegistryError: The receiver does not answer, or refuses.
        """
        return self._get("/openclaw/capacity", _query((), tags, None), FleetCapacity)

    def events(
        self, *, events: Iterable[str] = (), tags: Iterable[str] = (), last_event_id: str = ""
    ) -> Iterator[NodeEvent]:
        """Yield what happens to nodes, for as long as it is asked for.

        A connection that is lost is opened again, and the events meanwhile follow; where they are lost, one
        of the name `gap` says so. It has a connection of its own, which ends with the iterator (`close`).

        Args:
            events: Only these; none: all but suspect, forgotten and updated.
            tags: Of nodes that have all of these tags.
            last_event_id: Go on behind this event.

        Raises:
            RegistryError: The receiver does not answer at first, or refuses.
        """
        query = [("event", event) for event in events] + _query((), tags, None)
        target = f"/openclaw/events?{urlencode(query)}" if query else "/openclaw/events"
        parser = EventParser(last_event_id)
        met = False
        while True:
            fields = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
            if parser.last_event_id:
                fields["Last-Event-ID"] = parser.last_event_id
            try:
                yield from parser.parse(self._line.stream(target, fields))
            except RegistryError as error:
                # Nothing was ever heard; or somebody answers, and not that it is too early.
                if not (met or parser.last_event_id != last_event_id) or error.status not in _LATER:
                    raise
            except ValueError as error:
                raise RegistryError(f"{self._line.base}/openclaw/events: {error}") from error
            met = True
            time.sleep(parser.retry)

    def _find(self, path: str, kind: type[T]) -> T | None:
        try:
            return self._get(path, [], kind)
        except RegistryError as error:
            if error.status == _NOT_FOUND and error.problem == "node-unknown":
                return None
            raise

    def _get(self, path: str, query: list[tuple[str, str]], kind: type[T]) -> T:
        target = f"{path}?{urlencode(query)}" if query else path
        status, body = self._line.get(target)
        if status != _OK:
            raise refusal(self._line.base, status, body)
        try:
            return msgspec.json.decode(body, type=kind)
        except ValueError as error:
            message = f"{self._line.base}{path} did not answer as a registry does: {error}"
            raise RegistryError(message, status=status) from error


def _query(
    states: Iterable[str], tags: Iterable[str], min_available_slots: int | None
) -> list[tuple[str, str]]:
    query = [("state", state) for state in states] + [("tag", tag) for tag in tags]
    if min_available_slots is not None:
        query.append(("min_available_slots", str(min_available_slots)))
    return query


def _checked(node_id: str) -> str:
    """Return a node_id as it stands in a path.

    Raises:
        UserError: It is no UUID.
    """
    if not _is_node_id(node_id.lower()):
        raise UserError(f"{node_id!r} is no node_id, which is a UUID")
    return node_id.lower()
