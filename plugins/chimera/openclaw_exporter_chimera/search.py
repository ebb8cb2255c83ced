"""Finds the keys of one pattern, with a bound, and keeps finding them one SCAN call at a time.

The first search goes on until it has seen the whole database. After that each collection takes one further
call along in its batch: in a database of up to `scan_count` keys that sees everything, in a larger one a new
key is found after as many collections as the database has that many keys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openclaw_exporter_chimera.reading import TopicError

if TYPE_CHECKING:
    from openclaw_exporter_chimera.links import Place, Request
    from openclaw_exporter_chimera.options import Options


class Search:
    """The search for one pattern.

    Attributes:
        complete: Whether the whole database was seen at least once.
        failed: Why the keys are unknown, where they are.
    """

    def __init__(self, pattern: str, options: Options) -> None:
        self._pattern = pattern
        self._count, self._limit, self._most = options.scan_count, options.scan_limit, options.max_keys
        self._known: set[bytes] = set()
        self.complete = False
        self.failed: TopicError | None = None
        self._begin(())

    @property
    def keys(self) -> set[bytes]:
        """The keys that the last complete search found, and those that the present one has found since."""
        return self._known

    def requests(self, places: tuple[Place, ...]) -> list[Request]:
        """Return one SCAN call for each master that this search has not seen to the end."""
        if not self._cursors or places != self._places:
            self._begin(places)
        self._calls += 1
        rest = (b"MATCH", self._pattern.encode(), b"COUNT", self._count)
        return [(place, (b"SCAN", cursor, *rest)) for place, cursor in self._cursors.items()]

    def take(self, answers: list[Any]) -> None:
        """Take the answers to `requests`."""
        for place, answer in zip(list(self._cursors), answers, strict=True):
            if isinstance(answer, Exception):
                self._fail(f"pattern {self._pattern!r}: {answer}")
                return
            self._seen.update(answer[1])
            self._cursors[place] = int(answer[0])
            if not self._cursors[place]:
                del self._cursors[place]
        self._known |= self._seen
        if len(self._seen) > self._most:
            self._beyond("max_keys", self._most)
        elif not self._cursors:
            self._known, self.complete = self._seen, True
        elif self._calls >= self._limit:
            self._beyond("scan_limit", self._limit)

    def _begin(self, places: tuple[Place, ...]) -> None:
        self._places = places
        self._cursors = dict.fromkeys(places, 0)
        self._seen: set[bytes] = set()
        self._calls = 0

    def _beyond(self, bound: str, value: int) -> None:
        self._fail(f"pattern {self._pattern!r} goes beyond {bound} = {value}, so its depth is unknown")

    def _fail(self, text: str) -> None:
        self.failed = TopicError(text)
        self._known, self.complete = set(), False
        self._begin(())
