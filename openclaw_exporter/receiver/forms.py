"""The heads that a proxy sends for many nodes, known by their bytes but for what differs from node to node.

A fleet's heartbeats come over a proxy's connection with the same fields in the same order; only certificate,
token, length and the place in the sequence are others each time. A certificate and a token that were read and
verified before have been through the parser, to the letter: nothing is left in such a head for it to find.
Every other head is the parser's. What is asked of certificate and token is asked of them here as ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from openclaw_exporter.receiver.heads import TRIES, VARYING, Head, Stencil
from openclaw_exporter.wire.client_cert import CLIENT_CERT

if TYPE_CHECKING:
    from openclaw_exporter.receiver.trust import Forwarded, Trust

_AUTHORIZATION: Final = b"authorization"
_CLIENT_CERT: Final = CLIENT_CERT.lower().encode()
_VARYING: Final = _CLIENT_CERT, _AUTHORIZATION, *VARYING
"""In these heads."""

_FORMS: Final = 3
"""So many kinds of heads are known of a connection: a fleet's publishers are a few."""


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


class _Form(NamedTuple):
    """One kind of head.

    Attributes:
        stencil: Recognizes it.
        head: That of the requests that have this form.
    """

    stencil: Stencil
    head: ForwardedHead


class Forms:
    """The forms of the heads that come over one connection of a proxy.

    Args:
        trust: Knows the nodes.
    """

    __slots__ = ("_forms", "_tries", "_trust")

    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        self._forms: list[_Form] = []
        self._tries = 0

    def find(self, request: bytes) -> tuple[Head, bytes, bytes, int] | None:
        """Return the head of a request, its length and sequence, and where its body begins.

        None: the parser has to look, since something in it is new.
        """
        for stencil, head in self._forms:
            found = stencil.fits(request)
            if found is None:
                continue
            (certificate, authorization, length, sequence), body_at = found
            speaker = self._trust.recall(certificate, authorization)
            if speaker is None:
                return None
            head.turn_to(speaker, certificate, authorization)
            return head, length, sequence, body_at
        return None

    def learn(self, request: bytes | memoryview, head: Head) -> None:
        """Note the form of a head, if it is a new one and there is room.

        Args:
            request: The bytes of one request, and of nothing more.
            head: What the parser has read.
        """
        if head.order is None or len(self._forms) == _FORMS or self._tries == TRIES:
            return
        content = bytes(request)
        # Of a node that was not known the head may well be.
        if any(form.stencil.fits(content) is not None for form in self._forms):
            return
        self._tries += 1
        fields = head.fields
        values = dict(fields)
        if not all(name in values for name in _VARYING):
            return
        stencil = Stencil.cut(content, {name: values[name] for name in _VARYING})
        if stencil is not None:
            self._forms.append(_Form(stencil, ForwardedHead(fields)))
