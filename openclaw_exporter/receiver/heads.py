"""The header fields of requests, looked at once where the requests of a connection hardly differ.

A node's heartbeats come with the same fields each time, but for their length and their place in the sequence.
What was found out about the others of one request holds for the next one as well. Where even the bytes are
those that the parser has read before, it need not read them again (`Stencil`).
"""

from __future__ import annotations

from functools import lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from openclaw_exporter.wire.headers import SEQUENCE, Sequence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Self

    from openclaw_exporter.receiver.connection import Verdict
    from openclaw_exporter.receiver.intake import Order
    from openclaw_exporter.receiver.trust import Forwarded

Field = tuple[bytes, bytes]

LENGTH: Final = b"content-length"
SEQUENCE_FIELD: Final = SEQUENCE.lower().encode()
VARYING: Final = LENGTH, SEQUENCE_FIELD
"""The fields that vary from one request of a node to the next."""

_NOWHERE: Final = -1
_SHORT: Final = 64
_END: Final = b"\r\n\r\n"
_LONGEST: Final = 40
"""More than either of the values that vary can have, if it is right."""

_ZERO: Final = b"0"
_SAFE_DIGITS: Final = 15
"""So many digits are no number beyond what a sequence may have."""

TRIES: Final = 8
"""How often it is tried to cut a stencil: some clients send head and body apart, or write fields otherwise,
and some proxies put something of their own into each head."""


# Most fields are those of the whole fleet; a token is longer than those.
@lru_cache(maxsize=1024)
def _shared(field: Field) -> Field:
    return field


class Stencil:
    """The bytes of a head that the parser has read, but for the values of the fields that vary.

    A request whose head has the same bytes, and digits where length and sequence were, is read by the parser
    as that head was, with other values: nothing is left for it to find out.

    Args:
        start: What comes before the first of the values.
        after: What comes after each; the last has the empty line.
        ordered: Puts values in the order of their coming into that of the names that `cut` was given.
    """

    __slots__ = ("_after", "_ordered", "_start")

    def __init__(
        self, start: bytes, after: list[bytes], ordered: Callable[[list[bytes]], tuple[bytes, ...]]
    ) -> None:
        self._start = start
        self._after = after
        self._ordered = ordered

    @classmethod
    def cut(cls, request: bytes, varying: Mapping[bytes, bytes]) -> Self | None:
        """Return the stencil of the head of a request; None: not everything in it is in its usual form.

        Args:
            request: The bytes of one request that the parser has read, and of nothing more.
            varying: The fields that vary, names in lower case; the last are `VARYING`, in that order.
        """
        body_at = request.find(_END) + len(_END)
        if body_at < len(_END) or varying[LENGTH] != b"%d" % (len(request) - body_at):
            return None
        head = request[:body_at]
        lowered = head.lower()
        places = []
        for name, value in varying.items():
            before = b"\r\n%b: " % name
            start = lowered.find(before) + len(before)
            if start < len(before) or not head.startswith(value + b"\r\n", start):
                return None
            places.append((start, start + len(value)))
        came = sorted(places)
        ends = [*(start for start, _ in came[1:]), body_at]
        after = [head[end:next_start] for (_, end), next_start in zip(came, ends, strict=True)]
        return cls(head[: came[0][0]], after, itemgetter(*map(came.index, places)))

    def fits(self, request: bytes) -> tuple[tuple[bytes, ...], int] | None:
        """Return the values, as `cut` was given their names, and where the body begins.

        None: the parser has to look.

        Args:
            request: What has arrived; a whole request and nothing more, if the answer is not None.
        """
        if not request.startswith(self._start):
            return None
        at = len(self._start)
        found = []
        for text in self._after:
            end = request.find(b"\r", at)
            if end < 0 or not request.startswith(text, end):
                return None
            found.append(request[at:end])
            at = end + len(text)
        values = self._ordered(found)
        length, sequence = values[-2:]
        if (
            len(length) < _LONGEST
            and length.isdigit()
            and int(length) == len(request) - at
            and len(sequence) < _LONGEST
            and sequence.replace(b".", b"").isdigit()
        ):
            return values, at
        return None


