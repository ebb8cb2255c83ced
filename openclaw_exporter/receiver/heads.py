"""The header fields of requests, looked at once where the requests of a connection hardly differ.

A node's heartbeats come with the same fields each time, but for their length and their place in the sequence.
What was found out about the others of one request holds for the next one as well.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from openclaw_exporter.wire.headers import SEQUENCE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from openclaw_exporter.receiver.intake import Order

Field = tuple[bytes, bytes]

LENGTH: Final = b"content-length"
SEQUENCE_FIELD: Final = SEQUENCE.lower().encode()
_NOWHERE: Final = -1
_SHORT: Final = 64


# Most fields are those of the whole fleet; a token is longer than those.
@lru_cache(maxsize=1024)
def _shared(field: Field) -> Field:
    return field


class Head:
    """The header fields of a request, or of several requests one after the other.

    Args:
        fields: All fields, in their order, as they came.

    Attributes:
        formed: The fields that count, once `Intake` has found no fault in their form.
        order: What it has read of them, but for the sequence.
    """

    __slots__ = ("_fields", "_length_at", "_sequence_at", "formed", "order")

    def __init__(self, fields: Iterable[Field]) -> None:
        self._fields = list(fields)
        self._length_at = self._sequence_at = _NOWHERE
        self.formed: dict[bytes, bytes] | None = None
        self.order: Order | None = None

    @property
    def fields(self) -> list[Field]:
        """All fields, names in lower case."""
        return [(name.lower(), value) for name, value in self._fields]

    @property
    def varying(self) -> tuple[bytes, bytes]:
        """The values of `Content-Length` and `OpenClaw-Sequence`, which `follow` has put there."""
        return self._fields[self._length_at][1], self._fields[self._sequence_at][1]

    def settle(self) -> bool:
        """Prepare for `follow`; return whether both of the fields that vary are there."""
        names = [name.lower() for name, _ in self._fields]
        if LENGTH not in names or SEQUENCE_FIELD not in names:
            return False
        self._length_at, self._sequence_at = names.index(LENGTH), names.index(SEQUENCE_FIELD)
        self._fields = [field if len(field[1]) > _SHORT else _shared(field) for field in self._fields]
        return True

    def follow(self, fields: list[Field]) -> bool:
        """Become the head of a later request, where that differs in the fields that vary alone.

        Args:
            fields: Its fields, as they came.

        Returns:
            Whether it is such a request. Where it is not, this head is of no use any more.
        """
        known, length_at, sequence_at = self._fields, self._length_at, self._sequence_at
        if len(fields) != len(known):
            return False
        for at in (length_at, sequence_at):
            if fields[at][0] != known[at][0]:
                return False
            known[at] = fields[at]
        if fields != known:
            return False
        if self.formed is not None:
            self.formed[SEQUENCE_FIELD] = fields[sequence_at][1]
        return True
