"""The heads that a proxy sends for many nodes, known by their bytes but for what differs from node to node.

A fleet's heartbeats come over a proxy's connection with the same fields in the same order; only certificate,
token, length and the place in the sequence are others each time. A certificate and a token that were read and
verified before have been through the parser, to the letter: nothing is left in such a head for it to find.
Every other head is the parser's. What is asked of certificate and token is asked of them here as ever.
"""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Final, NamedTuple

from openclaw_exporter.receiver.heads import LENGTH, SEQUENCE_FIELD, Head
from openclaw_exporter.wire.client_cert import CLIENT_CERT

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from openclaw_exporter.receiver.trust import Forwarded, Trust

_AUTHORIZATION: Final = b"authorization"
_CLIENT_CERT: Final = CLIENT_CERT.lower().encode()
_VARYING: Final = (_CLIENT_CERT, _AUTHORIZATION, LENGTH, SEQUENCE_FIELD)
_END: Final = b"\r\n\r\n"
_LONGEST: Final = 40
"""More than a length or a place in the sequence can have, if it is right."""

_FORMS: Final = 3
"""So many kinds of heads are known of a connection: a fleet's publishers are a few."""

_TRIES: Final = 8
"""How often it is tried to cut one: some proxies put something of their own into each head."""


class ForwardedHead(Head):
    """The header fields of requests that a proxy sends one after the other, each for another node.

    Attributes:
        speaker: Whose the present request is.
    """

    __slots__ = ("_authorization_at", "_certificate_at", "speaker")

    def __init__(self, fields: list[tuple[bytes, bytes]]) -> None:
        super().__init__(fields)
        self.settle()
        names = [name for name, _ in fields]
        self._certificate_at, self._authorization_at = names.index(_CLIENT_CERT), names.index(_AUTHORIZATION)
        self.speaker: Forwarded | None = None

    def turn_to(self, speaker: Forwarded, certificate: bytes, authorization: bytes) -> None:
        """Become the head of a request of another node; `vary` says the rest.

        Args:
            speaker: The node; what it has verified last is this token.
            certificate: The value of `Client-Cert`.
            authorization: That of `Authorization`.
        """
        self._fields[self._certificate_at] = _CLIENT_CERT, certificate
        self._fields[self._authorization_at] = _AUTHORIZATION, authorization
        if self.formed is not None:
            self.formed[_AUTHORIZATION] = authorization
        self.speaker = speaker
        self.verdict = speaker.verdict


class _Values(NamedTuple):
    certificate: bytes
    authorization: bytes
    length: bytes
    sequence: bytes
    body_at: int


class Form:
    """The bytes of one head that the parser has read, but for the four values that vary.

    Args:
        start: What comes before the first of them.
        after: What comes after each; the last has the empty line.
        ordered: Puts values in the order of their coming into that of `_VARYING`.
        head: That of the requests that have this form.
    """

    __slots__ = ("_after", "_ordered", "_start", "head")

    def __init__(
        self,
        start: bytes,
        after: list[bytes],
        ordered: Callable[[list[bytes]], tuple[bytes, bytes, bytes, bytes]],
        head: ForwardedHead,
    ) -> None:
        self._start = start
        self._after = after
        self._ordered = ordered
        self.head = head

    @classmethod
    def cut(cls, request: bytes, fields: list[tuple[bytes, bytes]]) -> Self | None:
        """Return the form of the head of a request; None: not everything in it is in its usual form.

        Args:
            request: The bytes of one request that was accepted, and of nothing more.
            fields: Its fields, names in lower case.
        """
        body_at = request.find(_END) + len(_END)
        values = dict(fields)
        if body_at < len(_END) or not all(name in values for name in _VARYING):
            return None
        if values[LENGTH] != b"%d" % (len(request) - body_at):
            return None
        head = request[:body_at]
        lowered = head.lower()
        places = []
        for name in _VARYING:
            before = b"\r\n%b: " % name
            start = lowered.find(before) + len(before)
            if start < len(before) or not head.startswith(values[name] + b"\r\n", start):
                return None
            places.append((start, start + len(values[name])))
        came = sorted(places)
        ends = [*(start for start, _ in came[1:]), body_at]
        after = [head[end:next_start] for (_, end), next_start in zip(came, ends, strict=True)]
        ordered = itemgetter(*(came.index(place) for place in places))
        return cls(head[: came[0][0]], after, ordered, ForwardedHead(fields))

    def read(self, request: bytes) -> _Values | None:
        """Return what varies in a head of this form; None: it is of another.

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
        certificate, authorization, length, sequence = self._ordered(found)
        if (
            len(length) <= _LONGEST
            and length.isdigit()
            and int(length) == len(request) - at
            and len(sequence) <= _LONGEST
            and sequence.replace(b".", b"").isdigit()
        ):
            return _Values(certificate, authorization, length, sequence, at)
        return None


class Forms:
    """The forms of the heads that come over one connection of a proxy.

    Args:
        trust: Knows the nodes.
    """

    __slots__ = ("_forms", "_tries", "_trust")

    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        self._forms: list[Form] = []
        self._tries = 0

    def find(self, request: bytes) -> tuple[Head, bytes, bytes, int] | None:
        """Return the head of a request, its length and sequence, and where its body begins.

        None: the parser has to look, since something in it is new.
        """
        for form in self._forms:
            values = form.read(request)
            if values is None:
                continue
            speaker = self._trust.recall(values.certificate, values.authorization)
            if speaker is None:
                return None
            form.head.turn_to(speaker, values.certificate, values.authorization)
            return form.head, values.length, values.sequence, values.body_at
        return None

    def learn(self, request: bytes | memoryview, head: Head) -> None:
        """Note the form of a head, if it is a new one and there is room.

        Args:
            request: The bytes of one request, and of nothing more.
            head: What the parser has read.
        """
        if head.order is None or len(self._forms) == _FORMS or self._tries == _TRIES:
            return
        content = bytes(request)
        # Of a node that was not known the head may well be.
        if any(form.read(content) is not None for form in self._forms):
            return
        self._tries += 1
        form = Form.cut(content, head.fields)
        if form is not None:
            self._forms.append(form)