class Head:
    """The header fields of a request, or of several requests one after the other.

    Args:
        fields: All fields, in their order, as they came.

    Attributes:
        formed: The fields that count, once `Intake` has found no fault in their form.
        order: What it has read of them, but for the sequence.
        verdict: What it has found out about their token.
        varying: The values of `Content-Length` and `OpenClaw-Sequence`; None: not settled.
        size: How many bytes it has in its usual form, but for the values that vary.
        speaker: Whose it is, where that was found out before it was looked at.
        stencil: Recognizes the next request by its bytes, once one has followed.
    """

    __slots__ = (
        "_epoch",
        "_epoch_digits",
        "_fields",
        "_has_followed",
        "_length_at",
        "_sequence_at",
        "_tries",
        "formed",
        "order",
        "size",
        "stencil",
        "varying",
        "verdict",
    )

    speaker: Forwarded | None = None

    def __init__(self, fields: Iterable[Field]) -> None:
        self._fields = list(fields)
        self._length_at = self._sequence_at = _NOWHERE
        self.formed: dict[bytes, bytes] | None = None
        self.order: Order | None = None
        self.verdict: Verdict | None = None
        self.varying: tuple[bytes, bytes] | None = None
        self._epoch_digits: bytes | None = None
        self._epoch = 0
        self.size = 0
        self.stencil: Stencil | None = None
        self._has_followed = False
        self._tries = 0

    @property
    def fields(self) -> list[Field]:
        """All fields, names in lower case."""
        fields = [(name.lower(), value) for name, value in self._fields]
        if self.varying is not None:
            length, sequence = self.varying
            fields[self._length_at], fields[self._sequence_at] = (LENGTH, length), (SEQUENCE_FIELD, sequence)
        return fields

    def settle(self) -> bool:
        """Prepare for `follow`; return whether both of the fields that vary are there."""
        names = [name.lower() for name, _ in self._fields]
        if LENGTH not in names or SEQUENCE_FIELD not in names:
            return False
        self._length_at, self._sequence_at = names.index(LENGTH), names.index(SEQUENCE_FIELD)
        self._fields = [field if len(field[1]) > _SHORT else _shared(field) for field in self._fields]
        self.varying = self._fields[self._length_at][1], self._fields[self._sequence_at][1]
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
        self.vary(fields[length_at][1], fields[sequence_at][1])
        self._has_followed = True
        return True

    def vary(self, length: bytes, sequence: bytes) -> None:
        """Become the head of a later request, of which `stencil` has found these values."""
        self.varying = length, sequence
        if self.formed is not None:
            self.formed[SEQUENCE_FIELD] = sequence

    def read_sequence(self) -> Sequence:
        """Return what a settled head says of the node's own order.

        Raises:
            FieldsError: It is not the value of an `OpenClaw-Sequence`.
        """
        _, value = self.varying or (b"", b"")
        epoch, _, number = value.partition(b".")
        # As a rule the number alone is another one.
        is_usual = number.isdigit() and len(number) <= _SAFE_DIGITS
        if epoch == self._epoch_digits and is_usual and (number == _ZERO or not number.startswith(_ZERO)):
            return Sequence(self._epoch, int(number))
        sequence = Sequence.parse(value.decode("latin-1"))
        self._epoch_digits, self._epoch = epoch, sequence.epoch
        return sequence

    def learn(self, request: bytes | memoryview) -> None:
        """Prepare `stencil`, where a request has followed: most heads of a proxy's connection come once.

        Args:
            request: The bytes with which the last one came.
        """
        if self.varying is not None and self._has_followed and self.stencil is None and self._tries < TRIES:
            self._tries += 1
            self.stencil = Stencil.cut(bytes(request), dict(zip(VARYING, self.varying, strict=True)))
